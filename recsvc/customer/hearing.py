"""Consents that come along with requests and events, and what of them is remembered.

Of a visitor what was said last holds. Of a user only they themselves decide, so here only their
browser's objection (``Sec-GPC: 1`` with their token) and their unsubscribing count; of a visitor
who has become a user only refusals do. What was said before an erasure is gone with the rest.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import orjson

from feature_store.errors import ConflictError, RecsvcError
from feature_store.forgetting.ledger import Cut, epoch_ms
from feature_store.mail_refusals import refuses_mail
from feature_store.mail_refusals import said_by as said_by_event
from feature_store.people import Change, Document
from feature_store.preferences import (
    NO_PREFERENCES,
    UNREADABLE,
    Preferences,
    Purpose,
    Saying,
    document_of,
    read_preferences,
)
from feature_store.schema import Consent, Event
from feature_store.store import Store, UserContext
from recsvc.access.auth import Principal
from recsvc.customer.choices import consented, heard
from recsvc.customer.consenting import (
    GPC,
    Decision,
    Report,
    decide,
    decide_as_reported,
    said_by,
)
from recsvc.requests import RecommendationRequest

AT_ONCE = 32
"""So many people's consents of one batch of events are changed at once."""
_SENT: tuple[Purpose, ...] = ("profiling", "analytics")


def news_of(
    context: UserContext, request: RecommendationRequest, *, opted_out: bool, signed_in: bool
) -> tuple[dict[Purpose, bool | None], str]:
    """Return what a request says of consents that is to be remembered and is not yet.

    Parameters
    ----------
    context : UserContext
        What is stored.
    request : RecommendationRequest
        The question, with the consent that it may carry.
    opted_out : bool
        Whether the request says ``Sec-GPC: 1``.
    signed_in : bool
        Whether the person asks, with a token.

    Returns
    -------
    said : dict of str to bool
        By purpose; empty for no news.
    source : str
        What said so.
    """
    stored = context.preferences
    if stored is UNREADABLE or context.person is None:
        return {}, ""
    if opted_out and signed_in and stored.consent.profiling is not False:
        return {"profiling": False}, GPC
    said: dict[Purpose, bool | None] = {}
    if request.consent is not None and request.user_id is None and request.anonymous_id is not None:
        is_user = context.person.startswith("u:")
        for purpose, allowed in _said(request.consent):
            is_news = allowed is not getattr(stored.consent, purpose)
            # With an objection in the same request nobody has agreed.
            if is_news and not (allowed and (is_user or opted_out)):
                said[purpose] = allowed
    return said, "request"


async def remember(
    store: Store,
    context: UserContext,
    request: RecommendationRequest,
    caller: Principal | None,
    *,
    opted_out: bool,
    timeout_s: float,
) -> tuple[UserContext, bool]:
    """Remember what a request says of consents, before it is answered.

    Parameters
    ----------
    store : Store
        Where it is kept.
    context : UserContext
        What is stored.
    request : RecommendationRequest
        The question.
    caller : Principal or None
        Who asks.
    opted_out : bool
        Whether the request says ``Sec-GPC: 1``.
    timeout_s : float
        After so long it counts as failed.

    Returns
    -------
    context : UserContext
        With what is stored now.
    remembered : bool
        Whether it is; if not, nothing personal may be shown.
    """
    signed_in = caller is not None and caller.kind == "customer"
    said, source = news_of(context, request, opted_out=opted_out, signed_in=signed_in)
    if not said:
        return context, True
    person = context.person
    assert person is not None
    try:
        async with asyncio.timeout(timeout_s):
            decided = await decide(store, person, _news(said, source, person), said_by(caller))
    except (RecsvcError, TimeoutError):
        return context, False
    return replace(context, preferences=decided.preferences), True


def sayings_of(events: Iterable[Event]) -> list[Saying]:
    """Return what events say of consents.

    Parameters
    ----------
    events : iterable of Event
        Of any number of people; those that nothing is kept of, too.
    """
    found = []
    for event in events:
        if event.consent is not None and event.user_id is None and event.anonymous_id is not None:
            person = f"a:{event.anonymous_id}"
            found += [
                Saying(person, purpose, allowed, event.timestamp, "event")
                for purpose, allowed in _said(event.consent)
            ]
        if refuses_mail(event):
            found.append(said_by_event(event))
    return found


async def hear(store: Store, sayings: Sequence[Saying], by: str) -> None:
    """Remember what came with events; what cannot be read stays as it is, and allows nothing.

    Parameters
    ----------
    store : Store
        Where it is kept.
    sayings : sequence of Saying
        In any order.
    by : str
        Who sent them, for the change log.

    Raises
    ------
    StoreUnavailableError, OverloadedError
        If not all were stored; saying them again is harmless.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def remember(person: str, said: list[Saying]) -> None:
        async with gate:
            with contextlib.suppress(ConflictError):
                await decide_as_reported(store, person, _reported(said), by)

    await asyncio.gather(*(remember(*one) for one in _by_person(sayings).items()))


async def hear_many(store: Store, sayings: Sequence[Saying], by: str) -> None:
    """Remember what a file says, many people at once; takes and raises what `hear` does."""
    # Of whoever is erased from now on nothing is written, whatever was read before.
    as_of_ms = time.time_ns() // 1_000_000
    ledger = await store.forgetting.ledger()
    changes = {
        person: _changing(person, said, ledger.cut_of(person))
        for person, said in _by_person(sayings).items()
    }
    try:
        await store.people.put_many("preferences", changes, by, as_of_ms=as_of_ms)
    except orjson.JSONDecodeError:
        # Somebody's preferences are no JSON: one by one all others are reached.
        await hear(store, sayings, by)


def _by_person(sayings: Iterable[Saying]) -> dict[str, list[Saying]]:
    found: dict[str, list[Saying]] = {}
    for saying in sorted(sayings, key=lambda one: one.at):
        found.setdefault(saying.person, []).append(saying)
    return found


def _changing(person: str, said: list[Saying], cut: Cut) -> Change:
    report = _reported(said)

    def change(document: Document | None) -> Document | None:
        before = NO_PREFERENCES if document is None else read_preferences(orjson.dumps(document))
        return document if before is UNREADABLE else document_of(report(before, person, cut))

    return change


def _news(said: dict[Purpose, bool | None], source: str, person: str) -> Decision:
    now = datetime.now(UTC)

    def decision(preferences: Preferences, whose: str) -> Preferences:
        # The visitor may have signed in a moment ago, or said something else.
        may = {one: allowed for one, allowed in said.items() if not allowed or whose == person}
        return consented(preferences, may, now, source)

    return decision


def _reported(said: list[Saying]) -> Report:
    now = datetime.now(UTC)

    def report(preferences: Preferences, whose: str, cut: Cut) -> Preferences:
        for one in said:
            if epoch_ms(one.at) >= cut.erased_ms and (not one.allowed or whose == one.person):
                at = min(one.at, now)
                preferences = heard(preferences, one.purpose, one.allowed, at, one.source)
        return preferences

    return report


def _said(consent: Consent) -> list[tuple[Purpose, bool]]:
    values = [(purpose, getattr(consent, purpose)) for purpose in _SENT]
    return [(purpose, value) for purpose, value in values if value is not None]
