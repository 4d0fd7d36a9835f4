"""``/v1/items``: the catalogue, read and written; every answer after a write knows of it."""

import asyncio
import base64
import binascii
import contextlib
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.catalogue import Catalogue
from feature_store.errors import StoreUnavailableError
from feature_store.item_changes import ItemWrite, as_item, patched, put
from feature_store.item_search import ItemSearch, search
from feature_store.schema import Item
from recsvc.api.http import AnyWorker, PathId, field_errors, json_body, secured
from recsvc.api.item_schemas import (
    ItemDeleted,
    ItemDocument,
    ItemList,
    ItemPatch,
    ItemsStored,
    RejectedItem,
)
from recsvc.api.openapi import body_of, responses
from recsvc.api.schemas import FieldProblem
from recsvc.checks import BadValueError, FieldError, InvalidRequestError, check_filter, pointer_to
from recsvc.requests import MAX_FILTER_LENGTH, load_json
from recsvc.serving.item_writes import change_item, etag_of, existing, found_item, put_items

SCOPES = ("recs:read", "catalog:write")
WRITE = "catalog:write"
PAGE_SIZE = 20
MAX_ITEMS = 1_000

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
    "markets": {"AT": {"price": {"amount": "1.59", "currency": "EUR"}}},
}
UPSERT = {
    "item_id": "1082185",
    "title": "BANANAS",
    "price": {"amount": "1.49", "currency": "EUR"},
    "brand": "NATIONAL",
    "categories": ["PRODUCE > TROPICAL FRUIT"],
    "markets": {"AT": {"price": {"amount": "1.59", "currency": "EUR"}}},
}
ERRORS = (400, 401, 403, 404, 412, 413, 415, 422, 500, 503)


class ItemsQuery(BaseModel):
    """The parameters of a list of items."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[
        str,
        Field(
            max_length=200,
            description="each word begins a word of the title or the brand, or all of it begins"
            " the id; empty for any",
            examples=["ban"],
        ),
    ] = ""
    brand: Annotated[str | None, Field(max_length=200, description="this brand only")] = None
    category: Annotated[
        str | None, Field(max_length=500, description="this path, and what is below it")
    ] = None
    kind: Annotated[
        Literal["product", "content", "offer"] | None, Field(description="this kind only")
    ] = None
    available: Annotated[
        bool | None, Field(description="what the items themselves say, markets and dates aside")
    ] = None
    group_id: Annotated[str | None, Field(max_length=128, description="variants of one group")] = (
        None
    )
    filter: Annotated[
        str | None,
        Field(
            max_length=MAX_FILTER_LENGTH,
            description="a condition over items, as JSON",
            examples=['{"field": "item.price", "op": "lt", "value": 5}'],
        ),
    ] = None
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
    response_model_exclude_unset=True,
    responses=responses(
        ItemList, {"items": [EXAMPLE], "next_page_token": None}, 401, 403, 422, 500, 503
    ),
    **secured(*SCOPES),
)
async def list_items(worker: AnyWorker, asked: Annotated[ItemsQuery, Query()]) -> dict[str, Any]:
    """List items in a stable order; items known from events only are among them."""
    start = 0 if asked.page_token is None else _read_token(asked.page_token)
    wanted = ItemSearch(
        asked.query,
        asked.brand,
        asked.category,
        asked.kind,
        asked.available,
        asked.group_id,
        None if asked.filter is None else _read_filter(asked.filter).expression(),
    )
    catalogue = await _current(worker)
    rows = await asyncio.to_thread(search, catalogue, wanted, start, asked.limit + 1)
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
    response_model_exclude_unset=True,
    responses=responses(ItemDocument, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured(*SCOPES),
)
async def get_item(worker: AnyWorker, item_id: PathId, response: Response) -> dict[str, Any]:
    """Return an item, also one that is known from events only; its `ETag` is for `If-Match`."""
    await _current(worker)
    document = existing(found_item(worker, item_id), item_id)
    response.headers["ETag"] = etag_of(document)
    return document


@router.put(
    "/v1/items/{item_id}",
    operation_id="put_item",
    summary="Add or replace an item",
    response_model=ItemDocument,
    response_model_exclude_unset=True,
    responses=responses(ItemDocument, EXAMPLE, *ERRORS),
    **secured(WRITE, extra=body_of(Item, UPSERT)),
)
async def put_item(
    request: Request, worker: AnyWorker, item_id: PathId, response: Response
) -> dict[str, Any]:
    """Say what an item is; what is left out has its default. Also brings back a deleted one.

    `If-Match` and `If-None-Match: *` make it conditional.
    """
    item = _item(item_id, _own(await _object(request), item_id))
    return await _changed(request, worker, response, put(item))


@router.patch(
    "/v1/items/{item_id}",
    operation_id="patch_item",
    summary="Change a part of an item",
    response_model=ItemDocument,
    response_model_exclude_unset=True,
    responses=responses(ItemDocument, EXAMPLE, *ERRORS),
    **secured(WRITE, extra=body_of(ItemPatch, {"available": False})),
)
async def patch_item(
    request: Request, worker: AnyWorker, item_id: PathId, response: Response
) -> dict[str, Any]:
    """Merge a patch into an item (RFC 7396): null removes, what is left out stays.

    Patches of different fields that are sent at once all count.
    """
    patch = _own(await _object(request), item_id)
    patch.pop("item_id", None)
    return await _changed(request, worker, response, ItemWrite("patch", item_id, patch))


@router.delete(
    "/v1/items/{item_id}",
    operation_id="delete_item",
    summary="Remove an item",
    response_model=ItemDeleted,
    responses=responses(
        ItemDeleted, {"item_id": "1082185", "deleted": True}, 401, 403, 404, 412, 422, 500, 503
    ),
    **secured(WRITE),
)
async def delete_item(request: Request, worker: AnyWorker, item_id: PathId) -> dict[str, Any]:
    """Take an item out of every answer; what people did with it stays. A `PUT` brings it back."""
    await _changed(request, worker, None, ItemWrite("delete", item_id, {}))
    return {"item_id": item_id, "deleted": True}


@router.post(
    "/v1/items",
    operation_id="put_items",
    summary="Add or replace up to 1,000 items",
    response_model=ItemsStored,
    responses=responses(
        ItemsStored,
        {"accepted": 1, "rejected": []},
        *(400, 401, 403, 413, 415, 422, 500, 503),
    ),
    **secured(WRITE, extra=body_of(Item, UPSERT, many=MAX_ITEMS)),
)
async def store_items(request: Request, worker: AnyWorker) -> ItemsStored:
    """Store the good ones of a batch, all at once, and name the bad ones.

    Of several documents of the same item the last one counts.
    """
    values = load_json(await json_body(request))
    if isinstance(values, dict):
        values = [values]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_ITEMS:
        said = f"must be an item or a list of 1 to {MAX_ITEMS}"
        raise InvalidRequestError(FieldError("#", said))
    items: list[Item] = []
    rejected: list[RejectedItem] = []
    for index, value in enumerate(values):
        try:
            items.append(Item.model_validate(value))
        except ValidationError as error:
            wrong = [FieldProblem(**one._asdict()) for one in field_errors(error)]
            rejected.append(RejectedItem(index=index, errors=wrong))
    await put_items(worker, items)
    return ItemsStored(accepted=len(items), rejected=rejected)


# --- bodies -----------------------------------------------------------------------------------


async def _object(request: Request) -> dict[str, Any]:
    value = load_json(await json_body(request))
    if not isinstance(value, dict):
        raise InvalidRequestError(FieldError("#", "must be an object"))
    return value


def _own(body: dict[str, Any], item_id: str) -> dict[str, Any]:
    """Return a body whose id, if it has one, is that of the path."""
    if body.get("item_id", item_id) != item_id:
        raise InvalidRequestError(FieldError("#/item_id", "is another one than in the path"))
    return body


def _item(item_id: str, body: dict[str, Any]) -> Item:
    try:
        return as_item(item_id, body)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error


async def _changed(
    request: Request, worker: AnyWorker, response: Response | None, change: ItemWrite
) -> dict[str, Any]:
    """Write a change and return the item after it."""
    item_id = change.item_id

    def plan(document: dict[str, Any] | None) -> ItemWrite:
        if change.kind != "put":
            before = existing(document, item_id)
            if change.kind == "patch":
                _check_patch(worker.holder.current.catalogue, before, change)
        return change

    headers = (request.headers.get(name, "").strip() for name in ("if-match", "if-none-match"))
    document = await change_item(worker, item_id, plan, *headers)
    if response is None:
        return {}
    # Somebody else may have deleted it in the moment after.
    found = existing(document, item_id)
    response.headers["ETag"] = etag_of(found)
    return found


def _check_patch(catalogue: Catalogue, before: dict[str, Any], change: ItemWrite) -> None:
    row = catalogue.row(before["item_id"])
    columns = None if row is None else catalogue.columns_at(row)
    try:
        patched(columns or {}, change.body)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    except ValueError as error:
        raise InvalidRequestError(FieldError("#", str(error))) from error


async def _current(worker: AnyWorker) -> Catalogue:
    # Without the store the catalogue in memory is the best there is.
    with contextlib.suppress(StoreUnavailableError):
        await worker.context(None)
    return worker.holder.current.catalogue


# --- queries ----------------------------------------------------------------------------------


def _read_filter(text: str) -> Any:
    try:
        return check_filter(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(FieldError("#/filter", f"is not JSON: {error}")) from error
    except BadValueError as error:
        pointer = pointer_to("filter") + error.pointer
        raise InvalidRequestError(FieldError(pointer, error.detail)) from error


def _token(row: int) -> str:
    return base64.urlsafe_b64encode(f"row {row}".encode()).decode().rstrip("=")


def _read_token(token: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        row = int(text.removeprefix("row "))
    except (binascii.Error, ValueError) as error:
        bad = FieldError("#/page_token", "is not one that this list gave")
        raise InvalidRequestError(bad) from error
    return max(row, 0)
