"""``/v1/models``: which model serves, and the marketer's brake."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from feature_store.errors import ArtifactError
from feature_store.registry import ModelRegistry
from recsvc.api.http import AnyWorker, PathId, secured
from recsvc.api.openapi import responses
from recsvc.api.schemas import ModelList, ModelState

router = APIRouter(tags=["models"])

STATE: dict[str, Any] = {"current": "20261122T050000Z-3f9a1c", "held": False}
EXAMPLE: dict[str, Any] = {
    **STATE,
    "models": [
        {
            "version": "20261122T050000Z-3f9a1c",
            "created_at": "2026-11-22T05:00:00Z",
            "serves": True,
            "n_items": 68509,
            "gate": {"decision": "published"},
            "evaluation": {},
            "index": {"form": "ivf", "recall_at_100": 0.98},
        }
    ],
    "history": [
        {
            "at": "2026-11-22T05:00:00Z",
            "action": "publish",
            "version": "20261122T050000Z-3f9a1c",
        }
    ],
}
ADMIN = secured("models:admin")
ERRORS = (401, 403, 404, 409, 422, 500, 503)


@router.get(
    "/v1/models",
    operation_id="list_models",
    summary="All models, and which one serves",
    response_model=ModelList,
    responses=responses(ModelList, EXAMPLE, 401, 403, 500, 503),
    **ADMIN,
)
async def list_models(worker: AnyWorker) -> dict[str, Any]:
    """Return what each model says of itself, oldest first; damaged ones are left out."""
    return await asyncio.to_thread(_listed, worker.holder.registry)


@router.post(
    "/v1/models/{version}/promote",
    operation_id="promote_model",
    summary="Let a model serve",
    response_model=ModelState,
    responses=responses(ModelState, STATE, *ERRORS),
    **ADMIN,
)
async def promote_model(worker: AnyWorker, version: PathId) -> dict[str, Any]:
    """Check the model and let every worker take it up; a damaged one is a conflict."""
    return await _change(worker, lambda registry, now: registry.promote(version, now))


@router.post(
    "/v1/models/rollback",
    operation_id="rollback_model",
    summary="Let the model serve that served before",
    response_model=ModelState,
    responses=responses(ModelState, {**STATE, "held": True}, *ERRORS),
    **ADMIN,
)
async def rollback_model(worker: AnyWorker) -> dict[str, Any]:
    """Step back; nothing is published automatically until `resume`."""
    return await _change(worker, lambda registry, now: registry.rollback(now))


@router.post(
    "/v1/models/hold",
    operation_id="hold_models",
    summary="Publish nothing automatically",
    response_model=ModelState,
    responses=responses(ModelState, {**STATE, "held": True}, *ERRORS),
    **ADMIN,
)
async def hold_models(worker: AnyWorker) -> dict[str, Any]:
    """Keep the model that serves, whatever is trained."""
    return await _change(worker, lambda registry, now: registry.set_hold(True, now))


@router.post(
    "/v1/models/resume",
    operation_id="resume_models",
    summary="Publish automatically again",
    response_model=ModelState,
    responses=responses(ModelState, STATE, *ERRORS),
    **ADMIN,
)
async def resume_models(worker: AnyWorker) -> dict[str, Any]:
    """End a hold; the next training that passes the gate serves."""
    return await _change(worker, lambda registry, now: registry.set_hold(False, now))


async def _change(
    worker: AnyWorker, change: Callable[[ModelRegistry, datetime], object]
) -> dict[str, Any]:
    registry = worker.holder.registry
    await asyncio.to_thread(change, registry, datetime.now(UTC))
    # This worker at once; the others when they next look.
    await worker.keeper.refresh()
    document = await asyncio.to_thread(registry.read)
    return {"current": document["current"], "held": document["held"]}


def _listed(registry: ModelRegistry) -> dict[str, Any]:
    document = registry.read()
    models = []
    for version in registry.versions():
        try:
            manifest = registry.manifest(version)
        except ArtifactError:
            continue
        models.append(
            {
                "version": version,
                "created_at": manifest["created_at"],
                "serves": version == document["current"],
                "n_items": manifest["n_items"],
                **{name: manifest.get(name) or {} for name in ("gate", "evaluation", "index")},
            }
        )
    return {
        "current": document["current"],
        "held": document["held"],
        "models": models,
        "history": document["history"],
    }
