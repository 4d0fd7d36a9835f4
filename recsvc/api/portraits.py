"""``/v1/me/profile``: what the system thinks of me, point by point, and that it does not fit."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from feature_store.errors import ConflictError, NotFoundError
from feature_store.preferences import Preferences
from feature_store.store import UserContext
from recsvc.access.auth import ForbiddenError
from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, PathId, asking, read_headers, secured
from recsvc.api.languages import InWords
from recsvc.api.openapi import responses
from recsvc.api.portrait_schemas import PointRemoved, PointRestored, ProfileDocument
from recsvc.api.preferences import Mine, Theirs, Whose
from recsvc.customer.consenting import may_profile
from recsvc.customer.portrait import Point, Portrait, Signal, consents, point_id, put_back
from recsvc.customer.portrait import without as without_point
from recsvc.customer.telling import Teller
from recsvc.explaining.naming import Naming
from recsvc.explaining.words import Words
from recsvc.requests import RecommendationRequest
from recsvc.serving.worker import Worker

router = APIRouter()

ERRORS = (401, 403, 404, 409, 422, 429, 500, 503)

POINT_ID = "category-0f41c8b5a9d2e37f6c1d"
EXAMPLE: dict[str, Any] = {
    "profiled": True,
    "language": "en",
    "text": "This is what we make of what you did here, and what you told us.",
    "points": [
        {
            "point_id": POINT_ID,
            "kind": "category",
            "name": "Dairy > Milk",
            "text": "You choose Dairy > Milk, because you bought Whole milk.",
            "strength": 0.21,
            "because": [{"item_id": "1082185", "title": "Whole milk"}],
            "removable": True,
            "why_not": None,
        }
    ],
    "withheld": 2,
    "withheld_text": "2 more that we do not name here.",
    "recent": [
        {
            "type": "purchase",
            "item_id": "1082185",
            "title": "Whole milk",
            "at": "2026-11-20T17:01:00Z",
            "text": "You bought Whole milk.",
            "point_id": "item-4f1c9a0e2b7d83f65a10",
        }
    ],
    "recent_withheld": 0,
    "consent": [
        {
            "purpose": "profiling",
            "allowed": True,
            "at": "2026-11-01T09:00:00Z",
            "source": "customer",
            "text": "Learning from what you do here: allowed.",
        }
    ],
    "email": {
        "frequency_days": 7,
        "paused_until": None,
        "text": "At most one e-mail every 7 days.",
    },
    "removed": [
        {
            "point_id": "segment-2b7d83f65a104f1c9a0e",
            "kind": "segment",
            "name": "stage_at_risk",
            "title": "customer at risk",
            "at": "2026-11-21T09:00:00Z",
        }
    ],
}


# --- reading ------------------------------------------------------------------------------------


async def context_of(request: Request, worker: Worker, whose: Whose) -> UserContext:
    """Read what is known of whoever asks, for somebody to see it.

    Raises
    ------
    ForbiddenError
        If a page asks for a visitor who is a customer by now: anybody can sit at that page.
    StoreUnavailableError
        If the store does not answer in time.
    """
    caller = asking(request)
    context = await worker.context(whose.person, documents=True)
    if caller.kind == "public" and context.person != whose.person:
        raise ForbiddenError("the visitor is a customer now: ask with the customer's token")
    return context


def profiled_by(request: Request, worker: Worker, context: UserContext) -> bool:
    """Tell whether somebody may be profiled, also by what their browser says."""
    opted_out = asking(request).kind != "server" and read_headers(request.scope).opted_out
    return may_profile(
        context, RecommendationRequest(), worker.settings.profiling, opted_out=opted_out
    )


async def _portrait(request: Request, worker: Worker, whose: Whose) -> Portrait:
    context = await context_of(request, worker, whose)
    snapshot = worker.holder.current
    return Portrait(
        snapshot,
        context,
        Naming(snapshot.catalogue, snapshot.site.privacy.never_named),
        profiled=profiled_by(request, worker, context),
        now_s=int(time.time()),
    )


@router.get(
    "/v1/me/profile",
    tags=["me"],
    operation_id="get_my_profile",
    summary="What does the system think of me, and why?",
    response_model=ProfileDocument,
    responses=responses(ProfileDocument, EXAMPLE, 401, 403, 422, 500, 503),
    **secured(public=True, customer=True),
)
async def get_my_profile(
    request: Request, response: Response, worker: AnyWorker, whose: Mine, told: InWords
) -> dict[str, Any]:
    """Return what recommendations are made from, point by point, each with what it comes from.

    Weights are those of the engine, and what was removed before is not in. Who does not allow a
    profile sees only what they chose themselves. Categories that the shop never names are counted,
    not shown. A visitor who has signed in needs the customer's token.
    """
    portrait = await _portrait(request, worker, whose)
    response.headers.update(PERSONAL)
    response.headers["Content-Language"] = told.language
    return _document(portrait, told)


@router.get(
    "/v1/users/{user_id}/profile",
    tags=["users"],
    operation_id="get_profile",
    summary="What does the system think of a user, and why?",
    response_model=ProfileDocument,
    responses=responses(ProfileDocument, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("privacy:admin"),
)
async def get_profile(
    request: Request, response: Response, worker: AnyWorker, whose: Theirs, told: InWords
) -> dict[str, Any]:
    """Return what the user sees at `/v1/me/profile`; of somebody unknown there is nothing."""
    portrait = await _portrait(request, worker, whose)
    response.headers.update(PERSONAL)
    response.headers["Content-Language"] = told.language
    return _document(portrait, told)


def _document(portrait: Portrait, told: Words) -> dict[str, Any]:
    teller, preferences = Teller(portrait, told), portrait.preferences
    recent, recent_withheld = portrait.recent()
    withheld = portrait.withheld
    return {
        "profiled": portrait.profiled,
        "language": told.language,
        "text": teller.whole(),
        "points": [_point(portrait, teller, point) for point in portrait.points()],
        "withheld": withheld,
        "withheld_text": told.text("profile.withheld", n=withheld) if withheld else None,
        "recent": [_signal(portrait, teller, signal) for signal in recent],
        "recent_withheld": recent_withheld,
        "consent": [
            {"purpose": purpose, **state, "text": teller.consent(purpose, state["allowed"])}
            for purpose, state in consents(preferences).items()
        ],
        "email": {**preferences.email.model_dump(), "text": teller.mail()},
        "removed": [
            {
                "point_id": point_id(one.kind, one.name),
                "kind": one.kind,
                "name": one.name,
                "title": teller.shown_name(one.kind, one.name),
                "at": one.at,
            }
            for one in portrait.removed()
        ],
    }


def _point(portrait: Portrait, teller: Teller, point: Point) -> dict[str, Any]:
    return {
        "point_id": point.point_id,
        "kind": point.kind,
        "name": point.name,
        "text": teller.point(point),
        "strength": point.strength,
        "because": [_item(portrait, teller, row) for row in point.because],
        "removable": point.removable,
        "why_not": None if point.removable else teller.words.text("profile.not_removable"),
    }


def _item(portrait: Portrait, teller: Teller, row: int) -> dict[str, Any]:
    return {"item_id": portrait.catalogue.item_id(row) or "", "title": teller.title(row)}


def _signal(portrait: Portrait, teller: Teller, signal: Signal) -> dict[str, Any]:
    item = _item(portrait, teller, signal.row)
    return {
        **item,
        "type": signal.type,
        "at": datetime.fromtimestamp(signal.at_s, UTC),
        "text": teller.signal(signal),
        "point_id": point_id("item", item["item_id"]),
    }


# --- changing -----------------------------------------------------------------------------------


@router.delete(
    "/v1/me/profile/{point_id}",
    tags=["me"],
    operation_id="delete_my_profile_point",
    summary="This does not describe me",
    response_model=PointRemoved,
    responses=responses(PointRemoved, {"point_id": POINT_ID, "removed": True}, *ERRORS),
    **secured(public=True, customer=True),
)
async def delete_my_profile_point(
    request: Request, worker: AnyWorker, whose: Mine, told: InWords, point_id: PathId
) -> PointRemoved:
    """Take a point out of the profile, and what it stands for out of the next recommendations.

    What was done up to now with items of the category or brand, or with the item, counts no more;
    of the segment, also one of those that are computed, the person is no member. What they said
    themselves is taken back. Removing again changes nothing. What cannot be removed by itself is
    a 409.
    """
    portrait = await _portrait(request, worker, whose)
    point = _found(portrait, point_id)
    if not point.removable:
        raise ConflictError(told.text("profile.not_removable"))
    # Clocks differ: what is in the profile goes, also if it happened a moment from now.
    now = max(datetime.now(UTC), portrait.newest_at)
    await _change(request, worker, whose, lambda said: without_point(said, point, now))
    return PointRemoved(point_id=point_id, removed=True)


@router.post(
    "/v1/me/profile/{point_id}/restore",
    tags=["me"],
    operation_id="put_back_my_profile_point",
    summary="It does describe me after all",
    response_model=PointRestored,
    responses=responses(PointRestored, {"point_id": POINT_ID, "restored": True}, *ERRORS),
    **secured(public=True, customer=True),
)
async def put_back_my_profile_point(
    request: Request, worker: AnyWorker, whose: Mine, point_id: PathId
) -> PointRestored:
    """Take a removal back; `restored` is false if there is none.

    What the customer had said themselves is not said again: follow it anew.
    """
    point = _found(await _portrait(request, worker, whose), point_id)
    restored = False

    def change(said: Preferences) -> Preferences:
        nonlocal restored
        after = put_back(said, point)
        restored = after != said
        return after

    await _change(request, worker, whose, change)
    return PointRestored(point_id=point_id, restored=restored)


def _found(portrait: Portrait, wanted: str) -> Point:
    point = portrait.find(wanted)
    if point is None:
        raise NotFoundError(f"the profile has no point {wanted!r}")
    return point


async def _change(
    request: Request, worker: Worker, whose: Whose, change: Callable[[Preferences], Preferences]
) -> None:
    most = worker.settings.public_events_per_minute
    await worker.store.quota.take({whose.person: 1}, most, time.time())

    def decision(said: Preferences, person: str) -> Preferences:
        if asking(request).kind == "public" and person != whose.person:
            raise ForbiddenError("the visitor is a customer now: send it with the customer's token")
        return change(said)

    await worker.decide(whose.person, decision, whose.by)
