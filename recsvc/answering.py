"""From a question and what is known of the person to the bytes of an answer."""

import time
from collections.abc import Sequence
from hashlib import blake2b

import orjson

from feature_store.conditions import Scope
from feature_store.impressions import NO_IMPRESSIONS
from feature_store.state import EMPTY_STATE
from feature_store.store import UserContext
from feature_store.values import value_class
from recsvc.answer import answer, new_recommendation_id
from recsvc.continued import list_time_s
from recsvc.decisions import DecisionRecorder, Noted
from recsvc.engine import Response, recommend
from recsvc.people import document_of, scope_of
from recsvc.ranking.filling import NOWHERE, Elsewhere
from recsvc.ranking.starts import Start
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot


@value_class(frozen=True, slots=True)
class Recommendation:
    """A finished answer.

    Parameters
    ----------
    body : bytes
        The JSON document.
    private : bool
        Whether somebody was named, so that nobody may keep it.
    etag : str or None
        What the answer for nobody is, besides its id.
    placement : str
        The slot.
    personalized : bool
        Whether it was made from somebody's history.
    phases_s : tuple of float
        Seconds for store, engine and writing.
    """

    body: bytes
    private: bool
    etag: str | None
    placement: str
    personalized: bool
    phases_s: tuple[float, float, float]


@value_class(frozen=True, slots=True, eq=False)
class Question:
    """A request with everything that was read for it.

    Parameters
    ----------
    request : RecommendationRequest
        What is asked.
    person : str or None
        Whom for.
    context : UserContext
        What is known of the person.
    profiled : bool
        Whether it may be used (``consenting.may_profile``).
    named : bool
        Whether the request names somebody, known or not.
    then_s, shown : int or None, int
        When the list was begun that is continued, and how many of its items were shown.
    degraded : sequence of str
        What could not be read.
    began_s : float
        ``time.perf_counter()`` when it came.
    """

    request: RecommendationRequest
    person: str | None
    context: UserContext
    profiled: bool
    named: bool
    then_s: int | None
    shown: int
    degraded: Sequence[str]
    began_s: float


def choose(
    snapshot: Snapshot,
    question: Question,
    now_s: float,
    elsewhere: Elsewhere = NOWHERE,
) -> Response:
    """Return the items of a list.

    Parameters
    ----------
    snapshot : Snapshot
        What serves.
    question : Question
        What is asked, by whom.
    now_s : float
        Seconds since 1970.
    elsewhere : Elsewhere
        What stands elsewhere on the page.
    """
    request, context = question.request, question.context
    state, seen, said = context.state, context.impressions, context.preferences
    if not question.profiled:
        state, seen = EMPTY_STATE, NO_IMPRESSIONS
        if question.named:
            said = said.model_copy(update={"personalization": False})
    return recommend(
        snapshot,
        state,
        said,
        request,
        list_time_s(snapshot, request, question.then_s, int(now_s)),
        scope=_scope(snapshot, question, now_s),
        impressions=seen,
        start=_start(snapshot, question),
        skip=question.shown,
        elsewhere=elsewhere,
    )


def _start(snapshot: Snapshot, question: Question) -> Start | None:
    """Return where somebody without a history starts; who is not profiled starts like anybody.

    Whether the history of somebody who disowned something is one is for the engine to say.
    """
    context = question.context
    preferences = context.preferences
    if not question.profiled or (context.state.n_item_facts and not preferences.disowned):
        return None
    return snapshot.model.starts.of_context(context.profile, preferences)


def _scope(snapshot: Snapshot, question: Question, now_s: float) -> Scope:
    """Return what the audiences of rules see; who is not profiled is nobody to them."""
    site, request = snapshot.site, question.request
    if not site.rules:
        return Scope(context=request.context, now_s=now_s)
    known = site.needs.person and question.profiled
    user = document_of(question.context) if known and question.person is not None else {}
    return scope_of(request, user, snapshot.catalogue, site.segments, site.needs, now_s)


def _may_record(question: Question) -> bool:
    """Tell whether the record of an answer may say whom it was for."""
    asked = question.request.consent
    refused = asked is not None and asked.analytics is False
    stored = question.context.preferences.consent.analytics
    return question.profiled and not refused and stored is not False


def finish(
    snapshot: Snapshot, question: Question, recorder: DecisionRecorder | None
) -> Recommendation:
    """Choose the items and write the answer.

    Parameters
    ----------
    snapshot : Snapshot
        What serves.
    question : Question
        What is asked, by whom.
    recorder : DecisionRecorder or None
        Takes the answer for the record.
    """
    read_s = time.perf_counter()
    now_s = time.time()
    response = choose(snapshot, question, now_s)
    chosen_s = time.perf_counter()
    body = write(response, question, int(now_s * 1000), recorder)
    etag = None
    if not question.named and not question.degraded:
        etag = etag_of([body])
    written_s = time.perf_counter()
    return Recommendation(
        body,
        question.named,
        etag,
        response.placement.name,
        response.personalized,
        (read_s - question.began_s, chosen_s - read_s, written_s - chosen_s),
    )


def write(
    response: Response,
    question: Question,
    now_ms: int,
    recorder: DecisionRecorder | None,
    *,
    in_words: bool = False,
) -> bytes:
    """Return a list as JSON, which begins with its id, and record it.

    Parameters
    ----------
    response : Response
        What was chosen.
    question : Question
        What was asked, by whom.
    now_ms : int
        Milliseconds since 1970.
    recorder : DecisionRecorder or None
        Takes the answer for the record.
    in_words : bool
        Whether reasons are said in words even if nobody asked.
    """
    shown, request = question.shown, question.request
    recommendation_id = new_recommendation_id(now_ms, shown + len(response.chosen))
    document = answer(
        response,
        request,
        recommendation_id,
        list(question.degraded),
        first_rank=shown + 1,
        in_words=in_words,
    )
    body = orjson.dumps(document)
    if recorder is not None:
        # A visitor who has signed in is the user.
        person, kept = question.context.person, body
        if question.named and not _may_record(question):
            person, kept = None, orjson.dumps(document | {"user_id": None})
        recorder.note(Noted(recommendation_id, now_ms, person, request, response, kept))
    return body


def etag_of(bodies: Sequence[bytes]) -> str:
    """Return what answers are besides their ids, which come first in them and are always new."""
    digest = blake2b(digest_size=12)
    for body in bodies:
        digest.update(body.partition(b",")[2])
    return f'W/"{digest.hexdigest()}"'
