"""Which question is worth most: known answers, and laws of what an answer is worth."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import ConflictError, NotFoundError
from feature_store.preferences import (
    NO_PREFERENCES,
    Disowned,
    Email,
    Preferences,
    Purposes,
)
from feature_store.state import EMPTY_STATE, UserState
from recsvc.checks import InvalidRequestError
from recsvc.customer.question_bank import Bank, BankKeeper, Form, gains
from recsvc.customer.questions import CONSENT, MAIL, Known, Question, askable, next_question
from recsvc.customer.replies import Reply, read_reply, replied
from recsvc.explaining.naming import Naming
from recsvc.ranking.history import read_history
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import NOW_S, bought, item_ids, make_catalogue, make_snapshot, write_artifact

N = 60
NAMES = ("Pets", "Garden", "Food")
NOW = datetime.fromtimestamp(NOW_S, UTC)


def category(row: int) -> str:
    """Departments are tastes; popular items come first, so Pets sells a little more."""
    return f"{NAMES[row % 3]} > Shelf {row % 12 // 3}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    artifact = write_artifact(tmp_path_factory.mktemp("models"), N)
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(N),
            categories=[[category(row)] for row in range(N)],
            brand=[f"Brand {row % 6}" for row in range(N)],
        ),
    )


def ask(
    shop: Snapshot,
    preferences: Preferences = NO_PREFERENCES,
    state: UserState = EMPTY_STATE,
    never_named: tuple[str, ...] = (),
    *,
    profiled: bool = True,
    opt_in: bool = False,
) -> Question | None:
    bank = Bank(shop)
    start = None if state.n_item_facts else shop.model.starts.of_context(None, preferences)
    known = Known(preferences, read_history(state, N, NOW_S), start)
    naming = Naming(shop.catalogue, never_named)
    return next_question(
        bank,
        shop,
        known,
        askable(bank, shop, preferences, naming, NOW_S),
        profiled=profiled,
        default="opt_in" if opt_in else "opt_out",
    )


def texts(question: Question | None) -> set[str]:
    assert question is not None
    return {option.text for option in question.options}


def after(preferences: Preferences, question: Question | None, *names: str) -> Preferences:
    """Answer truthfully that somebody likes some of the options."""
    assert question is not None
    liked = tuple(option for option in question.options if option.text in names)
    return replied(
        preferences, Reply(question.question_id, liked), NOW, "customer", "opt_out", is_new=True
    )


# --- what an answer is worth --------------------------------------------------------------------


def test_gain_is_the_mutual_information_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.2])
    tastes = rng.dirichlet(2 * shares, size=400_000)
    yes = rng.random(len(tastes)) > (1 - tastes[:, 0]) ** 10
    bought_it = tastes[:, 0]
    mean = bought_it.mean()
    expected = 0.0
    for answer in (True, False):
        q = bought_it[yes == answer].mean()
        divergence = q * np.log(q / mean) + (1 - q) * np.log((1 - q) / (1 - mean))
        expected += (yes == answer).mean() * divergence
    gain, likely = gains(shares, np.zeros(3), 0.0)
    assert likely[0] == pytest.approx(yes.mean(), abs=0.003)
    assert gain[0] == pytest.approx(expected, rel=0.02)


@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=12),
    st.lists(st.floats(0, 30), min_size=12, max_size=12),
)
def test_an_answer_never_takes_knowledge_away(weights: list[float], own: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    mine = np.array(own[: len(shares)])
    gain, likely = gains(shares, mine, float(mine.sum()))
    assert np.isfinite(gain).all()
    assert (gain > -1e-9).all()
    assert ((likely >= 0) & (likely <= 1)).all()


@given(st.floats(0.01, 0.5), st.floats(0, 5), st.floats(1, 20))
def test_who_did_more_of_it_needs_the_question_less(share: float, less: float, more: float) -> None:
    def of(own: float) -> float:
        # They did other things too, in proportion: only how much is known differs.
        gain, _ = gains(np.array([share]), np.array([own * share]), own)
        return float(gain[0])

    assert of(less) >= of(less + more) - 1e-12


def test_what_nobody_buys_is_worth_nothing() -> None:
    gain, _ = gains(np.array([1e-9, 0.2]), np.zeros(2), 0.0)
    assert gain[0] < 1e-6 < gain[1]


# --- which question -----------------------------------------------------------------------------


def test_a_stranger_is_asked_about_departments(shop: Snapshot) -> None:
    question = ask(shop)
    assert texts(question) == set(NAMES)
    assert question is not None
    assert (question.question_id, question.kind, question.because) == (
        "departments",
        "choice",
        "new",
    )
    for option, row in zip(question.options, question.rows, strict=True):
        assert category(row).startswith(option.name)


def test_then_inside_what_was_chosen(shop: Snapshot) -> None:
    said = after(NO_PREFERENCES, ask(shop), "Pets")
    question = ask(shop, said)
    assert question is not None
    assert question.form is not None
    assert question.form.inside == "Pets"
    assert question.because == "chosen"
    said = after(said, question, min(texts(question)))
    seen = {"departments", question.question_id}
    while (question := ask(shop, said)) is not None:
        assert question.question_id not in seen
        assert question.form is not None
        assert question.form.inside == "Pets"
        seen.add(question.question_id)
        said = after(said, question)
    assert len(seen) >= 3


def test_what_was_done_is_not_asked(shop: Snapshot) -> None:
    state = bought(*((row, 1) for row in range(0, 30, 3)))
    question = ask(shop, state=state)
    assert question is not None
    assert "Pets" not in texts(question)
    followed = Preferences(answered=after(NO_PREFERENCES, ask(shop)).answered)
    question = ask(shop, followed, state)
    assert question is not None
    assert question.form is not None
    assert (question.form.inside, question.because) == ("Pets", "known")


def test_what_is_hidden_disowned_or_never_named_is_not_asked(shop: Snapshot) -> None:
    hidden = Preferences(hidden_categories=frozenset({"Pets"}))
    assert texts(ask(shop, hidden)) == {"Garden", "Food"}
    disowned = Preferences(disowned=(Disowned(kind="category", name="Food", at=NOW),))
    assert texts(ask(shop, disowned)) == {"Pets", "Garden"}
    assert texts(ask(shop, never_named=("Garden",))) == {"Pets", "Food"}
    said = after(NO_PREFERENCES, ask(shop), "Pets")
    while (question := ask(shop, said, never_named=("Pets > Shelf 1",))) is not None:
        assert "Shelf 1" not in texts(question)
        said = after(said, question)


def test_one_option_is_a_question_of_its_own(shop: Snapshot) -> None:
    said = Preferences(
        followed_categories=frozenset({"Pets"}),
        hidden_brands=frozenset({f"Brand {number}" for number in range(1, 6)}),
        answered=after(NO_PREFERENCES, ask(shop)).answered,
    )
    found = set()
    while (question := ask(shop, said)) is not None:
        found.add(question.kind)
        if question.kind == "yes_no":
            (only,) = question.options
            reply = Reply(question.question_id, disliked=only)
            said = replied(said, reply, NOW, "customer", "opt_out", is_new=True)
            assert said.disowned[-1].name == only.name
        else:
            said = after(said, question)
    assert found == {"choice"}, "one brand is all there is: nothing to learn"
    # Of two departments one is followed.
    two = Preferences(
        followed_categories=frozenset({"Pets"}), hidden_categories=frozenset({"Food"})
    )
    while (question := ask(shop, two)) is not None and question.kind != "yes_no":
        two = after(two, question)
    assert question is not None
    assert texts(question) == {"Garden"}
    no = Reply(question.question_id, disliked=question.options[0])
    after_no = replied(two, no, NOW, "customer", "opt_out", is_new=True)
    assert [(one.kind, one.name) for one in after_no.disowned] == [("category", "Garden")]
    assert not after_no.hidden_categories - two.hidden_categories


def test_who_may_not_be_profiled_is_asked_for_consent_or_nothing(shop: Snapshot) -> None:
    assert ask(shop, profiled=False) is None
    question = ask(shop, profiled=False, opt_in=True)
    assert question is not None
    assert question.question_id == CONSENT
    refused = Preferences(consent=Purposes(profiling=False))
    assert ask(shop, refused, profiled=False, opt_in=True) is None
    off = Preferences(personalization=False)
    assert ask(shop, off, profiled=False, opt_in=True) is None
    skipped = replied(NO_PREFERENCES, Reply(CONSENT), NOW, "customer", "opt_in", is_new=True)
    assert ask(shop, skipped, profiled=False, opt_in=True) is None


def test_mail(shop: Snapshot) -> None:
    agreed = Preferences(consent=Purposes(email_marketing=True))
    assert texts(ask(shop, agreed)) == set(NAMES)
    question = ask(shop, agreed, bought((0, 1)))
    assert question is not None
    assert question.question_id == MAIL
    said = replied(agreed, Reply(MAIL, frequency_days=7), NOW, "customer", "opt_out", is_new=True)
    assert said.email == Email(frequency_days=7)
    then = ask(shop, said, bought((0, 1)))
    assert then is None or then.question_id != MAIL


def test_a_shop_without_a_model_or_without_categories(shop: Snapshot) -> None:
    bare = make_snapshot(None, shop.catalogue)
    assert texts(ask(bare)) == set(NAMES)
    assert ask(make_snapshot(None, make_catalogue(item_ids(5)))) is None
    assert ask(make_snapshot(None, make_catalogue([]))) is None


def test_steps_that_all_share_are_passed_over() -> None:
    catalogue = make_catalogue(
        item_ids(N), categories=[[f"All > {category(row)}"] for row in range(N)]
    )
    assert texts(ask(make_snapshot(None, catalogue))) == set(NAMES)
    flat = make_catalogue(item_ids(N), categories=[["All"]] * N)
    assert ask(make_snapshot(None, flat)) is None


def test_the_bank_is_kept_while_it_is_right(shop: Snapshot, tmp_path: Path) -> None:
    keeper = BankKeeper()
    assert keeper.known(shop) is None
    bank = keeper.of(shop)
    assert keeper.of(replace(shop, built_at=1.0)) is bank
    other = make_snapshot(write_artifact(tmp_path, N, seed=1), shop.catalogue)
    assert keeper.known(other) is None
    changed = make_catalogue(item_ids(N), categories=[["Other"]] * N)
    assert keeper.known(make_snapshot(None, changed)) is None


# --- answers ------------------------------------------------------------------------------------


def test_answers_are_checked(shop: Snapshot) -> None:
    bank, naming = Bank(shop), Naming(shop.catalogue, ("Food",))
    options = {option.text: option.option_id for option in bank.options(Form("departments"))}
    reply = read_reply(bank, naming, "departments", [options["Pets"], options["Garden"]])
    assert [option.name for option in reply.liked] == ["Pets", "Garden"]
    for wrong in (["x"], [options["Food"]], [options["Pets"], "skip"]):
        with pytest.raises(InvalidRequestError):
            read_reply(bank, naming, "departments", wrong)
    for question_id in ("department", f"categories-{options['Food']}x", ""):
        with pytest.raises(NotFoundError):
            read_reply(bank, naming, question_id, ["skip"])
    with pytest.raises(InvalidRequestError):
        read_reply(bank, naming, CONSENT, ["yes", "no"])
    assert read_reply(bank, naming, CONSENT, ["no"]).profiling is False
    assert read_reply(bank, naming, MAIL, ["days_30"]).frequency_days == 30


def _reply(shop: Snapshot, name: str) -> Reply:
    liked = [one for one in Bank(shop).options(Form("departments")) if one.name == name]
    return Reply("departments", tuple(liked))


def test_an_answer_is_remembered_once(shop: Snapshot) -> None:
    first = after(NO_PREFERENCES, ask(shop), "Pets")
    again = replied(
        first, Reply("departments"), NOW + timedelta(days=1), "customer", "opt_out", is_new=True
    )
    assert again == first
    assert [one.question_id for one in first.answered] == ["departments"]
    assert first.interests == {"Pets"}
    known = replied(NO_PREFERENCES, _reply(shop, "Pets"), NOW, "customer", "opt_out", is_new=False)
    assert not known.interests
    assert known.followed_categories == {"Pets"}


@pytest.mark.parametrize("is_new", [True, False])
def test_the_last_word_counts(shop: Snapshot, is_new: bool) -> None:
    (pets,) = _reply(shop, "Pets").liked
    yes, no = Reply(pets.single_id, (pets,)), Reply(pets.single_id, disliked=pets)

    def say(said: Preferences, *replies: Reply) -> Preferences:
        for reply in replies:
            said = replied(said, reply, NOW, "customer", "opt_out", is_new=is_new)
        return said

    liked, disliked = say(NO_PREFERENCES, no, yes), say(NO_PREFERENCES, yes, no)
    assert liked == say(NO_PREFERENCES, yes)
    assert disliked == say(NO_PREFERENCES, no)
    assert liked.interests | liked.followed_categories == {"Pets"}
    assert not disliked.interests | disliked.followed_categories
    assert [one.name for one in disliked.disowned] == ["Pets"]


def test_nothing_is_kept_of_who_refuses(shop: Snapshot) -> None:
    question = ask(shop)
    for refusing in (
        Preferences(personalization=False),
        Preferences(consent=Purposes(profiling=False)),
    ):
        with pytest.raises(ConflictError):
            after(refusing, question, "Pets")
    hidden = Preferences(hidden_categories=frozenset({"Pets"}))
    with pytest.raises(InvalidRequestError, match="option_ids"):
        after(hidden, question, "Pets")
