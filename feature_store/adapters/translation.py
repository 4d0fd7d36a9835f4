"""What every adapter gives back, and how an event of ours is built from parts of theirs."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from feature_store.preferences import Saying
from feature_store.schema import EPOCH, Event, EventType, check_id, format_time

MAX_NAME_LENGTH = 64
MAX_EVENTS = 10_000
"""So many events of ours may one document become."""

PRICE_STEP = Decimal("0.0001")


class Refusal(NamedTuple):
    """A part of a document that could not become an event.

    Parameters
    ----------
    message : int
        Which message of the document, from 0.
    pointer : str
        JSON pointer to the part, as a fragment.
    detail : str
        What is wrong with it.
    """

    message: int
    pointer: str
    detail: str


class Merge(NamedTuple):
    """A message, by its number in the document, that says: this visitor is this user."""

    message: int
    anonymous_id: str
    user_id: str


class AdapterError(ValueError):
    """A document that is not of the platform's form at all.

    Parameters
    ----------
    pointer : str
        Where.
    detail : str
        What is wrong.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


class Line(NamedTuple):
    """One product of an event, in a platform's words.

    Parameters
    ----------
    pointer : str
        Where in the document it stands.
    event_id : str
        What its event is called.
    item_id : str or None
        The product.
    quantity, price, currency : object
        As the platform wrote them; ``None`` for not at all.
    rank : object
        Place in a list that was shown.
    """

    pointer: str
    event_id: str
    item_id: str | None
    quantity: object
    price: object
    currency: object
    rank: object = None


@dataclass(slots=True)
class Translation:
    """What a document of another platform says in our words.

    Parameters
    ----------
    events : list of Event
        Ready to be stored.
    merges : list of Merge
        Who turned out to be whom.
    refused : list of Refusal
        Parts that could not be read.
    ignored : Counter of str
        Names of events that have no meaning here, with their number.
    withheld : int
        Messages of people who refused profiling: nothing of them is stored.
    denied : list of Event
        What these messages report. Not to be stored; what they say of mail holds all the same.
    sayings : list of Saying
        What visitors said of profiling.
    """

    events: list[Event] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    withheld: int = 0
    denied: list[Event] = field(default_factory=list)
    sayings: list[Saying] = field(default_factory=list)

    def ignore(self, name: object) -> None:
        """Count an event whose name means nothing here."""
        self.ignored[str(name)[:MAX_NAME_LENGTH]] += 1

    def hear(self, visitor: str | None, at: object, now: datetime, *, allowed: bool) -> None:
        """Note whether a visitor lets a profile be kept.

        Parameters
        ----------
        visitor : str or None
            The visitor's id; of nobody, or by an id that is none, nothing is noted.
        at : object
            When it was said, as the platform wrote it.
        now : datetime
            What the time is; for a time that cannot be read.
        allowed : bool
            What was said.
        """
        try:
            person = f"a:{check_id(visitor or '')}"
        except ValueError:
            return
        try:
            said_at = datetime.fromisoformat(str(at))
        except ValueError:
            said_at = now
        if said_at.tzinfo is None or not EPOCH <= said_at <= now:
            said_at = now
        self.sayings.append(Saying(person, "profiling", allowed, said_at, "event"))

    def refuse(self, index: int, pointer: str, detail: str) -> None:
        """Note a part that could not be read."""
        self.refused.append(Refusal(index, pointer, detail))

    def add_line(
        self, index: int, now: datetime, common: Mapping[str, Any], line: Line, currency: str
    ) -> None:
        """Keep the event of one product, or say why not.

        Parameters
        ----------
        index : int
            Which message of the document.
        now : datetime
            What the time is.
        common : mapping
            Fields that all products of the event share.
        line : Line
            The product.
        currency : str
            For a price without one.
        """
        if line.item_id is None:
            self.refuse(index, line.pointer, "needs the product's id")
            return
        try:
            parts = {
                **common,
                "event_id": line.event_id,
                "item_id": line.item_id,
                "quantity": number_of(line.quantity),
                "unit_price": money_of(line.price, line.currency, currency),
                "rank": number_of(line.rank),
            }
        except ValueError as error:
            self.refuse(index, line.pointer, str(error))
        else:
            self.add(index, line.pointer, now, parts)

    def add(self, index: int, pointer: str, now: datetime, parts: Mapping[str, Any]) -> None:
        """Check one event and keep it, or say why not.

        Parameters
        ----------
        index : int
            Which message of the document.
        pointer : str
            Where in the document the event stands.
        now : datetime
            What the time is; events may not be far ahead of it.
        parts : mapping
            Fields of `Event`; those that are ``None`` are left out.

        Raises
        ------
        AdapterError
            If the document says more than :data:`MAX_EVENTS` things.
        """
        if len(self.events) >= MAX_EVENTS:
            raise AdapterError("#", f"becomes more than {MAX_EVENTS} events; send it in parts")
        given = {name: value for name, value in parts.items() if value is not None}
        try:
            # Through JSON, in which a time is a text and a number is none.
            event = Event.model_validate_json(orjson.dumps(given, default=str), strict=True)
            event.check_clock(now)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                where = ".".join(str(part) for part in one["loc"])
                said = str(one["msg"]).removeprefix("Value error, ")
                self.refuse(index, pointer, f"{where}: {said}" if where else said)
        except (ValueError, TypeError) as error:
            self.refuse(index, pointer, str(error))
        else:
            self.events.append(event)


def derived_id(*parts: object) -> str:
    """Return an event id that is the same whenever the same parts are given.

    The parts are kept apart (``("a", "b1")`` and ``("ab", "1")`` differ), and the id fits the
    limit however long they are.
    """
    text = orjson.dumps([None if part is None else str(part) for part in parts])
    return "d-" + hashlib.blake2b(text, digest_size=16).hexdigest()


def purchase_id(order_id: str, position: int) -> str:
    """Return the id of one line of an order; `position` counts from 1.

    The same by whichever door the order comes, so an order that a browser and a backend both
    report counts once.
    """
    return derived_id("order", order_id, position)


def text_of(value: object) -> str | None:
    """Return an id that a platform wrote as a text or as a whole number."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def number_of(value: object) -> int | None:
    """Return a quantity that a platform wrote as a number or as a text; ``None`` for none.

    Raises
    ------
    ValueError
        If it is not a whole number.
    """
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise ValueError(f"the quantity {str(value)[:40]!r} is not a whole number")
    return int(number)


def money_of(price: object, currency: object, default_currency: str) -> dict[str, str] | None:
    """Return a price of a platform in our form; ``None`` where there is none.

    Raises
    ------
    ValueError
        If it is not a number.
    """
    if price is None or price == "":
        return None
    try:
        amount = Decimal(str(price)).quantize(PRICE_STEP).normalize()
    except InvalidOperation as error:
        raise ValueError(f"the price {str(price)[:40]!r} is not a number") from error
    return {"amount": f"{amount:f}", "currency": str(currency or default_currency)}


def micros_to_text(value: object) -> str:
    """Return a Unix time in microseconds as RFC 3339.

    Raises
    ------
    ValueError
        If it is not one.
    """
    try:
        return format_time(datetime.fromtimestamp(int(str(value)) / 1_000_000, UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{str(value)[:40]!r} is not a time in microseconds") from error


def objects_of(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list; nothing for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def object_of(value: object) -> dict[str, Any]:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


IMPRESSION = EventType.IMPRESSION.value
PURCHASE = EventType.PURCHASE.value
SEARCH = EventType.SEARCH.value
