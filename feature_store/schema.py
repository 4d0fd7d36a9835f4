"""The nouns of recsvc, validated where they enter and frozen afterwards."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, NewType

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

ItemId = NewType("ItemId", str)
"""An item's id as the shop writes it: never parsed, never normalised. A row is an ``int``."""

MAX_ID_LENGTH = 128
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_CLOCK_SKEW_S = 300


def check_id(value: str) -> str:
    """Return `value` if it is an id that the contract allows.

    Raises
    ------
    ValueError
        If it is empty, longer than 128 code points, ``.`` or ``..``, or holds a code point that
        cannot be printed.
    """
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise ValueError(f"an id has 1 to {MAX_ID_LENGTH} characters, this one has {len(value)}")
    if not value.isprintable():
        raise ValueError("an id holds printable characters only")
    if value in (".", ".."):
        raise ValueError("an id cannot be '.' or '..'")
    return value


Id = Annotated[
    str,
    AfterValidator(check_id),
    Field(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        description="1 to 128 printable characters, any of them; only `.` and `..` are refused",
    ),
]
ItemIdField = Annotated[ItemId, AfterValidator(check_id), Field(min_length=1, max_length=128)]


def format_time(value: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the second or to the millisecond when it has one."""
    value = value.astimezone(UTC)
    # Less than a millisecond is none: what is read again must be written the same.
    spec = "milliseconds" if value.microsecond >= 1000 else "seconds"
    return value.isoformat(timespec=spec).replace("+00:00", "Z")


def _after_epoch(value: datetime) -> datetime:
    if value < EPOCH:
        raise ValueError("a time before 1970 cannot be right")
    return value.astimezone(UTC)


Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_after_epoch),
    PlainSerializer(format_time, return_type=str, when_used="json"),
]


class Frozen(BaseModel):
    """A value that refuses unknown fields and cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


def person_of(user_id: str | None, anonymous_id: str | None) -> str | None:
    """Return the key under which a person's state is kept; a signed-in user comes first.

    The two kinds of id have prefixes of their own, so that no visitor can take a user's key.
    """
    if user_id is not None:
        return f"u:{user_id}"
    return None if anonymous_id is None else f"a:{anonymous_id}"


class EventType(StrEnum):
    """What a person did, or what happened to them."""

    PURCHASE = "purchase"
    VIEW = "view"
    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    IMPRESSION = "impression"
    CLICK = "click"
    LIKE = "like"
    DISLIKE = "dislike"
    RATING = "rating"
    SEARCH = "search"
    REFUND = "refund"
    SEND = "send"
    OPEN = "open"
    BOUNCE = "bounce"
    UNSUBSCRIBE = "unsubscribe"
    SURVEY = "survey"
    COMPLAINT = "complaint"


EVENT_TYPE_CODES: dict[EventType, int] = {kind: code for code, kind in enumerate(EventType)}
"""The stable small integer of each type in packed states; new types are added at the end."""

LIKE_FROM, DISLIKE_UPTO = 4.0, 2.0
"""A rating's value is from 1 to 5: from 4 on it says "like", up to 2 "dislike"."""

PURCHASE_CODE = EVENT_TYPE_CODES[EventType.PURCHASE]

ITEM_EVENTS = frozenset(
    {
        EventType.PURCHASE,
        EventType.VIEW,
        EventType.ADD_TO_CART,
        EventType.REMOVE_FROM_CART,
        EventType.CLICK,
        EventType.LIKE,
        EventType.DISLIKE,
        EventType.RATING,
        EventType.REFUND,
    }
)
"""The types that say something about one item, and so need an ``item_id``."""

FEEDBACK_EVENTS = frozenset({EventType.SURVEY, EventType.COMPLAINT, EventType.RATING})
"""The types that say what a person thinks of the shop (``feature_store/feedback.py``)."""

SURVEY_SCALES: dict[str, tuple[int, int]] = {"nps": (0, 10), "csat": (1, 5), "ces": (1, 7)}
"""The lowest and the highest score of each instrument, whole numbers between them."""
RATING_SCALE = (1.0, 5.0)
"""The lowest and the highest value of a rating."""


class Money(Frozen):
    """An amount in a currency; a decimal, never a float."""

    amount: Annotated[Decimal, Field(max_digits=14, decimal_places=4, examples=["15.00"])]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class Consent(Frozen):
    """What a person allows; ``None`` means that they were not asked."""

    profiling: bool | None = None
    analytics: bool | None = None


class Event(Frozen):
    """One thing that happened, as a shop reports it."""

    event_id: Id
    type: EventType
    user_id: Id | None = None
    anonymous_id: Id | None = None
    item_id: Annotated[ItemIdField | None, Field(description="the item that it is about")] = None
    timestamp: Annotated[Timestamp, Field(description="RFC 3339 with a zone")]
    quantity: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    unit_price: Money | None = None
    order_id: Id | None = None
    recommendation_id: Annotated[str | None, Field(max_length=64)] = None
    rank: Annotated[int | None, Field(ge=1, le=1000)] = None
    ranks: Annotated[list[int] | None, Field(max_length=100)] = None
    channel: Annotated[str | None, Field(max_length=64)] = None
    context: dict[str, str | int | float | bool | None] | None = None
    consent: Consent | None = None
    query: Annotated[str | None, Field(max_length=500)] = None
    value: float | None = None
    instrument: Literal["nps", "csat", "ces"] | None = None
    score: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Event":
        if self.user_id is None and self.anonymous_id is None:
            raise ValueError("an event needs a user_id or an anonymous_id")
        if self.type in ITEM_EVENTS and self.item_id is None:
            raise ValueError(f"an event of type {self.type.value} needs an item_id")
        if wrong := self._bad_feedback():
            raise ValueError(wrong)
        return self

    def _bad_feedback(self) -> str | None:
        """Say why a survey or a rating cannot be understood."""
        if self.type is EventType.RATING and self.value is not None:
            lowest, highest = RATING_SCALE
            if not lowest <= self.value <= highest:
                return f"the value of a rating is from {lowest:g} to {highest:g}"
        if self.type is EventType.SURVEY:
            if self.instrument is None:
                return f"a survey needs an instrument: {', '.join(SURVEY_SCALES)}"
            low, high = SURVEY_SCALES[self.instrument]
            if self.score is None or self.score not in range(low, high + 1):
                return f"a survey by {self.instrument} needs a whole score from {low} to {high}"
        return None

    @property
    def fact_code(self) -> int:
        """Code of the type under which the event is folded: a rating says like or dislike."""
        if self.type is EventType.RATING and self.value is not None:
            if self.value >= LIKE_FROM:
                return EVENT_TYPE_CODES[EventType.LIKE]
            if self.value <= DISLIKE_UPTO:
                return EVENT_TYPE_CODES[EventType.DISLIKE]
        return EVENT_TYPE_CODES[self.type]

    def check_clock(self, now: datetime) -> None:
        """Refuse a time that lies too far in the future.

        Raises
        ------
        ValueError
            If the event is more than five minutes ahead of `now`.
        """
        if self.timestamp > now + timedelta(seconds=MAX_CLOCK_SKEW_S):
            raise ValueError("the time lies more than 5 minutes in the future")


class Price(Money):
    """What something costs; never less than nothing."""

    amount: Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=4, examples=["15.00"])]


MarketName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", examples=["DE"])]

MAX_MARKETS = 250
MAX_ATTRIBUTES_BYTES = 32_768
MAX_ATTRIBUTES_DEPTH = 16


class MarketTerms(Frozen):
    """What differs in one market; what is not said is as in the item itself."""

    available: bool | None = None
    price: Price | None = None
    sale_price: Price | None = None

    @model_validator(mode="after")
    def _one_currency(self) -> "MarketTerms":
        _check_currencies(self.price, self.sale_price)
        return self


def _check_currencies(price: Money | None, sale_price: Money | None) -> None:
    if price is not None and sale_price is not None and price.currency != sale_price.currency:
        raise ValueError("price and sale_price are in one currency")


def _check_attributes(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(MAX_ATTRIBUTES_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            break
    else:
        raise ValueError(f"objects and lists may be {MAX_ATTRIBUTES_DEPTH} levels deep")
    try:
        size = len(orjson.dumps(value))
    except TypeError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    if size > MAX_ATTRIBUTES_BYTES:
        raise ValueError(f"may have {MAX_ATTRIBUTES_BYTES} bytes as JSON, these have {size}")
    return value


class Item(Frozen):
    """A product, a piece of content or an offer, as the catalogue holds it."""

    item_id: ItemIdField
    kind: Literal["product", "content", "offer"] = "product"
    title: Annotated[str | None, Field(max_length=500)] = None
    url: Annotated[str | None, Field(max_length=2000)] = None
    image_url: Annotated[str | None, Field(max_length=2000)] = None
    price: Price | None = None
    sale_price: Price | None = None
    brand: Annotated[str | None, Field(max_length=200)] = None
    categories: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=50)
    ] = []
    available: bool = True
    published_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    group_id: Id | None = None
    attributes: Annotated[dict[str, Any], AfterValidator(_check_attributes)] = {}
    markets: Annotated[
        dict[MarketName, MarketTerms],
        Field(
            max_length=MAX_MARKETS,
            description="what differs by market: the request's `context.market`, or its"
            " `context.country`",
        ),
    ] = {}

    @model_validator(mode="after")
    def _one_currency(self) -> "Item":
        _check_currencies(self.price, self.sale_price)
        return self
