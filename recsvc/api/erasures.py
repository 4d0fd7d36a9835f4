"""``DELETE /v1/users/{user_id}``, ``DELETE /v1/me``, ``/v1/erasures``: to be forgotten."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from feature_store.errors import NotFoundError
from feature_store.forgetting.erasures import Receipt
from recsvc.access.auth import ForbiddenError
from recsvc.access.public_keys import check_visitor_id
from recsvc.api.http import AnyWorker, PathId, actor, asking, secured
from recsvc.api.me import VisitorQuery, refuse_user_id
from recsvc.api.openapi import responses
from recsvc.api.schemas import Document
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.serving.worker import Worker

EVENTS_WORTH = 60
"""Of the events that a browser may send in a minute an erasure takes so many."""

router = APIRouter()


class DeliveredFile(Document):
    """A file with people in it that was written outside the service's folder."""

    path: Annotated[str | None, Field(description="only for keys with `privacy:admin`")]
    kind: Literal["backup", "rejects", "export"]
    at: str


class ToldBackup(DeliveredFile):
    """A backup that was made before."""

    told: Annotated[bool, Field(description="whether it says now who must not come back")]


class ClearedMachine(Document):
    """A machine with files of its own."""

    host: Annotated[str | None, Field(description="only for keys with `privacy:admin`")]
    state: Annotated[
        Literal["cleared", "away"],
        Field(description="one that is away does it when it is back, before it serves"),
    ]


class ErasureReceipt(Document):
    """What became of an erasure; it names nobody."""

    erasure_id: str
    state: Annotated[
        Literal["erasing", "done"],
        Field(description="`erasing`: gone from every answer already, not yet from every file"),
    ]
    requested_at: str
    finished_at: str | None
    erased: Annotated[dict[str, int], Field(description="how much was removed, by kind")]
    model: Annotated[str, Field(description="when the model no longer knows what it had learned")]
    delivered: Annotated[
        list[DeliveredFile], Field(description="files outside, which must be searched by hand")
    ]
    backups: list[ToldBackup]
    server_files: Annotated[
        str | None,
        Field(
            description="`rewritten`, `not kept` (the server keeps none), `not allowed` (whoever"
            " runs the server has to)"
        ),
    ]
    server_logs: Annotated[
        str | None,
        Field(
            description="slow and refused commands, which the server remembers: `reset`, or"
            " `not allowed`"
        ),
    ]
    machines: Annotated[
        list[ClearedMachine], Field(description="whose files were searched: one for each folder")
    ]
    error: Annotated[
        str | None, Field(description="why it is not done yet; only for `privacy:admin`")
    ]


EXAMPLE: dict[str, Any] = {
    "erasure_id": "8f14e45fceea167a5a36dedd4bea2543",
    "state": "done",
    "requested_at": "2026-11-22T09:00:00Z",
    "finished_at": "2026-11-22T09:00:04.120Z",
    "erased": {"state": 1, "profile": 1, "archived_events": 824, "decisions": 12},
    "model": "next training",
    "delivered": [{"path": "/exports/users.jsonl", "kind": "export", "at": "2026-11-20T10:00:00Z"}],
    "backups": [
        {"path": "/backups/2026-11-20", "kind": "backup", "at": "2026-11-20T04:00:00Z"}
        | {"told": True}
    ],
    "server_files": "rewritten",
    "server_logs": "reset",
    "machines": [{"host": "web-1", "state": "cleared"}, {"host": "web-2", "state": "away"}],
    "error": None,
}
_NOT_YET = dict.fromkeys(("finished_at", "server_files", "server_logs"))
BEGUN = EXAMPLE | {"state": "erasing", "machines": []} | _NOT_YET
_HIDDEN = {"delivered": "path", "backups": "path", "machines": "host"}
SHOWN = EXAMPLE | {
    name: [one | {inner: None} for one in EXAMPLE[name]] for name, inner in _HIDDEN.items()
}
ErasureId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$",
        description="`erasure_id` of a receipt",
        examples=[EXAMPLE["erasure_id"]],
    ),
]


@router.delete(
    "/v1/users/{user_id}",
    operation_id="delete_user",
    summary="Erase a person",
    tags=["users"],
    status_code=202,
    response_model=ErasureReceipt,
    responses=responses(ErasureReceipt, BEGUN, 401, 403, 404, 422, 500, 503, status=202),
    **secured("privacy:admin"),
)
async def delete_user(
    request: Request, response: Response, worker: AnyWorker, user_id: PathId
) -> Receipt:
    """Erase a user, and the visitors who became the user; the answer is a receipt.

    When it comes, the server holds nothing of the person, and every answer is that of a stranger.
    Files follow within seconds: ask for the receipt again. Events with a time before the erasure
    are dropped for good. Of somebody who was never here there is a receipt too.
    """
    return await _erase(request, response, worker, f"u:{user_id}")


@router.delete(
    "/v1/me",
    operation_id="delete_me",
    summary="Erase me",
    tags=["me"],
    status_code=202,
    response_model=ErasureReceipt,
    responses=responses(ErasureReceipt, BEGUN, 401, 403, 422, 429, 500, 503, status=202),
    # Of who is forgotten nothing is kept, not even an objection.
    **secured(public=True, customer=True, hears=False),
)
async def delete_me(
    request: Request,
    response: Response,
    worker: AnyWorker,
    asked: VisitorQuery,
) -> Receipt:
    """Erase the customer of the token, or a visitor.

    With a public key it needs an `anonymous_id` that nobody can guess; a visitor who has signed in
    since is the customer's, and asking needs the customer's token (403).
    """
    person = await _person(request, worker, asked.anonymous_id)
    most = worker.settings.public_events_per_minute
    await worker.store.quota.take({person: min(EVENTS_WORTH, most)}, most, time.time())
    return await _erase(request, response, worker, person)


@router.get(
    "/v1/erasures/{erasure_id}",
    operation_id="get_erasure",
    summary="What became of an erasure",
    tags=["privacy"],
    response_model=ErasureReceipt,
    responses=responses(ErasureReceipt, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("privacy:admin"),
)
async def get_erasure(request: Request, worker: AnyWorker, erasure_id: ErasureId) -> Receipt:
    """Return the receipt as it is now; it names nobody."""
    return await _receipt(request, worker, erasure_id)


@router.get(
    "/v1/me/erasures/{erasure_id}",
    operation_id="get_my_erasure",
    summary="What became of my erasure",
    tags=["me"],
    response_model=ErasureReceipt,
    responses=responses(ErasureReceipt, SHOWN, 401, 403, 404, 422, 500, 503),
    **secured(public=True, customer=True, hears=False),
)
async def get_my_erasure(request: Request, worker: AnyWorker, erasure_id: ErasureId) -> Receipt:
    """Return the receipt that `DELETE /v1/me` has given, as it is now.

    It names nobody, and its id cannot be guessed: whoever knows it may ask.
    """
    return await _receipt(request, worker, erasure_id)


async def _receipt(request: Request, worker: Worker, erasure_id: str) -> Receipt:
    receipt = await worker.store.erasures.receipt(erasure_id)
    if receipt is None:
        raise NotFoundError("there is no such erasure")
    return _shown(request, receipt)


async def _person(request: Request, worker: Worker, anonymous_id: str | None) -> str:
    """Return who asks to be erased.

    Raises
    ------
    InvalidRequestError
        If a visitor has no id or one that could be guessed, or a token comes with one.
    ForbiddenError
        If the visitor is a customer since.
    """
    refuse_user_id(request)
    user_id = asking(request).user_id
    if user_id is not None:
        if anonymous_id is not None:
            raise InvalidRequestError(FieldError("#/anonymous_id", "is not needed with a token"))
        return f"u:{user_id}"
    if anonymous_id is None:
        raise InvalidRequestError(FieldError("#/anonymous_id", "is needed with a public key"))
    if bad := check_visitor_id(anonymous_id):
        raise InvalidRequestError(bad)
    visitor = f"a:{anonymous_id}"
    if await worker.store.holdings.user_of(visitor) is not None:
        raise ForbiddenError("this visitor has signed in: ask with the customer's token")
    return visitor


async def _erase(request: Request, response: Response, worker: Worker, person: str) -> Receipt:
    # What was chosen from the person's history is on the disk before the files are searched.
    is_server = asking(request).kind == "server"
    by = actor(request) if is_server else asking(request).kind
    receipt = await worker.store.erasures.request(person, by, worker.settings.data_dir)
    await worker.decisions.flush()
    place = "/v1/erasures" if is_server else "/v1/me/erasures"
    response.headers["Location"] = f"{place}/{receipt['erasure_id']}"
    response.headers["Cache-Control"] = "no-store"
    return _shown(request, receipt)


def _shown(request: Request, receipt: Receipt) -> Receipt:
    """Return a receipt without what is nobody's business outside: paths and machines."""
    if asking(request).kind == "server":
        return receipt
    files = {
        name: [one | {inner: None} for one in receipt[name]] for name, inner in _HIDDEN.items()
    }
    return receipt | files | {"error": None}
