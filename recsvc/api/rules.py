"""``/v1/rules``: what marketers write. Nothing of it is in force before it is published."""

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from feature_store.conditions import Vocabulary
from feature_store.documents import Document, SiteDocuments, Write
from feature_store.errors import ConflictError, StaleRevisionError
from feature_store.known_attributes import attribute_types
from feature_store.schema import check_id
from recsvc.api.http import AnyWorker, PathId, actor, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.revisions import etag, expected_revision
from recsvc.api.rule_schemas import RuleBody, RuleDeleted, RuleDocument, RuleList, RulesQuery
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.merchandising.needs import fields_named
from recsvc.merchandising.publishing import RULE, deleting, publication, rule_of, status_of
from recsvc.requests import load_json
from recsvc.rules.model import EVERYWHERE, parse_rule
from recsvc.serving.worker import Worker

MAX_RULES = 5_000
RESERVED = frozenset({"audit", "lint", "preview", "publish", "rollback", "export", "import"})
"""What stands in the place of an id in other addresses."""
READING, WRITING = "marketing:read", "marketing:write"

router = APIRouter(tags=["rules"])

BODY: dict[str, Any] = {
    "name": "Summer first",
    "placements": ["home"],
    "priority": 10,
    "ends_at": "2027-09-01T00:00:00Z",
    "schedule": {
        "timezone": "Europe/Berlin",
        "days": ["fri", "sat"],
        "from": "10:00",
        "to": "18:00",
    },
    "when": {"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
    "action": {
        "type": "boost",
        "target": {"field": "item.categories", "op": "under", "value": "Sandals"},
        "weight": 1.5,
    },
}
EXAMPLE: dict[str, Any] = {
    "rule_id": "summer",
    "revision": 3,
    **BODY,
    "starts_at": None,
    "allow_sensitive": False,
    "status": "live",
    "live_revision": 2,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
}
ERRORS = (401, 403, 404, 422, 500, 503)
BODY_ERRORS = (400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 503)


@router.get(
    "/v1/rules",
    operation_id="list_rules",
    summary="All rules, as they were written last",
    response_model=RuleList,
    responses=responses(
        RuleList, {"rules": [EXAMPLE], "rules_version": 12}, 401, 403, 422, 500, 503
    ),
    **secured(READING),
)
async def list_rules(worker: AnyWorker, asked: Annotated[RulesQuery, Query()]) -> dict[str, Any]:
    """List rules as they apply: a higher priority first, then the lower id."""
    site = await worker.store.documents.snapshot()
    rules = [shown(site, one) for one in site.of_kind(RULE)]
    rules = [
        rule
        for rule in rules
        if asked.status in (None, rule["status"])
        and (asked.placement is None or {asked.placement, EVERYWHERE} & set(rule["placements"]))
    ]
    rules.sort(key=lambda rule: (-rule["priority"], rule["rule_id"]))
    return {"rules": rules, "rules_version": publication(site)[0]}


@router.post(
    "/v1/rules",
    operation_id="create_rule",
    summary="Write a new rule",
    status_code=201,
    response_model=RuleDocument,
    responses=responses(
        RuleDocument, EXAMPLE, 400, 401, 403, 409, 413, 415, 422, 500, 503, status=201
    ),
    **secured(WRITING, extra=body_of(RuleBody, BODY)),
)
async def create_rule(request: Request, response: Response, worker: AnyWorker) -> dict[str, Any]:
    """Write a draft; a `rule_id` that is taken is a 409, none is made up for you."""
    value = load_json(await json_body(request))
    given = value.get("rule_id") if isinstance(value, dict) else None
    rule_id = _id_of(given) if given is not None else f"rule-{secrets.token_hex(6)}"
    site, document = await _write(request, worker, rule_id, value, 0)
    response.headers["ETag"] = etag(document.revision)
    return shown(site, document)


@router.get(
    "/v1/rules/{rule_id}",
    operation_id="get_rule",
    summary="One rule",
    response_model=RuleDocument,
    responses=responses(RuleDocument, EXAMPLE, *ERRORS),
    **secured(READING),
)
async def get_rule(response: Response, worker: AnyWorker, rule_id: PathId) -> dict[str, Any]:
    """Return a rule as it was written last; its revision is the `ETag`."""
    site = await worker.store.documents.snapshot()
    document = rule_of(site, rule_id)
    response.headers["ETag"] = etag(document.revision)
    return shown(site, document)


@router.put(
    "/v1/rules/{rule_id}",
    operation_id="put_rule",
    summary="Write a rule anew",
    response_model=RuleDocument,
    responses=responses(RuleDocument, EXAMPLE, *BODY_ERRORS),
    **secured(WRITING, extra=body_of(RuleBody, BODY)),
)
async def put_rule(
    request: Request, response: Response, worker: AnyWorker, rule_id: PathId
) -> dict[str, Any]:
    """Write a rule; one that is live goes on as it was published, until it is published again.

    A rule that exists is changed with `If-Match` only, so that two people never overwrite each
    other: without it, and with an older revision, the answer is 412.
    """
    value = load_json(await json_body(request))
    site, document = await _write(request, worker, rule_id, value, expected_revision(request))
    response.headers["ETag"] = etag(document.revision)
    return shown(site, document)


@router.delete(
    "/v1/rules/{rule_id}",
    operation_id="delete_rule",
    summary="Delete a rule that is not live",
    response_model=RuleDeleted,
    responses=responses(
        RuleDeleted,
        {"rule_id": "summer", "deleted": True},
        *(401, 403, 404, 409, 412, 422, 500, 503),
    ),
    **secured(WRITING),
)
async def delete_rule(request: Request, worker: AnyWorker, rule_id: PathId) -> dict[str, Any]:
    """Delete a rule; `revert` brings any of its revisions back."""
    seen = expected_revision(request)
    await worker.keeper.change(lambda site: deleting(site, rule_id, seen), actor(request))
    return {"rule_id": rule_id, "deleted": True}


def shown(site: SiteDocuments, document: Document) -> dict[str, Any]:
    """Return a rule as the API has it."""
    assert document.body is not None
    return {
        **document.body,
        "rule_id": document.id,
        "revision": document.revision,
        "status": status_of(site, document),
        "live_revision": publication(site)[1].get(document.id),
        "updated_at": document.updated_at,
        "updated_by": document.updated_by,
    }


def vocabulary_of(worker: Worker, written: object) -> Vocabulary:
    """Return what conditions of this site may name.

    Parameters
    ----------
    worker : Worker
        Has catalogue and site.
    written : object
        JSON whose attributes of items are looked up in the catalogue.
    """
    current = worker.holder.current
    names = {
        name.split(".", 2)[2]
        for name in fields_named(written)
        if name.startswith(("item.attributes.", "page.attributes."))
    }
    return Vocabulary(
        item_attributes=attribute_types(current.catalogue, sorted(names)),
        segments=frozenset(current.site.segments),
        sensitive=worker.settings.sensitive_fields,
    )


def checked_body(value: object, rule_id: str, worker: Worker) -> dict[str, Any]:
    """Check a rule as its author wrote it, and return what is stored of it.

    Raises
    ------
    InvalidRequestError
        Naming every part that is wrong.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError(FieldError("#", "must be an object"))
    if rule_id in RESERVED:
        raise InvalidRequestError(FieldError("#/rule_id", f"{rule_id!r} names something else"))
    if value.get("rule_id") not in (None, rule_id):
        raise InvalidRequestError(FieldError("#/rule_id", "is not the one of the address"))
    # What a GET adds may come back with a PUT; it is not the author's to set.
    written = {name: part for name, part in value.items() if name not in _ADDED}
    placements = worker.holder.current.site.placements
    vocabulary = vocabulary_of(worker, written)
    rule = parse_rule({**written, "rule_id": rule_id}, vocabulary, placements).rule
    body = rule.model_dump(mode="json", exclude={"rule_id", "revision"})
    if body["status"] == "live":
        body["status"] = "draft"
    return body


_ADDED = frozenset({"rule_id", "revision", "live_revision", "updated_at", "updated_by"})


async def _write(
    request: Request, worker: Worker, rule_id: str, value: object, seen: int | None
) -> tuple[SiteDocuments, Document]:
    await worker.context(None)  # so that segments and placements of a moment ago are known
    # In a thread: of a large catalogue attributes take a while to be found.
    body = await asyncio.to_thread(checked_body, value, rule_id, worker)

    def plan(site: SiteDocuments) -> list[Write]:
        known = site.get(RULE, rule_id)
        if known is None and len(site.of_kind(RULE)) >= MAX_RULES:
            raise ConflictError(f"there are {MAX_RULES} rules: delete some that are archived")
        if known is not None and seen == 0:
            raise ConflictError(f"there is a rule {rule_id!r} already")
        if known is not None and seen is None:
            raise StaleRevisionError(
                f'the rule {rule_id!r} exists: send If-Match: "{known.revision}" if that is the'
                " revision that you have read"
            )
        return [Write(RULE, rule_id, body, seen)]

    site, (document,) = await worker.keeper.change(plan, actor(request))
    return site, document


def _id_of(value: object) -> str:
    try:
        return check_id(str(value) if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidRequestError(FieldError("#/rule_id", str(error))) from error
