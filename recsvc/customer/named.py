"""What the name of a brand or of a category covers: what customers hide, follow or disown.

A category covers everything below it, in any of an item's categories. Names are looked up as bits
over the catalogue (``Catalogue.named``), which changes of other items carry over.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from feature_store.preferences import Preferences

Mask = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint8]


class Name(NamedTuple):
    """A brand or a category.

    Parameters
    ----------
    kind : {"brand", "category"}
        Which of the two.
    text : str
        As the catalogue writes it: of a category the whole path.
    """

    kind: Literal["brand", "category"]
    text: str


def bits_of(catalogue: Catalogue, name: Name) -> Bits:
    """Return the items of a brand, or of a category and all below it, as bits."""
    kind, text = name
    if not catalogue.names.has(kind, text):
        # People may name what they like: it must cost nothing, and push out nothing that is known.
        return np.zeros(-(-catalogue.n_rows // 8), dtype=np.uint8)
    return catalogue.named(kind, text)


def covered(bits: Bits, rows: npt.NDArray[np.integer]) -> Mask:
    """Tell which rows are among some items.

    Parameters
    ----------
    bits : ndarray of uint8
        Result of `bits_of`.
    rows : ndarray of int, shape (n,)
        Rows of the same catalogue.
    """
    found: Mask = (bits[rows >> 3] << (rows & 7) & 0x80) != 0
    return found


def covered_by_any(catalogue: Catalogue, names: Iterable[Name]) -> Mask | None:
    """Return the items of any of some names, shape (n_rows,); ``None`` if none has an item."""
    total: Bits | None = None
    shared = True
    for name in names:
        if not catalogue.names.has(*name):
            continue
        bits = bits_of(catalogue, name)
        if total is None:
            total = bits
        elif shared:
            total, shared = total | bits, False
        else:
            np.bitwise_or(total, bits, out=total)
    if total is None:
        return None
    return np.unpackbits(total, count=catalogue.n_rows).view(np.bool_)


def interest_names(catalogue: Catalogue, preferences: Preferences) -> tuple[Name, ...]:
    """Return those of a person's interests that are the name of a category or of a brand."""
    named = []
    for text in sorted(preferences.interests):
        for kind in ("category", "brand"):
            if catalogue.names.has(kind, text):
                named.append(Name(kind, text))
                break
    return tuple(named)


def followed_names(preferences: Preferences) -> tuple[Name, ...]:
    """Return what somebody follows, in order."""
    brands = [Name("brand", text) for text in sorted(preferences.followed_brands)]
    return (*brands, *(Name("category", text) for text in sorted(preferences.followed_categories)))
