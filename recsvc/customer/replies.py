"""What an answer to a question changes in what a person decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_store.errors import ConflictError, NotFoundError
from feature_store.preferences import (
    Answered,
    Disowned,
    Preferences,
    ProfilingDefault,
    profiling_allowed,
)
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.customer.choices import changed
from recsvc.customer.patches import PreferencesPatch, covers
from recsvc.customer.question_bank import Bank, Option
from recsvc.customer.questions import CONSENT, FREQUENCIES, MAIL, NO, SKIP, YES
from recsvc.explaining.naming import Naming

_FOLLOWED = {"category": "followed_categories", "brand": "followed_brands"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A checked answer.

    Parameters
    ----------
    question_id : str
        To which question.
    liked : tuple of Option
        What was chosen.
    disliked : Option or None
        What is not interesting.
    profiling : bool or None
        What was said of the consent.
    frequency_days : int or None
        How often mail is wanted.
    """

    question_id: str
    liked: tuple[Option, ...] = ()
    disliked: Option | None = None
    profiling: bool | None = None
    frequency_days: int | None = None

    @property
    def is_taste(self) -> bool:
        """Whether it was a question about taste."""
        return self.question_id not in (CONSENT, MAIL)


def read_reply(bank: Bank, naming: Naming, question_id: str, option_ids: Sequence[str]) -> Reply:
    """Check an answer.

    Any option of the question's form is taken, also one that was not offered: what is worth
    offering may have changed since the question was asked.

    Raises
    ------
    NotFoundError
        If there is no such question.
    InvalidRequestError
        If an option is none of the question's, or several are chosen where one is asked for.
    """
    form, single = bank.form(question_id), bank.single(question_id)
    liked: dict[str, Option] = {}
    if form is not None:
        liked = {
            option.option_id: option
            for option in bank.options(form)
            if option.kind == "brand" or naming.may_name_category(option.name)
        }
        known = {*liked}
    elif question_id == MAIL:
        known = {*FREQUENCIES}
    elif question_id == CONSENT or single is not None:
        known = {YES, NO}
    else:
        raise NotFoundError(f"there is no question {question_id!r}; ask for the next one")
    _check_options(option_ids, known | {SKIP}, many=form is not None)
    (first, *_) = option_ids
    if first == SKIP:
        return Reply(question_id)
    if form is not None:
        return Reply(question_id, tuple(liked[one] for one in dict.fromkeys(option_ids)))
    if question_id == MAIL:
        return Reply(question_id, frequency_days=FREQUENCIES[first])
    if single is None:
        return Reply(question_id, profiling=first == YES)
    if first == YES:
        return Reply(question_id, (single,))
    return Reply(question_id, disliked=single)


def _check_options(option_ids: Sequence[str], known: set[str], *, many: bool) -> None:
    errors = [
        FieldError(f"#/option_ids/{at}", "is no option of this question")
        for at, one in enumerate(option_ids)
        if one not in known
    ]
    if not many and len(option_ids) != 1:
        errors.append(FieldError("#/option_ids", "one option is to be chosen"))
    elif len(set(option_ids)) > 1 and SKIP in option_ids:
        errors.append(FieldError("#/option_ids", "who skips chooses nothing else"))
    if errors:
        raise InvalidRequestError(*errors)


def replied(
    preferences: Preferences,
    reply: Reply,
    now: datetime,
    source: str,
    default: ProfilingDefault,
    *,
    is_new: bool,
) -> Preferences:
    """Return what somebody decided, after an answer.

    What somebody new likes is an interest, which their lists start from; whoever has a history
    follows it, which lifts it in lists that are made from the history.

    Parameters
    ----------
    preferences : Preferences
        As they are.
    reply : Reply
        The answer.
    now : datetime
        What the time is.
    source : str
        Who says so, for the change of a consent.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    is_new : bool
        Whether they did nothing yet.

    Raises
    ------
    ConflictError
        If nothing of somebody's taste may be kept.
    InvalidRequestError
        If what was chosen is hidden, or too much is followed.
    """
    if reply.is_taste and not profiling_allowed(preferences, default):
        raise ConflictError("you do not allow a profile, so the answer was not stored")
    said: dict[str, Any] = {}
    if reply.profiling is not None:
        said["consent"] = {"profiling": reply.profiling}
    if reply.frequency_days is not None:
        said["email"] = {"frequency_days": reply.frequency_days}
    if any(_is_hidden(preferences, option) for option in reply.liked):
        raise InvalidRequestError(FieldError("#/option_ids", "you hide it: show it again first"))
    for option in reply.liked:
        field = "interests" if is_new else _FOLLOWED[option.kind]
        said.setdefault(field, {"add": []})["add"].append(option.name)
    patch = PreferencesPatch.model_validate(said)
    try:
        after = changed(preferences, patch, now, source)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            *(FieldError("#/option_ids", f"{one.pointer}: {one.detail}") for one in error.errors)
        ) from error
    update = _outdone(after, reply, now)
    if not any(one.question_id == reply.question_id for one in after.answered):
        answered = (*after.answered, Answered(question_id=reply.question_id, at=now))
        update["answered"] = tuple(sorted(answered, key=lambda one: one.question_id))
    return after.model_copy(update=update)


def _is_hidden(preferences: Preferences, option: Option) -> bool:
    if option.kind == "brand":
        return covers("brands", preferences.hidden_brands, option.name)
    return covers("categories", preferences.hidden_categories, option.name)


def _outdone(preferences: Preferences, reply: Reply, now: datetime) -> dict[str, Any]:
    """Return what an answer changes of what was said against it before: the last word counts."""
    spoken_of = {(option.kind, option.name) for option in reply.liked}
    update: dict[str, Any] = {}
    if (option := reply.disliked) is not None:
        spoken_of.add((option.kind, option.name))
        for field in ("interests", _FOLLOWED[option.kind]):
            update[field] = getattr(preferences, field) - {option.name}
    kept = [one for one in preferences.disowned if (one.kind, one.name) not in spoken_of]
    if option is not None:
        kept.append(Disowned(kind=option.kind, name=option.name, at=now))
    update["disowned"] = tuple(sorted(kept, key=lambda one: (one.kind, one.name)))
    return update
