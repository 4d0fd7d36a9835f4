"""The documents of items as OpenAPI describes them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from feature_store.schema import Id, MarketTerms, Money, Timestamp
from recsvc.api.schemas import Document, FieldProblem


class ItemDocument(Document):
    """An item of the catalogue."""

    item_id: str
    kind: Literal["product", "content", "offer"]
    title: str | None
    url: str | None
    image_url: str | None
    price: Money | None
    sale_price: Money | None
    brand: str | None
    categories: list[str]
    available: bool
    published_at: Timestamp | None
    expires_at: Timestamp | None
    group_id: str | None
    attributes: dict[str, Any]
    markets: Annotated[dict[str, MarketTerms], Field(description="what differs by market")]


class ItemPatch(Document):
    """A merge patch (RFC 7396) of an item: null removes, what is left out stays."""

    item_id: Annotated[Id | None, Field(description="the same as in the address")] = None
    kind: Literal["product", "content", "offer"] | None = None
    title: str | None = None
    url: str | None = None
    image_url: str | None = None
    price: dict[str, Any] | None = None
    sale_price: dict[str, Any] | None = None
    brand: str | None = None
    categories: list[str] | None = None
    available: bool | None = None
    published_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    group_id: str | None = None
    attributes: dict[str, Any] | None = None
    markets: dict[str, dict[str, Any] | None] | None = None


class ItemList(Document):
    """A page of the catalogue."""

    items: list[ItemDocument]
    next_page_token: Annotated[str | None, Field(description="for the next page; null at the end")]


class RejectedItem(Document):
    """An item of a batch that was not stored."""

    index: int
    errors: list[FieldProblem]


class ItemsStored(Document):
    """What became of a batch; what is accepted is in every answer from now on."""

    accepted: int
    rejected: list[RejectedItem]


class ItemDeleted(Document):
    """An item that is in no answer any more; its row is never given to another."""

    item_id: str
    deleted: Literal[True]
