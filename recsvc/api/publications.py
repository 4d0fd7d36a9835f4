"""Publishing rules and taking them back; who did what is in the audit."""

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ValidationError

from feature_store.change_log import ChangeLog
from feature_store.documents import SiteDocuments, Write, verify_chain
from feature_store.site_history import Entry, audit_of, site_entries
from recsvc.api.http import AnyWorker, PathId, actor, field_errors, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.rule_schemas import (
    Audit,
    AuditQuery,
    Publication,
    PublishBody,
    RevertBody,
    RollbackBody,
)
from recsvc.api.rules import BODY, BODY_ERRORS, READING
from recsvc.checks import InvalidRequestError
from recsvc.merchandising.publishing import RULE, publication, publishing, reverting, rolling_back
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

PUBLISHING = "marketing:publish"
AUDITED = (RULE, "live_rule", "publication", "placement", "segment", "recall", "page", "privacy")

router = APIRouter(tags=["rules"])

PUBLISHED: dict[str, Any] = {"rules_version": 13, "rules": {"summer": 3}, "changed": ["summer"]}
ENTRY: dict[str, Any] = {
    "sequence": 41,
    "at": "2026-11-22T09:00:00Z",
    "by": "key:console",
    "note": "",
    "kind": RULE,
    "id": "summer",
    "revision": 1,
    "before": None,
    "after": BODY,
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}

Body = TypeVar("Body", bound=BaseModel)


@router.post(
    "/v1/rules/publish",
    operation_id="publish_rules",
    summary="Let rules come into force, or go out of it",
    response_model=Publication,
    responses=responses(Publication, PUBLISHED, *BODY_ERRORS),
    **secured(PUBLISHING, extra=body_of(PublishBody, {"rule_ids": ["summer"], "note": "go"})),
)
async def publish_rules(request: Request, worker: AnyWorker) -> dict[str, Any]:
    """Publish rules as they were written last: in the next answer of every worker.

    A rule whose status is `paused` or `archived` goes out of force. All come and go at once.
    """
    body = await _read(request, PublishBody)
    return await _publish(
        request, worker, lambda site: publishing(site, body.rule_ids), body.note or "publish"
    )


@router.post(
    "/v1/rules/{rule_id}/revert",
    operation_id="revert_rule",
    summary="Take one rule back to a revision, at once",
    response_model=Publication,
    responses=responses(Publication, PUBLISHED, *BODY_ERRORS),
    **secured(PUBLISHING, extra=body_of(RevertBody, {"revision": 2})),
)
async def revert_rule(request: Request, worker: AnyWorker, rule_id: PathId) -> dict[str, Any]:
    """Make a rule what it was; if it is live, that is in force with the next answer."""
    body = await _read(request, RevertBody)
    entries = await _entries(worker)
    return await _publish(
        request,
        worker,
        lambda site: reverting(site, entries, rule_id, body.revision),
        body.note or f"revert to revision {body.revision}",
    )


@router.post(
    "/v1/rules/rollback",
    operation_id="roll_back_rules",
    summary="Let exactly the rules of an earlier publication be in force again",
    response_model=Publication,
    responses=responses(Publication, PUBLISHED, *BODY_ERRORS),
    **secured(PUBLISHING, extra=body_of(RollbackBody, {"rules_version": 11})),
)
async def roll_back_rules(request: Request, worker: AnyWorker) -> dict[str, Any]:
    """Go back to a publication; drafts stay, and recalls are no rules: they stay too."""
    body = await _read(request, RollbackBody)
    entries = await _entries(worker)
    return await _publish(
        request,
        worker,
        lambda site: rolling_back(site, entries, body.rules_version),
        body.note or f"roll back to version {body.rules_version}",
    )


@router.get(
    "/v1/rules/audit",
    operation_id="audit_rules",
    summary="Who changed what, when, before and after",
    response_model=Audit,
    responses=responses(
        Audit,
        {"entries": [ENTRY], "verified": 41, "next_before": None},
        *(401, 403, 409, 422),
        *(500, 503),
    ),
    **secured(READING),
)
async def audit_rules(worker: AnyWorker, asked: Annotated[AuditQuery, Query()]) -> dict[str, Any]:
    """List changes, newest first; 409 if the chain of hashes is broken, naming where.

    Everything that changes what is shown is in it: rules and publications, placements, pages,
    segments, recalls, and what must not be named.
    """
    entries = await _entries(worker)

    def found() -> dict[str, Any]:
        verified = verify_chain(entries)
        kinds = AUDITED if asked.rule_id is None else (RULE, "live_rule")
        audit = [
            one
            for one in audit_of(entries, kinds, asked.rule_id)
            if asked.before is None or one["sequence"] < asked.before
        ]
        page = audit[::-1][: asked.limit]
        # A change is never cut in two.
        page += [one for one in audit[::-1][asked.limit :] if one["hash"] == page[-1]["hash"]]
        more = len(audit) > len(page)
        return {
            "entries": page,
            "verified": verified,
            "next_before": page[-1]["sequence"] if more and page else None,
        }

    return await asyncio.to_thread(found)


async def _read(request: Request, model: type[Body]) -> Body:
    try:
        return model.model_validate(load_json(await json_body(request)), strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error


async def _entries(worker: Worker) -> list[Entry]:
    return await site_entries(worker.store.documents, ChangeLog(worker.settings.data_dir))


async def _publish(request: Request, worker: Worker, plan: Any, note: str) -> dict[str, Any]:
    changed: set[str] = set()

    def noted(site: SiteDocuments) -> list[Write]:
        writes: list[Write] = plan(site)
        changed.clear()
        changed.update(one.id for one in writes if one.kind in (RULE, "live_rule"))
        return writes

    site, _ = await worker.keeper.change(noted, actor(request), note)
    version, rules = publication(site)
    return {"rules_version": version, "rules": rules, "changed": sorted(changed)}
