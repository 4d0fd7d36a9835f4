"""``/v1/recommendations/{recommendation_id}``: why this, and not that."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import Field

from feature_store.errors import NotFoundError
from feature_store.schema import format_time
from recsvc.answer import read_recommendation_id
from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, secured
from recsvc.api.openapi import responses
from recsvc.api.schemas import Document
from recsvc.decisions import decision_of

router = APIRouter(tags=["recommendations"])


class RuleUse(Document):
    """A rule as it was in force."""

    rule_id: str
    revision: int


class DecidedItem(Document):
    """One item that was shown."""

    item_id: str | None
    rank: int
    score: float
    source: str
    reason: str
    because: Annotated[list[str | None], Field(description="items of the history or the page")]
    rules: Annotated[list[RuleUse], Field(description="rules that moved or allowed it")]


class HistoryItem(Document):
    """One item of the person's history."""

    item_id: str | None
    weight: float
    bought: bool


class RemovedItem(Document):
    """Something likely that was not shown."""

    item_id: str | None
    by: Annotated[
        list[str],
        Field(
            description="`recalled`, `not_showable`, `on_the_page`, `rule:ID`, `hidden_or_filtered`"
        ),
    ]


class Decision(Document):
    """Everything that an answer was made from."""

    recommendation_id: str
    at: str
    user_id: str | None
    anonymous_id: str | None
    placement: str
    context: dict[str, str]
    item_ids: list[str]
    model_version: str
    rules_version: int
    site_sequence: int
    catalogue_sequence: int
    personalized: bool
    degraded: list[str]
    items: list[DecidedItem]
    rules: Annotated[list[RuleUse], Field(description="rules that acted on the list")]
    history: Annotated[list[HistoryItem], Field(description="what weighed most")]
    removed: Annotated[
        list[RemovedItem],
        Field(
            description="likely items that were not shown: better candidates, what the person"
            " knows, what is popular; at most ten"
        ),
    ]
    candidates: Annotated[
        list[dict[str, Any]] | None,
        Field(description="the best 200, in a sampled share (`decision_sample`) of answers"),
    ]


EXAMPLE: dict[str, Any] = {
    "recommendation_id": "019a8f3c1b2d0001c0ffee0123456789",
    "at": "2026-11-22T09:00:00Z",
    "user_id": "2375",
    "anonymous_id": None,
    "placement": "home",
    "context": {"channel": "web"},
    "item_ids": [],
    "model_version": "20261122T050000Z-3f9a1c",
    "rules_version": 12,
    "site_sequence": 41,
    "catalogue_sequence": 92331,
    "personalized": True,
    "degraded": [],
    "items": [
        {
            "item_id": "1082185",
            "rank": 1,
            "score": 0.93,
            "source": "collaborative",
            "reason": "because_you_bought",
            "because": ["995242"],
            "rules": [{"rule_id": "summer", "revision": 3}],
        }
    ],
    "rules": [{"rule_id": "summer", "revision": 3}],
    "history": [{"item_id": "995242", "weight": 3.2, "bought": True}],
    "removed": [{"item_id": "77", "by": ["recalled"]}],
    "candidates": None,
}
RecommendationId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$",
        description="`recommendation_id` of an answer",
        examples=[EXAMPLE["recommendation_id"]],
    ),
]


@router.get(
    "/v1/recommendations/{recommendation_id}",
    operation_id="get_decision",
    summary="Replay a decision: each slot's source, the history behind it, rules, what was removed",
    response_model=Decision,
    responses=responses(Decision, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("users:read"),
)
async def get_decision(
    response: Response, worker: AnyWorker, recommendation_id: RecommendationId
) -> dict[str, Any]:
    """Return the record of an answer of any worker of this machine, from the moment it was given.

    Records are kept for `decision_days`. One that is not here is a 404.
    """
    at_s, _ = read_recommendation_id(recommendation_id)
    at_ms = int(recommendation_id[:12], 16)
    record = await worker.decisions.find(recommendation_id, at_ms)
    if record is None and abs(time.time() - at_s) < 10:
        # Another worker writes what it has answered every tenth of a second.
        record = await worker.decisions.find_soon(recommendation_id, at_ms)
    if record is None:
        raise NotFoundError("there is no record of this answer: too old, or of another machine")
    at = datetime.fromtimestamp(record["at"] / 1000, UTC)
    response.headers.update(PERSONAL)
    return {
        **decision_of(record, worker.holder.current.catalogue),
        "at": format_time(at.replace(microsecond=at.microsecond // 1000 * 1000)),
    }
