"""``/v1/me/questions``: the next best question to ask me, and my answer."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, ValidationError

from feature_store.preferences import UNREADABLE, Preferences
from feature_store.state import EMPTY_STATE
from recsvc.access.auth import ForbiddenError
from recsvc.api.http import (
    AnyWorker,
    PathId,
    asking,
    field_errors,
    json_body,
    read_headers,
    secured,
)
from recsvc.api.languages import InWords
from recsvc.api.openapi import body_of, responses
from recsvc.api.portraits import context_of, profiled_by
from recsvc.api.preferences import Mine
from recsvc.api.schemas import Document
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.customer.disowned import owned
from recsvc.customer.question_bank import Bank, BankKeeper
from recsvc.customer.questions import (
    CONSENT,
    FREQUENCIES,
    MAIL,
    NO,
    SKIP,
    YES,
    Known,
    Question,
    askable,
    next_question,
)
from recsvc.customer.replies import read_reply, replied
from recsvc.explaining.naming import Naming
from recsvc.explaining.words import Words
from recsvc.ranking.history import read_history
from recsvc.requests import load_json
from recsvc.snapshot import Snapshot

router = APIRouter(tags=["me"])

_BANKS = BankKeeper()


class QuestionOption(Document):
    """One thing that can be answered."""

    option_id: str
    text: str
    image_url: str | None = None


class QuestionDocument(Document):
    """A closed question."""

    question_id: str
    kind: Literal["choice", "yes_no", "consent"]
    text: str
    options: list[QuestionOption]
    many: Annotated[bool, Field(description="whether several options may be chosen")]
    because: Annotated[str, Field(description="why it is asked, in words")]


class NextQuestion(Document):
    """The question that is worth asking next, if any is."""

    question: QuestionDocument | None


class AnswerBody(Document):
    """An answer."""

    option_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=100, description="what was chosen; `skip` stands alone"),
    ]


class QuestionAnswered(Document):
    """The answer is stored, and in the next recommendations."""

    question_id: str
    answered: bool


EXAMPLE: dict[str, Any] = {
    "question": {
        "question_id": "departments",
        "kind": "choice",
        "text": "What would you like to see more of?",
        "options": [
            {
                "option_id": "8c1f0a52e4b7d936",
                "text": "Pets",
                "image_url": "https://shop.example/i/dog.jpg",
            },
            {"option_id": "skip", "text": "Skip", "image_url": None},
        ],
        "many": True,
        "because": "We know little of what you like yet.",
    }
}


@router.get(
    "/v1/me/questions",
    operation_id="get_my_next_question",
    summary="What should I be asked next?",
    response_model=NextQuestion,
    responses=responses(NextQuestion, EXAMPLE, 401, 403, 422, 500, 503),
    **secured(public=True, customer=True),
)
async def get_my_next_question(
    request: Request, response: Response, worker: AnyWorker, whose: Mine, told: InWords
) -> dict[str, Any]:
    """Return the closed question whose answer says most about what I will like, or null.

    Consent is asked first where the site needs it. What is known, was answered, or is never named
    is not asked; whoever refuses profiling is asked nothing.
    """
    context = await context_of(request, worker, whose)
    snapshot = worker.holder.current
    bank = await _bank(snapshot)
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Language"] = told.language
    opted_out = read_headers(request.scope).opted_out
    if context.preferences is UNREADABLE or opted_out:
        return {"question": None}
    profiled = profiled_by(request, worker, context)
    now_s = int(time.time())
    said = context.preferences
    state = owned(context.state, said, snapshot.catalogue) if profiled else EMPTY_STATE
    start = None
    if profiled and state.n_item_facts == 0:
        start = snapshot.model.starts.of_context(context.profile, said)
    question = next_question(
        bank,
        snapshot,
        Known(said, read_history(state, snapshot.catalogue.n_rows, now_s), start),
        askable(bank, snapshot, said, _naming(snapshot), now_s),
        profiled=profiled,
        default=worker.settings.profiling,
    )
    return {"question": None if question is None else _told(question, snapshot, told)}


@router.post(
    "/v1/me/questions/{question_id}",
    operation_id="post_my_answer",
    summary="My answer",
    response_model=QuestionAnswered,
    responses=responses(
        QuestionAnswered,
        {"question_id": "departments", "answered": True},
        *(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    ),
    **secured(
        public=True,
        customer=True,
        extra=body_of(AnswerBody, {"option_ids": ["8c1f0a52e4b7d936"]}),
    ),
)
async def post_my_answer(
    request: Request, worker: AnyWorker, whose: Mine, question_id: PathId
) -> QuestionAnswered:
    """Store an answer; it is in the next recommendations of every worker.

    What I like is an interest that my lists start from, or followed once they are made from what I
    did; what does not interest me counts no more as something I did; a consent, or how often I
    want mail, is changed in my preferences. The question is not asked again, also when it was
    skipped. Answers to a question are added up, whoever sends them.
    """
    value = load_json(await json_body(request))
    try:
        body = AnswerBody.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    context = await context_of(request, worker, whose)
    snapshot = worker.holder.current
    reply = read_reply(await _bank(snapshot), _naming(snapshot), question_id, body.option_ids)
    opted_out = read_headers(request.scope).opted_out
    if opted_out and (reply.is_taste or reply.profiling):
        said = "cannot be taken while the browser sends Sec-GPC: 1, which refuses profiling"
        raise InvalidRequestError(FieldError("#/option_ids", said))
    most = worker.settings.public_events_per_minute
    await worker.store.quota.take({whose.person: 1}, most, time.time())
    now, default = datetime.now(UTC), worker.settings.profiling
    is_new = owned(context.state, context.preferences, snapshot.catalogue).n_item_facts == 0

    def decision(said: Preferences, person: str) -> Preferences:
        if asking(request).kind == "public" and person != whose.person:
            raise ForbiddenError("the visitor is a customer now: answer with the customer's token")
        return replied(said, reply, now, whose.source, default, is_new=is_new)

    await worker.decide(whose.person, decision, whose.by)
    return QuestionAnswered(question_id=question_id, answered=True)


async def _bank(snapshot: Snapshot) -> Bank:
    """Return what can be asked; it takes a moment after a training or many changes of items."""
    known = _BANKS.known(snapshot)
    return known if known is not None else await asyncio.to_thread(_BANKS.of, snapshot)


def _naming(snapshot: Snapshot) -> Naming:
    return Naming(snapshot.catalogue, snapshot.site.privacy.never_named)


def _told(question: Question, snapshot: Snapshot, words: Words) -> dict[str, Any]:
    """Put a question into words."""
    text = words.text
    form, parts = question.form, {}
    if question.question_id in (CONSENT, MAIL):
        code = question.question_id
        names = (YES, NO) if code == CONSENT else tuple(FREQUENCIES)
        options = [{"option_id": one, "text": text(f"questions.{one}")} for one in names]
    else:
        assert form is not None
        inside = "" if form.inside is None else form.inside.rpartition(" > ")[2]
        code, parts = form.level, {"name": inside}
        if question.kind == "yes_no":
            (only,) = question.options
            code, parts = only.kind, {"name": only.text}
        options = _options(question, snapshot, words)
    options.append({"option_id": SKIP, "text": text("questions.skip")})
    because = {"name": "" if form is None or form.inside is None else form.inside}
    return {
        "question_id": question.question_id,
        "kind": question.kind,
        "text": text(f"questions.{code}", **parts),
        "options": options,
        "many": question.kind == "choice" and form is not None,
        "because": text(f"questions.because_{question.because}", **because),
    }


def _options(question: Question, snapshot: Snapshot, words: Words) -> list[dict[str, Any]]:
    if question.kind == "yes_no":
        names = ((YES, "questions.yes"), (NO, "questions.not_interested"))
        return [{"option_id": one, "text": words.text(code)} for one, code in names]
    return [
        {
            "option_id": option.option_id,
            "text": option.text,
            "image_url": snapshot.catalogue.item(row)["image_url"],
        }
        for option, row in zip(question.options, question.rows, strict=True)
    ]
