"""What people decide about themselves: choices and consents, and the end of what was learned."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response

from feature_store.preferences import UNREADABLE, Preferences, profiling_allowed
from feature_store.schema import check_id
from recsvc.access.auth import ForbiddenError
from recsvc.access.public_keys import check_visitor_id
from recsvc.api.http import AnyWorker, PathId, actor, asking, json_body, read_headers, secured
from recsvc.api.languages import InWords
from recsvc.api.me import refuse_user_id
from recsvc.api.openapi import body_of, responses
from recsvc.api.preference_schemas import PreferencesDocument, TasteForgotten
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.customer.choices import MAX_SOURCE_LENGTH, changed, is_restriction, lasting
from recsvc.customer.consenting import gpc_refusal, unreadable
from recsvc.customer.patches import LIMITS, PreferencesPatch, read_patch
from recsvc.customer.telling import why_profiled
from recsvc.explaining.words import Words
from recsvc.pages import check_modules
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

router = APIRouter()

ERRORS = (400, 401, 403, 409, 413, 415, 422, 429, 500, 503)
EXAMPLE: dict[str, Any] = {
    "hidden_items": ["1082185"],
    "hidden_brands": [],
    "hidden_categories": ["Meat"],
    "snoozed": [{"item_id": "995242", "until": "2026-12-24T00:00:00Z"}],
    "followed_brands": ["Alpine Dairy"],
    "followed_categories": ["Produce > Fruit"],
    "interests": ["Bakery"],
    "page": {"modules": None},
    "email": {"frequency_days": 7, "paused_until": None},
    "personalization": True,
    "consent": {"profiling": True, "email_marketing": None, "analytics": None},
    "consent_changes": [
        {
            "purpose": "profiling",
            "allowed": True,
            "at": "2026-11-22T10:15:00Z",
            "source": "customer",
        }
    ],
    "profiling": {"allowed": True, "because": "You agreed on 2026-11-22."},
}
PATCH_EXAMPLE: dict[str, Any] = {
    "hidden_items": {"add": ["1082185"]},
    "followed_brands": {"add": ["Alpine Dairy"], "remove": ["Sunrise"]},
    "interests": ["Bakery"],
    "email": {"frequency_days": 7},
    "consent": {"profiling": True},
}
RESET_EXAMPLE = {"user_id": "2375", "anonymous_id": None, "forgotten": 3}
_VISITOR = Query(
    description="the visitor, with a public key; at least 22 characters, all random",
    examples=["507f191e-810c-4197-89de-860ea0123456"],
)
VisitorId = Annotated[str | None, _VISITOR]


class Whose(NamedTuple):
    """Whose preferences are meant, and who says so."""

    person: str
    source: str
    """As the changes of consents name it."""
    by: str
    """As the change log names it."""


def mine(request: Request, anonymous_id: VisitorId = None) -> Whose:
    """Return whose preferences a browser means.

    Raises
    ------
    InvalidRequestError
        If it names somebody by an id that it must not, or no visitor.
    """
    refuse_user_id(request)
    caller = asking(request)
    if caller.user_id is not None:
        if anonymous_id is not None:
            said = "a token speaks for its customer: leave it out"
            raise InvalidRequestError(FieldError("#/anonymous_id", said))
        return Whose(f"u:{caller.user_id}", "customer", "customer")
    if anonymous_id is None:
        said = "is missing: with a public key, say which visitor"
        raise InvalidRequestError(FieldError("#/anonymous_id", said))
    try:
        check_id(anonymous_id)
    except ValueError as error:
        raise InvalidRequestError(FieldError("#/anonymous_id", str(error))) from error
    if bad := check_visitor_id(anonymous_id):
        raise InvalidRequestError(bad)
    return Whose(f"a:{anonymous_id}", "visitor", "visitor")


def theirs(request: Request, user_id: PathId) -> Whose:
    """Return whose preferences a backend means."""
    return Whose(f"u:{user_id}", actor(request), actor(request))


Mine = Annotated[Whose, Depends(mine)]
Theirs = Annotated[Whose, Depends(theirs)]


@router.get(
    "/v1/me/preferences",
    tags=["me"],
    operation_id="get_my_preferences",
    summary="What have I decided?",
    response_model=PreferencesDocument,
    responses=responses(PreferencesDocument, EXAMPLE, 401, 403, 409, 422, 500, 503),
    **secured(public=True, customer=True),
)
async def get_my_preferences(
    response: Response, worker: AnyWorker, whose: Mine, told: InWords
) -> dict[str, Any]:
    """Return every choice and consent of the customer of the token, or of a visitor.

    Of a visitor who has signed in, they are the customer's. `Sec-GPC: 1` with a token, here and
    wherever a customer acts, refuses profiling for good.
    """
    return await _read(worker, response, whose, told)


@router.patch(
    "/v1/me/preferences",
    tags=["me"],
    operation_id="patch_my_preferences",
    summary="Change what I have decided",
    response_model=PreferencesDocument,
    responses=responses(PreferencesDocument, EXAMPLE, *ERRORS),
    **secured(public=True, customer=True, extra=body_of(PreferencesPatch, PATCH_EXAMPLE)),
)
async def patch_my_preferences(
    request: Request, response: Response, worker: AnyWorker, whose: Mine, told: InWords
) -> dict[str, Any]:
    """Merge a patch into the choices (RFC 7396); the next answer of every worker obeys it.

    Null goes back to the default, a list replaces, `{"add": [...], "remove": [...]}` changes a
    list, also from two pages at once. Of a visitor who has signed in, a page may only restrict:
    what allows more needs the customer's token.
    """
    return await _patch(request, response, worker, whose, told)


@router.get(
    "/v1/users/{user_id}/preferences",
    tags=["users"],
    operation_id="get_preferences",
    summary="What has a user decided?",
    response_model=PreferencesDocument,
    responses=responses(PreferencesDocument, EXAMPLE, 401, 403, 404, 409, 422, 500, 503),
    **secured("privacy:admin"),
)
async def get_preferences(
    response: Response, worker: AnyWorker, whose: Theirs, told: InWords
) -> dict[str, Any]:
    """Return every choice and consent; somebody unknown has the defaults."""
    return await _read(worker, response, whose, told)


@router.patch(
    "/v1/users/{user_id}/preferences",
    tags=["users"],
    operation_id="patch_preferences",
    summary="Change what a user has decided",
    response_model=PreferencesDocument,
    responses=responses(PreferencesDocument, EXAMPLE, *ERRORS, 404),
    **secured("privacy:admin", extra=body_of(PreferencesPatch, PATCH_EXAMPLE)),
)
async def patch_preferences(
    request: Request, response: Response, worker: AnyWorker, whose: Theirs, told: InWords
) -> dict[str, Any]:
    """Merge a patch into the choices (RFC 7396), in the user's name.

    `consent.source` says where the user said so; it stands beside the key's name. With `consent.at`
    a consent that was given earlier, elsewhere, is brought here: it changes nothing that the user
    said since.
    """
    return await _patch(request, response, worker, whose, told)


@router.post(
    "/v1/me/preferences/reset",
    tags=["me"],
    operation_id="reset_my_taste",
    summary="Forget my taste, keep my choices",
    response_model=TasteForgotten,
    responses=responses(TasteForgotten, RESET_EXAMPLE, 401, 403, 422, 429, 500, 503),
    **secured(public=True, customer=True),
)
async def reset_my_taste(request: Request, worker: AnyWorker, whose: Mine) -> TasteForgotten:
    """Forget what the customer of the token, or a visitor, did; the next answer knows nothing.

    What was hidden, followed, said of interests and of consents stays. Who has signed in resets
    with the customer's token.
    """
    await _count(request, worker, whose)
    if asking(request).kind == "public":
        context = await worker.store.load_context(whose.person)
        if context.person != whose.person:
            raise ForbiddenError("the visitor is a customer now: sign in, and reset with the token")
    return await _reset(worker, whose)


@router.post(
    "/v1/users/{user_id}/preferences/reset",
    tags=["users"],
    operation_id="reset_taste",
    summary="Forget a user's taste, keep the choices",
    response_model=TasteForgotten,
    responses=responses(TasteForgotten, RESET_EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("privacy:admin"),
)
async def reset_taste(worker: AnyWorker, whose: Theirs) -> TasteForgotten:
    """Forget what a user did; the next answer knows nothing of it, and what comes late is dropped.

    What was hidden, followed, said of interests and of consents stays.
    """
    return await _reset(worker, whose)


async def _reset(worker: Worker, whose: Whose) -> TasteForgotten:
    forgotten = await worker.store.forgetting.forget_taste(whose.person, whose.by)
    kind, _, one = whose.person.partition(":")
    return TasteForgotten(
        user_id=one if kind == "u" else None,
        anonymous_id=one if kind == "a" else None,
        forgotten=forgotten,
    )


async def _patch(
    request: Request, response: Response, worker: Worker, whose: Whose, told: Words
) -> dict[str, Any]:
    """Apply the patch that a request carries."""
    now = datetime.now(UTC)
    patch = read_patch(load_json(await json_body(request)), now)
    if patch.page is not None and patch.page.modules:
        await worker.context(None)  # a page that was published a moment ago may have more modules
        if wrong := check_modules(worker.holder.current.site, patch.page.modules):
            raise InvalidRequestError(*wrong)
    caller, source = asking(request), whose.source
    refuses = caller.kind == "customer" and read_headers(request.scope).opted_out
    said = patch.consent
    if said is not None and caller.kind != "server":
        given = [name for name in ("source", "at") if getattr(said, name) is not None]
        if given:
            errors = (FieldError(f"#/consent/{name}", "is for backends") for name in given)
            raise InvalidRequestError(*errors)
    if said is not None and said.source is not None:
        source = f"{source}/{said.source}"
    if refuses and said is not None and said.profiling:
        words = "cannot be given while the browser sends Sec-GPC: 1, which refuses it"
        raise InvalidRequestError(FieldError("#/consent/profiling", words))
    await _count(request, worker, whose)

    def change(before: Preferences, person: str) -> Preferences:
        after = changed(before, patch, now, source[:MAX_SOURCE_LENGTH])
        if caller.kind == "public" and person != whose.person:
            _refuse_more(before, after)
        return gpc_refusal(after, person) if refuses else after

    decided = await worker.decide(whose.person, change, whose.by)
    return _answer(worker, response, decided.preferences, told)


def _refuse_more(before: Preferences, after: Preferences) -> None:
    """Refuse what takes a customer's decision back, from a page that nobody has signed in to."""
    if not is_restriction(before, after):
        raise ForbiddenError(
            "the visitor is a customer now: sign in, and send this with the customer's token;"
            " without it a page may only hide and refuse more"
        )


async def _count(request: Request, worker: Worker, whose: Whose) -> None:
    """Let a change by a browser count as one of the person's events of this minute."""
    if asking(request).kind != "server":
        most = worker.settings.public_events_per_minute
        await worker.store.quota.take({whose.person: 1}, most, time.time())


async def _read(worker: Worker, response: Response, whose: Whose, told: Words) -> dict[str, Any]:
    context = await worker.store.load_context(whose.person)
    if context.preferences is UNREADABLE:
        raise unreadable()
    return _answer(worker, response, context.preferences, told)


def _answer(
    worker: Worker, response: Response, preferences: Preferences, told: Words
) -> dict[str, Any]:
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Language"] = told.language
    default = worker.settings.profiling
    current = lasting(preferences, datetime.now(UTC))
    document = current.model_dump(mode="json", include=set(PreferencesDocument.model_fields))
    for name in LIMITS:
        document[name].sort()
    return {
        **document,
        "page": {"modules": None if current.page is None else list(current.page.modules)},
        "profiling": {
            "allowed": profiling_allowed(current, default),
            "because": why_profiled(current, default, told),
        },
    }
