"""For orchestrators and monitoring: alive, ready, metrics. No key is needed."""

from typing import Any

from fastapi import APIRouter, Response

from recsvc.api.http import AnyWorker, unsecured
from recsvc.api.openapi import responses
from recsvc.api.schemas import Liveness, Readiness
from recsvc.telemetry import CONTENT_TYPE

router = APIRouter(tags=["operation"])

READY = {
    "ready": True,
    "model_version": "20261122T050000Z-3f9a1c",
    "catalogue_rows": 92331,
    "store": "reached",
}


@router.get(
    "/livez",
    operation_id="check_liveness",
    summary="Does the process run?",
    response_model=Liveness,
    responses=responses(Liveness, {"status": "ok"}, 500),
    **unsecured(),
)
async def check_liveness() -> dict[str, str]:
    """Answer, whatever the state of the store."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    operation_id="check_readiness",
    summary="May this worker be sent requests?",
    response_model=Readiness,
    responses={
        **responses(Readiness, READY, 500),
        503: {
            "description": "The recall lease has ended: the store was not reached for too long",
            "model": Readiness,
            "content": {
                "application/json": {"example": {**READY, "ready": False, "store": "lease ended"}}
            },
        },
    },
    **unsecured(),
)
async def check_readiness(worker: AnyWorker, response: Response) -> dict[str, Any]:
    """Say whether recommendations are answered; a store that is down is not yet unready."""
    response.status_code = 200 if worker.ready else 503
    response.headers["Cache-Control"] = "no-store"
    return {
        "ready": worker.ready,
        "model_version": worker.keeper.model_version,
        "catalogue_rows": worker.holder.current.catalogue.n_rows,
        "store": worker.store_state,
    }


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics of all workers, for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "The text format of Prometheus",
            "content": {"text/plain": {"example": "recsvc_ready_workers 1.0\n"}},
        },
        500: responses(Liveness, {}, 500)[500],
    },
    **unsecured(),
)
async def get_metrics(worker: AnyWorker) -> Response:
    """Return what docs/operations.md explains."""
    return Response(worker.metrics.exposition(), media_type=CONTENT_TYPE)
