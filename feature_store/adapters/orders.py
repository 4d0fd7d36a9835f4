"""A whole order, one purchase per line: the form of ``POST /v1/orders``."""

from typing import Annotated

from pydantic import Field, model_validator

from feature_store.adapters.translation import purchase_id
from feature_store.schema import Event, EventType, Frozen, Id, ItemIdField, Money, Timestamp

MAX_LINES = 1_000


class OrderLine(Frozen):
    """One line of an order."""

    item_id: ItemIdField
    quantity: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    unit_price: Money | None = None


class Order(Frozen):
    """What somebody bought at once."""

    order_id: Id
    user_id: Id | None = None
    anonymous_id: Id | None = None
    placed_at: Annotated[Timestamp, Field(description="RFC 3339 with a zone")]
    channel: Annotated[str | None, Field(max_length=64)] = None
    lines: Annotated[list[OrderLine], Field(min_length=1, max_length=MAX_LINES)]

    @model_validator(mode="after")
    def _whole(self) -> "Order":
        if self.user_id is None and self.anonymous_id is None:
            raise ValueError("an order needs a user_id or an anonymous_id")
        return self


def events_of(order: Order) -> list[Event]:
    """Return one purchase per line.

    The id of each is derived from the order's id and the line's position, so that sending an order
    again changes nothing. A line keeps its id only as long as the lines before it stay.
    """
    return [
        Event(
            event_id=purchase_id(order.order_id, position),
            type=EventType.PURCHASE,
            user_id=order.user_id,
            anonymous_id=order.anonymous_id,
            item_id=line.item_id,
            timestamp=order.placed_at,
            quantity=line.quantity,
            unit_price=line.unit_price,
            order_id=order.order_id,
            channel=order.channel,
        )
        for position, line in enumerate(order.lines, start=1)
    ]
