"""Persons as conditions see them: one document of what is known, built where somebody needs it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel

from feature_store.catalogue import Catalogue
from feature_store.conditions import Scope
from feature_store.feedback import read_feedback
from feature_store.people import Kind
from feature_store.preferences import (
    Preferences,
    ProfilingDefault,
    profiling_allowed,
    read_preferences,
)
from feature_store.store import Store, UserContext
from recsvc.customer.disowned import Disownings, disowned_in, disowned_names, owned_values
from recsvc.merchandising.needs import Needs
from recsvc.merchandising.segments import DISOWNED, Segment, segments_of
from recsvc.requests import RecommendationRequest

SLICE = 50
"""People whose documents are looked at before others get the event loop: a millisecond or two."""

_USER_PREFIX = "u:"
_NOTHING: Mapping[str, Any] = {}
_NOTHING_DISOWNED: Disownings = {}
_HELD_IN: dict[Kind, frozenset[str]] = {
    "profile": frozenset({"attributes", "loyalty"}),
    "computed": frozenset({"computed"}),
    # Of everybody: who disowned a segment is no member of it.
    "preferences": frozenset({"consent", "attributes", "loyalty", "computed", "feedback"}),
}
"""Which documents of a person hold what conditions speak of."""


def person_document(
    profile: Mapping[str, Any],
    computed: Mapping[str, Any],
    feedback: Mapping[str, Any],
    consent: Mapping[str, Any],
    disowned: Disownings = _NOTHING_DISOWNED,
) -> dict[str, Any]:
    """Return a person as ``user.*`` of conditions reads it.

    Parameters
    ----------
    profile : mapping
        ``feature_store.profile.Profile`` as the store keeps it.
    computed : mapping
        What training computed (``docs/customers.md``).
    feedback : mapping
        Result of ``feature_store.feedback.read_feedback``.
    consent : mapping
        What the person allows, as far as they said.
    disowned : Disownings
        What the person says does not describe them: tastes are left out, and of segments they are
        no member (``segments.segments_of`` obeys).
    """
    document = {
        "attributes": profile.get("attributes") or _NOTHING,
        "loyalty": profile.get("loyalty") or _NOTHING,
        "computed": owned_values(computed, disowned),
        "feedback": feedback,
        "consent": consent,
    }
    if (segments := disowned.get("segment")) is not None:
        document[DISOWNED] = segments
    return document


def document_of(context: UserContext) -> dict[str, Any]:
    """Return the person of a context that was read with ``documents=True``."""
    return person_document(
        orjson.loads(context.profile) if context.profile else _NOTHING,
        orjson.loads(context.computed) if context.computed else _NOTHING,
        read_feedback(context.state),
        consent_of(context.preferences),
        disowned_names(context.preferences),
    )


def consent_of(preferences: Preferences) -> dict[str, bool]:
    """Return what a person allows or refuses, without what they were not asked."""
    said: object = getattr(preferences, "consent", None)
    if not isinstance(said, BaseModel):
        return {}
    return {name: value for name, value in said if isinstance(value, bool)}


def scope_of(
    request: RecommendationRequest,
    user: Mapping[str, Any],
    catalogue: Catalogue,
    segments: Mapping[str, Segment],
    needs: Needs,
    now_s: float,
) -> Scope:
    """Return what conditions are evaluated on for one request.

    Parameters
    ----------
    request : RecommendationRequest
        The question: its context, and the page it is about.
    user : mapping
        The person (`document_of`); empty for nobody, and for whoever refused profiling.
    catalogue : Catalogue
        Has the items on the page.
    segments : mapping of str to Segment
        Those of the site.
    needs : Needs
        What the conditions look at; the rest is left out.
    now_s : float
        Seconds since 1970.
    """
    return Scope(
        user=user,
        segments=segments_of(segments, user, needs.segments) if user else frozenset(),
        context=request.context,
        page=page_documents(catalogue, request.item_ids) if needs.page else (),
        now_s=now_s,
    )


def page_documents(catalogue: Catalogue, item_ids: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return the documents of the items on a page; unknown ones have none."""
    if not item_ids:
        return ()
    return tuple(catalogue.item(row) for row in catalogue.rows(item_ids).tolist() if row >= 0)


async def scan_users(
    store: Store, fields: Iterable[str]
) -> AsyncIterator[list[tuple[str, dict[str, Any]]]]:
    """Yield every user who has a document, some at a time, as conditions see them.

    Who may not be profiled belongs to no segment and is left out. Between two slices others get
    the event loop. Users of whom nothing but events is known, newer
    than the last training, have no document.

    Parameters
    ----------
    store : Store
        Where they are.
    fields : iterable of str
        Which fields of ``user.*`` somebody looks at; parts of which nobody does are left out.

    Raises
    ------
    StoreUnavailableError
        If the server does not answer.
    """
    parts = {field.split(".")[1] for field in fields if field.startswith("user.")}
    kinds = [kind for kind, held in _HELD_IN.items() if not parts.isdisjoint(held)]
    kinds = kinds or list(_HELD_IN)
    if "preferences" not in kinds:
        kinds.append("preferences")
    async for batch in store.people.scan(kinds, SLICE):
        users = [
            one
            for one in batch
            if one[0].startswith(_USER_PREFIX)
            and may_profile_by(one[1].get("preferences"), store.profiling)
        ]
        said: Sequence[Mapping[str, Any]] = [_NOTHING] * len(users)
        if "feedback" in parts:
            contexts = await asyncio.gather(*(store.load_context(one) for one, _ in users))
            said = [read_feedback(context.state) for context in contexts]
        yield [
            (
                person.removeprefix(_USER_PREFIX),
                person_document(
                    documents.get("profile") or _NOTHING,
                    documents.get("computed") or _NOTHING,
                    facts,
                    (documents.get("preferences") or _NOTHING).get("consent") or _NOTHING,
                    disowned_in(documents.get("preferences")),
                ),
            )
            for (person, documents), facts in zip(users, said, strict=True)
        ]
        await asyncio.sleep(0)


def may_profile_by(preferences: Mapping[str, Any] | None, default: ProfilingDefault) -> bool:
    """Tell what ``consenting.may_profile`` does when nobody asks for anything."""
    if preferences is None:
        return default == "opt_out"
    return profiling_allowed(read_preferences(orjson.dumps(preferences)), default)
