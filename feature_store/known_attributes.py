"""Which attributes the items of a catalogue have, and of what type they are."""

from collections.abc import Iterable
from typing import Any

import orjson
import polars as pl

from feature_store.catalogue import Catalogue

LOOKED_AT = 1_000
"""Items with an attribute that are looked at for its type."""


def attribute_types(catalogue: Catalogue, names: Iterable[str]) -> dict[str, type]:
    """Return the types of those attributes that some item has.

    Parameters
    ----------
    catalogue : Catalogue
        The items.
    names : iterable of str
        Names of attributes.

    Returns
    -------
    dict of str to type
        As ``conditions.Vocabulary`` takes it: ``str``, ``float``, ``bool``, ``list`` (of texts), or
        ``object`` where items differ; names that no item has are absent.
    """
    found: dict[str, type] = {}
    for name in names:
        types = {_type_of(value) for value in _values(catalogue, name)}
        if types:
            found[name] = types.pop() if len(types) == 1 else object
    return found


def _values(catalogue: Catalogue, name: str) -> Iterable[Any]:
    # As orjson writes it: without a space before the colon.
    key = orjson.dumps(name).decode() + ":"
    texts = catalogue.frame.lazy().select("attributes")
    with_it = texts.filter(pl.col("attributes").str.contains(key, literal=True)).head(LOOKED_AT)
    every = with_it.collect()["attributes"].to_list()
    every += [row["attributes"] for row in catalogue.overlay.values() if key in row["attributes"]]
    for text in every:
        value = orjson.loads(text).get(name)
        if value is not None:
            yield value


def _type_of(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    if isinstance(value, list):
        return list if all(isinstance(part, str) for part in value) else object
    return str if isinstance(value, str) else object
