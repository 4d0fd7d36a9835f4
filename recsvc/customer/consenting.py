"""Whether an answer may be personal: what the person, the visitor's browser and the site say."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from feature_store.errors import ConflictError
from feature_store.forgetting.ledger import Cut
from feature_store.people import Document
from feature_store.preferences import (
    NO_PREFERENCES,
    UNREADABLE,
    Preferences,
    ProfilingDefault,
    document_of,
    profiling_allowed,
    read_preferences,
)
from feature_store.store import Store, UserContext
from recsvc.access.auth import Principal
from recsvc.customer.choices import consented
from recsvc.requests import RecommendationRequest

REMEMBERED = 100_000
GPC = "gpc"
"""Source of a refusal that a browser sends with every request: Global Privacy Control."""

Decision = Callable[[Preferences, str], Preferences]
"""Gets what somebody chose, and who that is, and returns what they choose now; may refuse."""
Report = Callable[[Preferences, str, Cut], Preferences]
"""The same of what was said some time ago; gets also what is forgotten of whoever said it."""


class Decided(NamedTuple):
    """What somebody decided.

    Parameters
    ----------
    person : str
        Who: of a visitor who has signed in, the user.
    preferences : Preferences
        As they are now.
    """

    person: str
    preferences: Preferences


class Remembered:
    """What a worker saw last of what people decided, for answers while the store is down."""

    def __init__(self) -> None:
        self._preferences: dict[str, Preferences] = {}

    def note(self, person: str, preferences: Preferences) -> None:
        """Keep what somebody decided; of too many the oldest is forgotten."""
        if preferences is UNREADABLE:
            return  # what was seen last is the best that is known
        if preferences is NO_PREFERENCES:
            if self._preferences:
                self._preferences.pop(person, None)
            return
        if len(self._preferences) >= REMEMBERED:
            self._preferences.pop(next(iter(self._preferences)))
        self._preferences[person] = preferences

    def forget(self, is_erased: Callable[[str], object]) -> None:
        """Forget whoever was erased."""
        for person in [one for one in self._preferences if is_erased(one)]:
            del self._preferences[person]

    def of(self, person: str | None) -> Preferences:
        """Return what somebody decided, as far as it is known here."""
        return self._preferences.get(person or "", NO_PREFERENCES)

    def hiding(self, context: UserContext, person: str | None) -> UserContext:
        """Return what is stored of somebody, with what was seen last in place of the unreadable."""
        if context.preferences is not UNREADABLE:
            return context
        seen = self.of(person).model_copy(update={"personalization": False})
        return replace(context, preferences=seen)


def may_profile(
    context: UserContext,
    request: RecommendationRequest,
    default: ProfilingDefault,
    *,
    opted_out: bool,
) -> bool:
    """Tell whether what is known of a person may be used for an answer.

    A refusal counts wherever it stands. What a request says of the consent of a visitor is newer
    than what was stored of them; of a user, also of a visitor who has become one, it counts only
    where nothing is stored.

    Parameters
    ----------
    context : UserContext
        What is stored.
    request : RecommendationRequest
        The question, with the consent that it may carry.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    opted_out : bool
        Whether the request says ``Sec-GPC: 1``.
    """
    asked = request.consent.profiling if request.consent is not None else None
    if opted_out or asked is False:
        return False
    preferences = context.preferences
    if asked and preferences.personalization:
        is_visitor = context.person is not None and context.person.startswith("a:")
        if is_visitor or preferences.consent.profiling is None:
            return True
    return profiling_allowed(preferences, default)


def said_by(caller: Principal | None) -> str:
    """Return how the change log names who says something of consents."""
    if caller is None or caller.kind == "public":
        return "visitor"
    return "customer" if caller.kind == "customer" else f"key:{caller.name}"


def gpc_refusal(preferences: Preferences, _: str) -> Preferences:
    """Return preferences that refuse profiling, as the browser asks; a `Decision`."""
    return consented(preferences, {"profiling": False}, datetime.now(UTC), GPC)


def unreadable() -> ConflictError:
    """Return the error of whoever asks for preferences that cannot be read."""
    return ConflictError(
        "what is stored of these preferences cannot be read; so that no choice is lost, nothing is"
        " changed, and until it is mended nothing personal is shown: restore a backup, rebuild the"
        " server from the archive (recsvc rebuild), or erase the person"
    )


async def decide(store: Store, person: str, decision: Decision, by: str) -> Decided:
    """Change what somebody chose; nobody else's change in between is lost.

    Parameters
    ----------
    store : Store
        Where it is kept.
    person : str
        Who (``schema.person_of``); of a visitor who has signed in, the user's preferences change.
    decision : callable
        What they decide.
    by : str
        Who says so, for the change log.

    Raises
    ------
    ConflictError
        If what is stored cannot be read.
    StoreUnavailableError, OverloadedError
        If it was not stored.
    """
    return await decide_as_reported(store, person, lambda said, whose, _: decision(said, whose), by)


async def decide_as_reported(store: Store, person: str, report: Report, by: str) -> Decided:
    """Change what somebody chose by what they said some time ago; takes and raises as `decide`."""

    def change(whose: str, document: Document | None, cut: Cut) -> Document | None:
        before = NO_PREFERENCES if document is None else read_preferences(orjson.dumps(document))
        if before is UNREADABLE:
            raise unreadable()
        return document_of(report(before, whose, cut))

    try:
        whose, after = await store.people.update_whoever("preferences", person, change, by)
    except orjson.JSONDecodeError as error:
        raise unreadable() from error
    return Decided(whose, read_preferences(None if after is None else orjson.dumps(after)))
