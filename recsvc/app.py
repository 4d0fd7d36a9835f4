"""The composition root of the service: one worker behind FastAPI, with the raw edge in front."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from recsvc.api import (
    decisions,
    erasures,
    events,
    exports,
    foreign,
    items,
    me,
    models,
    ops,
    pages,
    personas,
    placements,
    portraits,
    preferences,
    privacy,
    profiles,
    publications,
    questions,
    recalls,
    recommendations,
    reports,
    rule_reviews,
    rules,
    segments,
    users,
)
from recsvc.api.cors import Preflights
from recsvc.api.docs import add_docs
from recsvc.api.edge import Edge
from recsvc.api.openapi import install
from recsvc.api.problems import add_handlers
from recsvc.serving.worker import Worker

RESOURCES = (
    recommendations,
    pages,
    decisions,
    events,
    foreign,
    items,
    users,
    profiles,
    segments,
    personas,
    reports,
    me,
    preferences,
    portraits,
    questions,
    exports,
    erasures,
    # Before the rules: "audit" is no rule's id.
    publications,
    rule_reviews,
    rules,
    placements,
    recalls,
    privacy,
    models,
    ops,
)
"""One file of routes each."""

DESCRIPTION = """
Real-time personalization: what should this customer see here, now?

Errors are RFC 9457 problem documents. Ids are strings of 1 to 128 printable characters; in a path
they are percent-encoded. Every answer carries `X-Request-ID` and `Server-Timing`.
""".strip()


def create_app(worker: Worker) -> ASGIApp:
    """Return the ASGI application of a worker.

    Parameters
    ----------
    worker : Worker
        Opened and closed with the application.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await worker.open()
        try:
            yield
        finally:
            await worker.close()

    app = FastAPI(
        title="recsvc",
        summary="Real-time personalization",
        description=DESCRIPTION,
        version=version("recsvc"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # Asked on every request unless all of them are off, even when nobody listens.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.worker = worker
    routers = [one.router for one in RESOURCES]
    for router in routers:
        app.include_router(router)
    routes = [route for router in routers for route in router.routes]
    declared = [route for route in routes if isinstance(route, APIRoute)]
    add_handlers(app, declared)
    install(app)
    add_docs(app, title="recsvc")
    return Edge(app, worker, Preflights(declared))
