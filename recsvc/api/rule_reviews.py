"""Seeing the effect of rules before they are published: preview and lint."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.documents import SiteDocuments
from feature_store.schema import Id, ItemIdField, Timestamp, person_of
from recsvc.api.http import AnyWorker, field_errors, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.rules import BODY, BODY_ERRORS, READING, checked_body, vocabulary_of
from recsvc.api.schemas import Document
from recsvc.checks import FieldError, InvalidRequestError, pointer_to
from recsvc.merchandising.linting import drafts_of, lint
from recsvc.merchandising.personas import KIND as PERSONA
from recsvc.merchandising.personas import MadeUp, PersonaBody, persona_state
from recsvc.merchandising.preview import (
    Pair,
    Viewer,
    as_lists,
    as_served,
    compare,
    preview,
    viewer_of,
    with_rules,
)
from recsvc.merchandising.publishing import OUT_OF_FORCE, rule_of
from recsvc.requests import RecommendationRequest, load_json
from recsvc.rules import CheckedRule, parse_rule
from recsvc.serving.worker import Worker

MAX_SAMPLE = 1_000
MAX_LISTS = 20
SLICE = 5

router = APIRouter(tags=["rules"])


class PreviewBody(Document):
    """Which drafts to try, on whom, where and when."""

    rules: Annotated[
        list[dict[str, Any]],
        Field(
            default_factory=list,
            max_length=100,
            description="drafts; one with the `rule_id` of a rule replaces it",
        ),
    ]
    rule_ids: Annotated[
        list[Id],
        Field(
            default_factory=list,
            max_length=1000,
            description="rules as they were written last, published or not",
        ),
    ]
    user_ids: Annotated[list[Id], Field(default_factory=list, max_length=MAX_SAMPLE)]
    sample: Annotated[int | None, Field(ge=1, le=MAX_SAMPLE, description="users at random")] = None
    persona: Annotated[Id | None, Field(description="a made-up customer: `/v1/personas`")] = None
    placement: str = "home"
    context: Annotated[dict[str, str], Field(default_factory=dict)]
    item_ids: Annotated[list[ItemIdField], Field(default_factory=list, max_length=50)]
    limit: Annotated[int | None, Field(ge=1, le=100)] = None
    at: Annotated[Timestamp | None, Field(description="when; now if it is not said")] = None

    @model_validator(mode="after")
    def _whole(self) -> "PreviewBody":
        if not self.rules and not self.rule_ids:
            raise ValueError("name the drafts: rules, rule_ids or both")
        return self


class PreviewAnswer(Document):
    """Lists before and after, and what changes for all of the viewers together."""

    placement: str
    at: str | None
    summary: dict[str, Any]
    lists: Annotated[list[dict[str, Any]], Field(description=f"of the first {MAX_LISTS} viewers")]


class LintFinding(Document):
    """One thing that is probably wrong with a rule."""

    rule_id: str
    kind: str
    severity: Literal["error", "warning", "info"]
    detail: str
    others: list[str]


class LintAnswer(Document):
    """What is probably wrong; nothing was found if it is empty."""

    findings: list[LintFinding]
    rules: Annotated[int, Field(description="how many were looked at")]


class LintQuery(BaseModel):
    """The parameters of lint."""

    model_config = ConfigDict(extra="forbid")

    scope: Annotated[
        Literal["drafts", "live"],
        Field(description="rules as they were written last, or as they are in force"),
    ] = "drafts"


FINDING: dict[str, Any] = {
    "rule_id": "summer",
    "kind": "never_matches",
    "severity": "error",
    "detail": "the catalogue has no items that match its target",
    "others": [],
}
PREVIEWED: dict[str, Any] = {
    "placement": "home",
    "at": None,
    "summary": {
        "viewers": 1000,
        "changed_lists": 412,
        "mean_overlap": 0.91,
        "demand_shown": {
            "before": 0.21,
            "after": 0.2,
            "change": -0.01,
            "change_ci95": [-0.012, -0.008],
        },
        "gain": [{"item_id": "77", "title": "SANDALS", "before": 12, "after": 240}],
        "lose": [{"item_id": "12", "title": "BOOTS", "before": 230, "after": 40}],
        "rules": {"summer": 412},
    },
    "lists": [],
}


@router.post(
    "/v1/rules/preview",
    operation_id="preview_rules",
    summary="What would drafts do? Nothing is changed",
    response_model=PreviewAnswer,
    responses=responses(PreviewAnswer, PREVIEWED, *BODY_ERRORS),
    **secured(READING, extra=body_of(PreviewBody, {"rules": [BODY], "sample": 100})),
)
async def preview_rules(request: Request, worker: AnyWorker) -> dict[str, Any]:
    """Make lists with and without drafts, by the function that answers pages.

    Whom for: `user_ids`, a `sample` of users, or nobody in particular if neither is named.
    `demand_shown` is the share of what the model expects each viewer to want next that the list
    shows, so its change says what the drafts win or cost by the model's own scores.
    """
    body = await _read(request)
    await worker.context(None)
    snapshot = worker.holder.current
    if body.placement not in snapshot.site.placements:
        known = ", ".join(snapshot.site.placements)
        raise InvalidRequestError(
            FieldError("#/placement", f"there is none such; there are: {known}")
        )
    after = with_rules(snapshot, _with_drafts(worker, snapshot.site.documents, body))
    persona = None if body.persona is None else _persona(snapshot.site.documents, body.persona)
    question = RecommendationRequest(
        placement=body.placement,
        limit=body.limit,
        item_ids=tuple(body.item_ids),
        context={**(persona.context if persona else {}), **body.context},
    )
    now_s = int(body.at.timestamp() if body.at else time.time())
    made_up = persona_state(persona, snapshot.catalogue, now_s) if persona else None
    viewers = await _viewers(worker, body, made_up)
    pairs: list[Pair] = []
    for start in range(0, len(viewers), SLICE):
        part = viewers[start : start + SLICE]
        # Others get the processor in between: a thousand lists take a second.
        pairs += [preview(snapshot, after, one, question, now_s) for one in part]
        await asyncio.sleep(0)
    return {
        "placement": body.placement,
        "at": None if body.at is None else body.model_dump(mode="json")["at"],
        "summary": compare(pairs),
        "lists": [as_lists(pair) for pair in pairs[:MAX_LISTS]],
    }


@router.get(
    "/v1/rules/lint",
    operation_id="lint_rules",
    summary="What is probably wrong with the rules",
    response_model=LintAnswer,
    responses=responses(LintAnswer, {"findings": [FINDING], "rules": 12}, 401, 403, 422, 500, 503),
    **secured(READING),
)
async def lint_rules(worker: AnyWorker, asked: Annotated[LintQuery, Query()]) -> dict[str, Any]:
    """Look at all rules together: those written last, without the archived and paused ones."""
    await worker.context(None)
    snapshot = worker.holder.current
    rules: Iterable[CheckedRule] = snapshot.site.rules.values()
    if asked.scope == "drafts":
        rules = drafts_of(snapshot.site.documents)
    looked = list(rules)

    def found() -> list[dict[str, Any]]:
        findings = lint(
            looked,
            snapshot.catalogue,
            snapshot.site.placements,
            snapshot.site.segments,
            int(time.time()),
        )
        return [{**asdict(one), "others": list(one.others)} for one in findings]

    return {"findings": await asyncio.to_thread(found), "rules": len(looked)}


async def _read(request: Request) -> PreviewBody:
    try:
        return PreviewBody.model_validate(load_json(await json_body(request)))
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error


def _with_drafts(worker: Worker, site: SiteDocuments, body: PreviewBody) -> Sequence[CheckedRule]:
    """Return the rules in force as they would be if the drafts were published."""
    rules = dict(worker.holder.current.site.rules)
    placements = worker.holder.current.site.placements
    for rule_id in body.rule_ids:
        written = rule_of(site, rule_id).body
        assert written is not None
        rules.pop(rule_id, None)
        if written["status"] not in OUT_OF_FORCE:
            rules[rule_id] = parse_rule({**written, "rule_id": rule_id})
    for at, draft in enumerate(body.rules):
        rule_id = draft.get("rule_id") or f"draft-{at}"
        try:
            written = checked_body(draft, rule_id, worker)
        except InvalidRequestError as error:
            place = pointer_to("rules", str(at))
            raise InvalidRequestError(
                *(
                    FieldError(place + one.pointer.removeprefix("#"), one.detail)
                    for one in error.errors
                )
            ) from error
        rules.pop(rule_id, None)
        if written["status"] not in OUT_OF_FORCE:
            whole = {**written, "rule_id": rule_id}
            rules[rule_id] = parse_rule(whole, vocabulary_of(worker, whole), placements)
    return list(rules.values())


def _persona(site: SiteDocuments, persona_id: str) -> PersonaBody:
    found = site.get(PERSONA, persona_id)
    if found is None:
        raise InvalidRequestError(FieldError("#/persona", "there is none such; see /v1/personas"))
    return PersonaBody.model_validate(found.body)


async def _viewers(worker: Worker, body: PreviewBody, made_up: MadeUp | None) -> list[Viewer]:
    people = [person_of(user_id, None) for user_id in body.user_ids]
    if body.sample:
        people += await worker.store.people.sample(body.sample)
    viewers = []
    if made_up is not None:
        state, document, preferences = made_up
        viewers = [Viewer(str(body.persona), state, preferences, document)]
    elif not people:
        people = [None]
    for person in dict.fromkeys(people):
        context = await worker.store.load_context(person, documents=True)
        name = "nobody" if person is None else person.removeprefix("u:")
        viewers.append(viewer_of(name, context))
    return [as_served(viewer, worker.settings.profiling) for viewer in viewers]
