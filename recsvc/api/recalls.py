"""``/v1/recalls``: a defective product is gone from everything with one call."""

import asyncio
import time
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from feature_store.change_log import ChangeLog
from feature_store.documents import Document, SiteDocuments, Write
from feature_store.errors import NotFoundError
from feature_store.withheld_purchases import withheld
from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, PathId, actor, field_errors, json_body, secured
from recsvc.api.openapi import body_of, lines_of, problems, responses
from recsvc.api.recall_schemas import RecallDocument, RecallEnded, RecallList, RecallReceipt
from recsvc.checks import InvalidRequestError
from recsvc.merchandising.buyers import buyers_of, left_out
from recsvc.merchandising.recalls import KIND, Recall, recalled_mask
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

CONFIRM_TIMEOUT_S = 2.0
_LOOK_AGAIN_S = 0.02
_MANY_EVENTS = 10_000_000

router = APIRouter(tags=["recalls"])

BODY = {"item_ids": ["1082185"], "reason": "glass splinters", "url": "https://shop.example/recall"}
EXAMPLE: dict[str, Any] = {
    "recall_id": "2026-11-glass",
    **BODY,
    "group_ids": None,
    "target": None,
    "n_items": 1,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:quality",
}
RECEIPT: dict[str, Any] = {
    "recall_id": "2026-11-glass",
    "n_items": 1,
    "workers": 4,
    "confirmed": 4,
    "fenced": [],
    "done_at_the_latest_in_s": 0.0,
}
CUSTOMER = (
    '{"user_id": "2375", "item_id": "1082185", "quantity": 2, "first_at": "2026-10-01T10:00:00Z",'
    ' "last_at": "2026-11-02T09:00:00Z", "order_ids": ["77", "91"]}'
)
READING = ("recall:write", "marketing:read")
ERRORS = (401, 403, 404, 422, 500, 503)


@router.get(
    "/v1/recalls",
    operation_id="list_recalls",
    summary="What is recalled",
    response_model=RecallList,
    responses=responses(RecallList, {"recalls": [EXAMPLE]}, 401, 403, 500, 503),
    **secured(*READING),
)
async def list_recalls(worker: AnyWorker) -> dict[str, Any]:
    """Return every recall that stands."""
    site = await worker.store.documents.snapshot()
    return {"recalls": [_shown(worker, one) for one in site.of_kind(KIND)]}


@router.get(
    "/v1/recalls/{recall_id}",
    operation_id="get_recall",
    summary="One recall",
    response_model=RecallDocument,
    responses=responses(RecallDocument, EXAMPLE, *ERRORS),
    **secured(*READING),
)
async def get_recall(worker: AnyWorker, recall_id: PathId) -> dict[str, Any]:
    """Return a recall that stands."""
    return _shown(worker, _found(await worker.store.documents.snapshot(), recall_id))


@router.put(
    "/v1/recalls/{recall_id}",
    operation_id="put_recall",
    summary="Recall items: no answer shows them any more",
    response_model=RecallReceipt,
    responses=responses(RecallReceipt, RECEIPT, 400, 401, 403, 404, 413, 415, 422, 500, 503),
    **secured("recall:write", extra=body_of(Recall, BODY)),
)
async def put_recall(request: Request, worker: AnyWorker, recall_id: PathId) -> dict[str, Any]:
    """Recall items, and wait until every worker has confirmed that it shows them no more.

    A worker that does not confirm within 2 seconds is named in `fenced`. It answers nothing without
    having read the store, and refuses everything once it has not reached the store for
    `recall_lease_s`; so the recall is done in `done_at_the_latest_in_s`.
    """
    value = load_json(await json_body(request))
    try:
        recall = Recall.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    body = recall.model_dump(mode="json")
    site, _ = await worker.keeper.change(
        lambda _: [Write(KIND, recall_id, body)], actor(request), recall.reason
    )
    receipt = {"recall_id": recall_id, "n_items": _n_items(worker, recall)}
    return {**receipt, **await confirmations(worker, site.sequence)}


@router.delete(
    "/v1/recalls/{recall_id}",
    operation_id="end_recall",
    summary="End a recall: nothing else does",
    response_model=RecallEnded,
    responses=responses(
        RecallEnded, {"recall_id": "2026-11-glass", "ended": True}, 401, 403, 404, 422, 500, 503
    ),
    **secured("recall:write"),
)
async def end_recall(request: Request, worker: AnyWorker, recall_id: PathId) -> dict[str, Any]:
    """Let the items be shown again."""

    def plan(site: SiteDocuments) -> list[Write]:
        _found(site, recall_id)
        return [Write(KIND, recall_id, None)]

    await worker.keeper.change(plan, actor(request), "the recall has ended")
    return {"recall_id": recall_id, "ended": True}


@router.get(
    "/v1/recalls/{recall_id}/customers",
    operation_id="list_recall_customers",
    summary="Who bought what is recalled, one JSON object a line",
    response_class=Response,
    responses={**lines_of("A person and an item", CUSTOMER), **problems(*ERRORS)},
    **secured("recall:write"),
)
async def list_recall_customers(worker: AnyWorker, recall_id: PathId) -> Response:
    """List who has to be told; what was refunded is listed too, for it may still be used.

    Of people who do not allow a profile no purchase is stored, so they are missing. Where there are
    any, lines at the end name no person, and say of an item how many purchases are missing, and
    how many pieces: `{"item_id", "withheld_purchases", "withheld_quantity"}`. **Then ask the
    shop's orders, too.** A purchase that was sent again is counted again.
    """
    recall = Recall.model_validate(_found(await worker.store.documents.snapshot(), recall_id).body)
    await worker.context(None)
    catalogue = worker.holder.current.catalogue
    waiting = await worker.store.streams.read({}, _MANY_EVENTS)
    uncounted = await worker.store.withheld.waiting()

    def lines() -> bytes:
        mask = recalled_mask([recall], catalogue)
        rows = [] if mask is None else mask.nonzero()[0].tolist()
        ids = {found for row in rows if (found := catalogue.item_id(row)) is not None}
        named = sorted(ids | set(recall.item_ids or []))
        data_dir = worker.settings.data_dir
        buyers = buyers_of(data_dir, [one.body for one in waiting], named)
        missing = left_out(withheld(ChangeLog(data_dir), uncounted), named)
        return b"".join(orjson.dumps(one) + b"\n" for one in (*buyers, *missing))

    content = await asyncio.to_thread(lines)
    return Response(content, media_type="application/x-ndjson", headers=PERSONAL)


async def confirmations(worker: Worker, sequence: int) -> dict[str, Any]:
    """Wait until every live worker obeys a change of the site, for two seconds at most.

    Parameters
    ----------
    worker : Worker
        The one that was asked.
    sequence : int
        Number of the change.
    """
    lease_s = worker.settings.recall_lease_s
    deadline_s = time.monotonic() + CONFIRM_TIMEOUT_S
    await worker.announce()
    while True:
        # Who has been silent for longer than the lease refuses recommendations by itself.
        live = [one for one in await worker.store.workers.all() if not 0 < lease_s < one.age_s]
        late = [one for one in live if one.sequence < sequence]
        if not late or time.monotonic() > deadline_s:
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    left_s = max((lease_s - one.age_s for one in late), default=0.0)
    return {
        "workers": len(live),
        "confirmed": len(live) - len(late),
        "fenced": [one.worker for one in late],
        "done_at_the_latest_in_s": round(max(0.0, left_s), 3) if lease_s or not late else None,
    }


def _found(site: SiteDocuments, recall_id: str) -> Document:
    found = site.get(KIND, recall_id)
    if found is None:
        raise NotFoundError(f"there is no recall {recall_id!r}")
    return found


def _n_items(worker: Worker, recall: Recall) -> int:
    mask = recalled_mask([recall], worker.holder.current.catalogue)
    return 0 if mask is None else int(mask.sum())


def _shown(worker: Worker, document: Document) -> dict[str, Any]:
    recall = Recall.model_validate(document.body)
    return {
        "recall_id": document.id,
        **recall.model_dump(mode="json"),
        "n_items": _n_items(worker, recall),
        "updated_at": document.updated_at,
        "updated_by": document.updated_by,
    }
