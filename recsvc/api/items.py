"""``/v1/items``: the catalogue, as the next answer will see it."""

import asyncio
import base64
import binascii
import contextlib
from typing import Annotated, Any

import numpy as np
import polars as pl
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from feature_store.catalogue import Catalogue
from feature_store.errors import NotFoundError, StoreUnavailableError
from recsvc.api.http import AnyWorker, PathId, secured
from recsvc.api.openapi import responses
from recsvc.api.schemas import ItemDocument, ItemList
from recsvc.checks import FieldError, InvalidRequestError

SCOPES = ("recs:read", "catalog:write")
PAGE_SIZE = 20

router = APIRouter(tags=["items"])

EXAMPLE: dict[str, Any] = {
    "item_id": "1082185",
    "kind": "product",
    "title": "BANANAS",
    "url": None,
    "image_url": None,
    "price": {"amount": "1.49", "currency": "EUR"},
    "sale_price": None,
    "brand": "NATIONAL",
    "categories": ["PRODUCE > TROPICAL FRUIT"],
    "available": True,
    "published_at": None,
    "expires_at": None,
    "group_id": None,
    "attributes": {},
}


class ItemsQuery(BaseModel):
    """The parameters of a list of items."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[
        str,
        Field(
            max_length=200,
            description="text in the title or the brand, or the whole item id; empty for all",
            examples=["bananas"],
        ),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=100, description="items of a page")] = PAGE_SIZE
    page_token: Annotated[
        str | None,
        Field(max_length=64, description="`next_page_token` of the page before"),
    ] = None


@router.get(
    "/v1/items",
    operation_id="list_items",
    summary="Search the catalogue",
    response_model=ItemList,
    responses=responses(
        ItemList, {"items": [EXAMPLE], "next_page_token": None}, 401, 403, 422, 500, 503
    ),
    **secured(*SCOPES),
)
async def list_items(worker: AnyWorker, asked: Annotated[ItemsQuery, Query()]) -> dict[str, Any]:
    """List items in a stable order; items known from events only are among them."""
    start = 0 if asked.page_token is None else _read_token(asked.page_token)
    catalogue = await _current(worker)
    rows = await asyncio.to_thread(search, catalogue, asked.query, start, asked.limit + 1)
    page, more = rows[: asked.limit], rows[asked.limit :]
    return {
        "items": [catalogue.item(row) for row in page],
        "next_page_token": _token(more[0]) if more else None,
    }


@router.get(
    "/v1/items/{item_id}",
    operation_id="get_item",
    summary="One item",
    response_model=ItemDocument,
    responses=responses(ItemDocument, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured(*SCOPES),
)
async def get_item(worker: AnyWorker, item_id: PathId) -> dict[str, Any]:
    """Return an item, also one that is known from events only."""
    catalogue = await _current(worker)
    row = catalogue.row(item_id)
    if row is None:
        raise NotFoundError(f"there is no item {item_id!r}")
    return catalogue.item(row)


async def _current(worker: AnyWorker) -> Catalogue:
    # Without the store the catalogue in memory is the best there is.
    with contextlib.suppress(StoreUnavailableError):
        await worker.context(None)
    return worker.holder.current.catalogue


def search(catalogue: Catalogue, text: str, start: int, most: int) -> list[int]:
    """Return catalogue rows whose title or brand holds a text, or whose id it is.

    Parameters
    ----------
    catalogue : Catalogue
        Where to look.
    text : str
        In any case; empty for every item.
    start : int
        The first row that may be returned.
    most : int
        How many at most.
    """
    wanted = text.lower()
    found = pl.col("item_id").is_not_null()
    if wanted:
        holds = [
            pl.col(name)
            .str.to_lowercase()
            .str.contains(wanted, literal=True)
            .fill_null(value=False)
            for name in ("title", "brand")
        ]
        found &= pl.any_horizontal(*holds, pl.col("item_id") == text)
    matches = catalogue.frame.select(found.alias("found"))["found"].to_numpy()
    rows = {int(row) for row in np.flatnonzero(matches)} - set(catalogue.overlay)
    for row, columns in catalogue.overlay.items():
        texts = [str(columns[name] or "").lower() for name in ("title", "brand")]
        if columns["item_id"] == text or any(wanted in one for one in texts):
            rows.add(row)
    return sorted(row for row in rows if row >= start)[:most]


def _token(row: int) -> str:
    return base64.urlsafe_b64encode(f"row {row}".encode()).decode().rstrip("=")


def _read_token(token: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        return int(text.removeprefix("row "))
    except (binascii.Error, ValueError) as error:
        bad = FieldError("#/page_token", "is not one that this list gave")
        raise InvalidRequestError(bad) from error
