"""The entries of the catalogue's log: what each says, and what it makes of an item.

===========  ==========================================================================
entry        meaning
===========  ==========================================================================
``put``      the item is this, whatever it was
``patch``    merge this into the item (RFC 7396); without effect on one that is deleted
``delete``   the item is gone; its row stays
``rows``     an import has given rows to these ids; the items come with its file
otherwise    an event named an id that nobody had named before
===========  ==========================================================================

Every process applies the same entries in the same order with the same functions, so all of them
hold the same items. An entry is never refused here: it was checked before it was written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from feature_store.item_columns import as_document, columns_of, deleted_columns, stub_columns
from feature_store.schema import Item

Kind = Literal["stub", "put", "patch", "delete", "rows"]
_KINDS: tuple[Kind, ...] = ("put", "patch", "delete")
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One entry of the log.

    Parameters
    ----------
    kind : str
        What happened.
    row : int
        The item's row; for ``rows`` the first one.
    item_ids : tuple of str
        The item; for ``rows`` all of them, one a row, or none if they do not matter.
    body : dict
        The item, or the patch; empty for the others.
    n_rows : int
        How many rows a catalogue that includes this has at least.
    """

    kind: Kind
    row: int
    item_ids: tuple[str, ...]
    body: Mapping[str, Any]
    n_rows: int


def read_change(entry: bytes, *, reserved: bool = True) -> ItemChange:
    """Read an entry of the log.

    Parameters
    ----------
    entry : bytes
        JSON.
    reserved : bool
        Whether the ids of ``rows`` matter; they may be a million.
    """
    found: dict[str, Any] = orjson.loads(entry)
    row = int(found["row"])
    if "item_ids" in found:
        ids = tuple(found["item_ids"])
        return ItemChange("rows", row, ids if reserved else (), {}, row + len(ids))
    ids = (str(found["item_id"]),)
    for kind in _KINDS:
        if kind in found:
            return ItemChange(kind, row, ids, found[kind], row + 1)
    return ItemChange("stub", row, ids, {}, row + 1)


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """One change that somebody asks for.

    Parameters
    ----------
    kind : str
        ``put``, ``patch`` or ``delete``.
    item_id : str
        Which item.
    body : dict
        The item without its id, or the patch; empty to delete.
    """

    kind: Literal["put", "patch", "delete"]
    item_id: str
    body: Mapping[str, Any]

    def suffix(self) -> bytes:
        """Return the entry of the log without its row, which the server knows."""
        return b"," + orjson.dumps({"item_id": self.item_id, self.kind: self.body})[1:]


def put(item: Item) -> ItemWrite:
    """Return the change that makes an item what it is."""
    body = item.model_dump(mode="json", exclude={"item_id"}, exclude_defaults=True)
    return ItemWrite("put", item.item_id, body)


def as_item(item_id: str, body: Mapping[str, Any]) -> Item:
    """Return the item of a ``put``, or of a document that was patched.

    Raises
    ------
    ValidationError
        If it is none.
    """
    return Item.model_validate({**body, "item_id": item_id})


def merged(document: Any, patch: Any, depth: int = 0) -> Any:
    """Merge a patch into a document (RFC 7396): null removes, an object merges, all else replaces.

    Raises
    ------
    ValueError
        If the patch is nested too deeply.
    """
    if not isinstance(patch, Mapping):
        return patch
    if depth > _MAX_DEPTH:
        raise ValueError(f"a patch may be {_MAX_DEPTH} levels deep")
    result = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value, depth + 1)
    return result


def patched(columns: Mapping[str, Any], patch: Mapping[str, Any]) -> Item:
    """Return the item that a patch makes of another.

    Parameters
    ----------
    columns : mapping of str to object
        The item as it is, ``item_columns.COLUMNS``.
    patch : mapping of str to object
        A merge patch of its document.

    Raises
    ------
    ValidationError, ValueError
        If the result is no item.
    """
    document = {name: value for name, value in as_document(columns).items() if value is not None}
    return Item.model_validate(merged(document, patch))


def _apply(columns: Mapping[str, Any] | None, change: ItemChange) -> Mapping[str, Any] | None:
    """Return an item after a change, or ``None`` if it stays as it is."""
    (item_id,) = change.item_ids
    if change.kind == "stub":
        return None if columns is not None else stub_columns(item_id)
    if change.kind == "delete":
        return deleted_columns(item_id)
    if change.kind == "put":
        return columns_of(as_item(item_id, change.body))
    if columns is None or columns["deleted"]:
        return None
    try:
        return columns_of(patched(columns, change.body))
    except ValueError:
        return _without_sale(columns, change.body)


def _without_sale(columns: Mapping[str, Any], patch: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Resolve two patches that were right alone: a price and a sale price in two currencies.

    The later one counts, and the other's price goes.
    """
    for name in ("sale_price", "price"):
        if name not in patch:
            try:
                return columns_of(patched({**columns, name: None}, patch))
            except ValidationError:
                continue
    return None


def apply_changes(
    current: Any, changes: Iterable[ItemChange]
) -> tuple[dict[int, dict[str, Any]], int]:
    """Return the items that some changes make, and how many rows there are then.

    Parameters
    ----------
    current : callable
        Returns the columns of a row, or ``None`` for a hole.
    changes : iterable of ItemChange
        In the log's order.

    Returns
    -------
    changed : dict of int to dict
        Row and columns of each item that is not what it was.
    n_rows : int
        Rows that were given, as far as these changes know.
    """
    changed: dict[int, dict[str, Any]] = {}
    n_rows = 0
    for change in changes:
        n_rows = max(n_rows, change.n_rows)
        if change.kind == "rows":
            continue
        before = changed.get(change.row)
        columns = _apply(current(change.row) if before is None else before, change)
        if columns is not None:
            changed[change.row] = dict(columns)
    return changed, n_rows


def reserved_rows(changes: Iterable[ItemChange]) -> dict[int, str]:
    """Return the rows that imports have given to items; an import that died never brought them."""
    return {
        row: item_id
        for change in changes
        if change.kind == "rows"
        for row, item_id in enumerate(change.item_ids, change.row)
    }
