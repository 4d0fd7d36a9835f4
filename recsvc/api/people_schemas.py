"""What the routes of users, segments and personas take and answer."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from feature_store.profile import Profile
from feature_store.schema import Id, Timestamp
from recsvc.api.schemas import Document, FieldProblem
from recsvc.merchandising.personas import PersonaBody
from recsvc.merchandising.segments import SegmentBody


class RecentEvent(Document):
    """One of the newest events of a person."""

    type: str
    item_id: str
    at: Timestamp


class Computed(Document):
    """What training computed of a user, and the segments; null until it has."""

    model_config = ConfigDict(extra="allow")

    segments: Annotated[list[str], Field(description="names, as of now")]
    stage: Annotated[str | None, Field(description="new, active, at_risk or lapsed")]
    rfm: Annotated[
        dict[str, Any] | None, Field(description="recency, frequency, money, and their scores")
    ]
    clv: Annotated[dict[str, Any] | None, Field(description="expected value of the next time")]
    churn_risk: float | None
    next_purchase_at: Timestamp | None


class UserDocument(Profile):
    """What is known of a user."""

    user_id: str
    computed: Computed
    feedback: Annotated[
        dict[str, Any],
        Field(description="nps, csat, ces, ratings, complaints, as far as they said anything"),
    ]
    counts: Annotated[dict[str, int], Field(description="events by type")]
    n_items: Annotated[int, Field(description="distinct items")]
    first_seen_at: Timestamp | None
    last_seen_at: Timestamp | None
    recent: Annotated[list[RecentEvent], Field(description="the newest events, newest first")]


class ProfileBody(Profile):
    """What a shop says of a user; what is left out is not said any more."""

    user_id: Annotated[Id | None, Field(description="the same as in the address")] = None


class ProfilePatch(Document):
    """A merge patch (RFC 7396) of a profile: null removes, what is left out stays."""

    attributes: Annotated[
        dict[str, Any] | None, Field(examples=[{"city": "Berlin", "size": None}])
    ] = None
    loyalty: dict[str, Any] | None = None
    external_ids: dict[str, str | None] | None = None


class UserUpsert(Profile):
    """A user of a batch."""

    user_id: Id


class RejectedUser(Document):
    """A user of a batch who was not stored."""

    index: int
    errors: list[FieldProblem]


class UsersStored(Document):
    """What became of a batch of users."""

    accepted: int
    changed: Annotated[int, Field(description="users whose profile is another one now")]
    rejected: list[RejectedUser]


class SegmentDocument(SegmentBody):
    """A segment, and how many users belong to it."""

    segment_id: str
    built_in: Annotated[bool, Field(description="every shop has it; it cannot be changed")]
    revision: Annotated[int, Field(description="for If-Match; 0 of a built-in one")]
    updated_at: Timestamp | None
    updated_by: str | None
    count: Annotated[
        int | None, Field(description="users who belong to it; null where it was not counted")
    ]
    as_of: Annotated[Timestamp | None, Field(description="when they were counted")]


class SegmentUpsert(SegmentBody):
    """Who belongs to a segment."""

    segment_id: Annotated[Id | None, Field(description="the same as in the address")] = None


class SegmentList(Document):
    """All segments."""

    segments: list[SegmentDocument]
    n_users: Annotated[
        int | None, Field(description="users of whom more is known than newest events")
    ]


class SegmentDeleted(Document):
    """The segment is gone."""

    segment_id: str
    deleted: bool


class PersonaDocument(PersonaBody):
    """A saved made-up customer."""

    persona_id: str
    revision: Annotated[int, Field(description="for If-Match")]
    updated_at: Timestamp
    updated_by: str


class PersonaUpsert(PersonaBody):
    """A made-up customer."""

    persona_id: Annotated[Id | None, Field(description="the same as in the address")] = None


class PersonaList(Document):
    """All personas."""

    personas: list[PersonaDocument]


class PersonaDeleted(Document):
    """The persona is gone."""

    persona_id: str
    deleted: bool
