"""The documents of the API as OpenAPI describes them; hot answers are never built from these."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_store.schema import Consent, Id, Timestamp
from recsvc.checks import MAX_LIMIT
from recsvc.requests import MAX_EXCLUDE_ITEM_IDS, MAX_ITEM_IDS


class Document(BaseModel):
    """A JSON object of the API."""

    model_config = ConfigDict(extra="forbid")


class FieldProblem(Document):
    """One part of a request that is wrong."""

    pointer: Annotated[str, Field(description="JSON pointer; a query parameter as in a body")]
    detail: str


class Problem(Document):
    """An error, as RFC 9457 has it."""

    type: Annotated[str, Field(examples=["urn:recsvc:problem:invalid"])]
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldProblem] = []


class RecommendationBody(Document):
    """The question; in a query the same names."""

    placement: Annotated[str, Field(description="a configured slot", examples=["home"])] = "home"
    user_id: Annotated[Id | None, Field(description="whom for")] = None
    anonymous_id: Annotated[
        Id | None, Field(description="whom for, before they signed in; neither: for nobody")
    ] = None
    external_id: Annotated[
        dict[str, Id] | None,
        Field(
            max_length=1,
            description="the user's id in another system, in place of `user_id`; in a query"
            " external_id.NAME=ID. One that nobody has: for nobody",
            examples=[{"subscriber_key": "S-77"}],
        ),
    ] = None
    limit: Annotated[
        int | None,
        Field(ge=1, le=MAX_LIMIT, description="how many; default the placement's"),
    ] = None
    item_ids: Annotated[
        list[Id],
        Field(
            max_length=MAX_ITEM_IDS,
            description="what the page is about: the product shown, the cart; never in the answer",
        ),
    ] = []
    exclude_item_ids: Annotated[
        list[Id],
        Field(
            max_length=MAX_EXCLUDE_ITEM_IDS,
            description="never in this answer: what the page already shows",
        ),
    ] = []
    filter: Annotated[
        dict[str, Any] | None,
        Field(
            description="a condition; only items that match. In a query as JSON",
            examples=[{"field": "item.brand", "op": "eq", "value": "PRIVATE"}],
        ),
    ] = None
    context: Annotated[
        dict[str, str | float | bool],
        Field(description="attributes of the request; in a query context.NAME=VALUE"),
    ] = {}
    consent: Annotated[
        Consent | None,
        Field(description="what this visitor allows; in a query consent.NAME=true"),
    ] = None
    after: Annotated[
        str | None,
        Field(description="a recommendation id: the next items of that list"),
    ] = None
    fields: Annotated[
        list[str],
        Field(description="catalogue fields to copy into each item", examples=[["title"]]),
    ] = []
    explain: Annotated[bool, Field(description="reasons in words, and each item's journey")] = False


class Reason(Document):
    """Why an item is in the list."""

    code: Literal[
        "because_you_bought",
        "because_you_viewed",
        "buy_again",
        "bought_together",
        "similar_to",
        "trending",
        "popular",
        "new_arrival",
        "followed",
        "pinned",
    ]
    item_ids: list[str]
    followed: Annotated[
        list[str] | None, Field(description="brands and categories that the person named")
    ] = None
    text: Annotated[str | None, Field(description="with explain")] = None


class RecommendedItem(Document):
    """One item of a list."""

    item_id: str
    rank: int
    score: float
    source: Literal[
        "collaborative",
        "repeat",
        "together",
        "similar",
        "trending",
        "popular",
        "new",
        "pinned",
    ]
    reason: Reason
    rule_ids: list[str]
    item: Annotated[dict[str, Any], Field(description="the fields that were asked for")]
    journey: Annotated[dict[str, Any] | None, Field(description="with explain")] = None


class RecommendationAnswer(Document):
    """A list, and all that says where it comes from."""

    recommendation_id: str
    placement: str
    user_id: str | None
    model_version: Annotated[str, Field(description="empty while there is no model")]
    rules_version: int
    personalized: Annotated[bool, Field(description="whether the person's history was used")]
    degraded: Annotated[list[str], Field(description="what was missing, such as `store`")]
    experiment: str | None
    items: list[RecommendedItem]


class RejectedEvent(Document):
    """An event of a batch that was not stored."""

    index: int
    errors: list[FieldProblem]


class EventsAccepted(Document):
    """What became of a batch; what is accepted survives the death of any process."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: list[RejectedEvent]
    withheld: Annotated[
        int, Field(description="of people who refused profiling: nothing of it is stored")
    ] = 0


class EventsTranslated(EventsAccepted):
    """What became of the events of another platform; those rejected are named by message."""

    ignored: Annotated[
        dict[str, int], Field(description="events that mean nothing here: name and number")
    ]
    merged: Annotated[int, Field(description="visitors who became users")]


class MergeBody(Document):
    """The visitor who has signed in."""

    anonymous_id: Id


class MergeDone(Document):
    """One history instead of two."""

    user_id: str
    anonymous_id: str
    merged: Annotated[bool, Field(description="false when it had been done before")]


class ModelDocument(Document):
    """A trained model."""

    version: str
    created_at: Timestamp
    serves: bool
    n_items: int
    gate: dict[str, Any]
    evaluation: dict[str, Any]
    index: dict[str, Any]


class ModelChange(Document):
    """One entry of the registry's history."""

    at: Timestamp
    action: Literal["publish", "promote", "rollback", "hold", "resume"]
    version: str | None


class ModelState(Document):
    """Which model serves, and whether publishing is on hold."""

    current: str | None
    held: bool


class ModelList(ModelState):
    """All models, oldest first."""

    models: list[ModelDocument]
    history: list[ModelChange]


class Readiness(Document):
    """Whether a worker may be sent requests."""

    ready: bool
    model_version: str
    catalogue_rows: int
    store: Literal["reached", "down", "lease ended"]


class Liveness(Document):
    """The process runs."""

    status: Literal["ok"]
