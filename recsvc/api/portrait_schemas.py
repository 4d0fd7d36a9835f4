"""What the routes of profiles answer."""

from typing import Annotated, Literal

from pydantic import Field

from feature_store.preferences import Email, Purpose
from feature_store.schema import Timestamp
from recsvc.api.schemas import Document
from recsvc.customer.portrait import Kind


class NamedItem(Document):
    """An item, and what it is called."""

    item_id: str
    title: str


class ProfilePoint(Document):
    """One thing that is thought of a person, or that they said."""

    point_id: str
    kind: Kind
    name: str
    text: str
    strength: Annotated[
        float | None,
        Field(description="share of all that the history weighs, 0 to 1; null if not weighed"),
    ]
    because: Annotated[list[NamedItem], Field(description="what counts most, strongest first")]
    removable: bool
    why_not: Annotated[str | None, Field(description="why it cannot be removed by itself")]


class RecentSignal(Document):
    """One of the newest things that a person did."""

    type: str
    item_id: str
    title: str
    at: Timestamp
    text: str
    point_id: Annotated[str, Field(description="removes all that was done with the item")]


class RemovedPoint(Document):
    """A point that, the person says, does not describe them."""

    point_id: str
    kind: Literal["category", "brand", "item", "segment"]
    name: str
    title: str
    at: Timestamp


class ConsentState(Document):
    """Where one consent stands."""

    purpose: Purpose
    allowed: bool | None
    at: Timestamp | None
    source: str | None
    text: str


class MailState(Email):
    """What a person said of mail, in words too."""

    text: str


class ProfileDocument(Document):
    """What the system thinks of a person, and why."""

    profiled: Annotated[bool, Field(description="whether the history is used at all")]
    language: str
    text: str
    points: list[ProfilePoint]
    withheld: Annotated[int, Field(description="points that the shop names to nobody")]
    withheld_text: str | None
    recent: Annotated[list[RecentSignal], Field(description="newest first, at most 20")]
    recent_withheld: int
    consent: list[ConsentState]
    email: MailState
    removed: list[RemovedPoint]


class PointRemoved(Document):
    """The point is gone, from the profile and from what is recommended."""

    point_id: str
    removed: bool


class PointRestored(Document):
    """The point counts again, as far as the history speaks for it."""

    point_id: str
    restored: bool
