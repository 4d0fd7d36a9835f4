"""Changing items while the shop is open: checked against what is there, then noted in the log."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from feature_store.errors import NotFoundError, OverloadedError, StaleRevisionError
from feature_store.item_changes import ItemWrite, put
from feature_store.schema import Item
from recsvc.serving.worker import Worker

ATTEMPTS = 20
RETRY_AFTER_S = 1.0

Document = dict[str, Any]
Plan = Callable[[Document | None], ItemWrite]
"""Returns the change of an item from its document, or from ``None`` if there is no such item."""


def etag_of(document: Document) -> str:
    """Return the entity tag of an item: another document has another one."""
    return f'"{blake2b(orjson.dumps(document), digest_size=12).hexdigest()}"'


def found_item(worker: Worker, item_id: str) -> Document | None:
    """Return an item as this worker knows it, or ``None`` if there is none or it was deleted."""
    catalogue = worker.holder.current.catalogue
    row = catalogue.row(item_id)
    if row is None or not catalogue.is_known(row):
        return None
    return catalogue.item(row)


def existing(document: Document | None, item_id: str) -> Document:
    """Return a document that must be there.

    Raises
    ------
    NotFoundError
        If it is not.
    """
    if document is None:
        raise NotFoundError(f"there is no item {item_id!r}")
    return document


async def change_item(
    worker: Worker, item_id: str, plan: Plan, if_match: str = "", if_none_match: str = ""
) -> Document | None:
    """Change one item; every worker knows of it in its next answer.

    Parameters
    ----------
    worker : Worker
        This process.
    item_id : str
        Which item.
    plan : callable
        Says what to change; called again when somebody else was first.
    if_match, if_none_match : str
        Entity tags that the writer names, as in the headers of HTTP; with them nothing else may
        have changed since they were compared.

    Returns
    -------
    dict or None
        The item as this worker knows it now; ``None`` if it is gone.

    Raises
    ------
    StaleRevisionError
        If the item is another one than the writer has seen.
    StoreUnavailableError, OverloadedError
        If it cannot be written now.
    """
    conditional = bool(if_match or if_none_match)
    for _ in range(ATTEMPTS):
        await worker.context(None)
        sequence = worker.holder.current.catalogue_sequence
        document = found_item(worker, item_id)
        _check_tags(document, if_match, if_none_match)
        change = plan(document)
        if await worker.store.catalogue.write([change], sequence if conditional else None):
            await worker.context(None)
            return found_item(worker, item_id)
    raise OverloadedError("the catalogue changes too fast for If-Match", RETRY_AFTER_S)


def _check_tags(document: Document | None, if_match: str, if_none_match: str) -> None:
    tag = None if document is None else etag_of(document)
    if if_match and not _names(if_match, tag):
        raise StaleRevisionError(
            "the item is not, or no longer, the one of If-Match: read it again"
        )
    if if_none_match and _names(if_none_match, tag):
        raise StaleRevisionError("the item exists already, as If-None-Match does not allow")


def _names(tags: str, tag: str | None) -> bool:
    known = [one.strip().removeprefix("W/") for one in tags.split(",")]
    return tag is not None and ("*" in known or tag in known)


async def put_items(worker: Worker, items: Sequence[Item]) -> None:
    """Replace items, all of them at once.

    Raises
    ------
    StoreUnavailableError
        If they cannot be written now.
    """
    await worker.store.catalogue.write([put(item) for item in items])
