"""What a customer does not want to see: for good, or until a time."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from feature_store.preferences import NO_PREFERENCES, Preferences
from recsvc.customer.named import Name, bits_of, covered, covered_by_any

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int32]

_NO_ROWS: Rows = np.zeros(0, dtype=np.int32)


def hides_anything(preferences: Preferences) -> bool:
    """Tell whether preferences may forbid items; those of most people that have any do not."""
    return preferences is not NO_PREFERENCES and bool(
        preferences.hidden_items
        or preferences.hidden_brands
        or preferences.hidden_categories
        or preferences.snoozed
    )


def hidden(
    catalogue: Catalogue, preferences: Preferences, now_s: float
) -> tuple[Rows, Mask | None]:
    """Return what somebody hides at a time.

    Parameters
    ----------
    catalogue : Catalogue
        All items.
    preferences : Preferences
        What the person decided.
    now_s : float
        Seconds since 1970: what is snoozed until a later time is hidden.

    Returns
    -------
    rows : ndarray of int32
        Items hidden by name.
    mask : ndarray of bool, shape (n_rows,), or None
        Those of brands and categories; ``None`` if no brand and no category is hidden.
    """
    return _by_name(catalogue, preferences, now_s), covered_by_any(catalogue, _names(preferences))


def is_hidden(
    catalogue: Catalogue, preferences: Preferences, rows: npt.NDArray[np.integer], now_s: float
) -> Mask:
    """Tell which of a few rows somebody hides at a time.

    Parameters
    ----------
    catalogue, preferences, now_s
        As for `hidden`.
    rows : ndarray of int, shape (n,)
        Catalogue rows.
    """
    found: Mask = np.isin(rows, _by_name(catalogue, preferences, now_s))
    for name in _names(preferences):
        if catalogue.names.has(*name):
            found |= covered(bits_of(catalogue, name), rows)
    return found


def _by_name(catalogue: Catalogue, preferences: Preferences, now_s: float) -> Rows:
    items = [*preferences.hidden_items]
    items += [one.item_id for one in preferences.snoozed if one.until.timestamp() > now_s]
    if not items:
        return _NO_ROWS
    rows = catalogue.rows(items)
    return rows[rows >= 0]


def _names(preferences: Preferences) -> Iterator[Name]:
    for text in preferences.hidden_brands:
        yield Name("brand", text)
    for text in preferences.hidden_categories:
        yield Name("category", text)
