"""Whether questions help somebody new, on the purchases of the demo.

    .venv/bin/recsvc demo --no-serve --data-dir .recsvc
    .venv/bin/python -m tests.benchmarks.questions --data-dir .recsvc

New customers are made as in ``cold_starts``: everybody's first basket in the last 28 days is what
is wanted, what they did before is hidden, and in each fold its people are in no training. They
answer from what they buy in the window *after* the first basket, in one of two ways:

clearly          they choose what they bought twice or more, and twice as much of as everybody does
three            of what they bought twice or more, and more of than everybody, the three options
                 that are furthest above, in log-likelihood (`interests_own` of ``cold_starts``)

Lists of 20 are made by the engine that
serves, after no answer and after 1, 2 and 3. Ways to choose the questions:

best             what ``recsvc/customer/questions.py`` asks
random_options   the same kind of question, inside the same department, about other options
random           any question of the bank about any options of it

Each is compared with no question on the same people. Prints one JSON document.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from functools import partial  # noqa: E402
from math import log  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import orjson  # noqa: E402

from feature_store.preferences import NO_PREFERENCES, Preferences  # noqa: E402
from feature_store.state import EMPTY_STATE  # noqa: E402
from recsvc.customer.question_bank import Bank, Form, Option  # noqa: E402
from recsvc.customer.questions import MOST_OPTIONS, Known, Question, askable, next_question  # noqa: E402
from recsvc.customer.replies import Reply, replied  # noqa: E402
from recsvc.engine import recommend  # noqa: E402
from recsvc.explaining.naming import Naming  # noqa: E402
from recsvc.ranking.history import read_history  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from tests.benchmarks.cold_items import Shop, read_shop  # noqa: E402
from tests.benchmarks.cold_starts import (  # noqa: E402
    FOLDS,
    LEAST_PURCHASES,
    MOST_INTERESTS,
    trained,
)
from training import metrics  # noqa: E402
from training.config import TrainConfig  # noqa: E402

QUESTIONS = 3
CLEARLY = 2.0
ANSWERS = ("clearly", "three")
Rows = npt.NDArray[np.int64]
Choose = Callable[[Preferences], Question | None]
Found = dict[tuple[str, str, int], dict[int, float]]


class Window:
    """What people bought first in the window, and afterwards."""

    def __init__(self, shop: Shop) -> None:
        window = shop.events.since(shop.start_ms).purchases.sort("person", "t_ms")
        self.first: dict[int, set[int]] = {}
        later: dict[int, list[int]] = {}
        baskets: dict[int, Any] = {}
        for person, item, basket in window.select("person", "item", "basket").iter_rows():
            row = int(shop.rows[item])
            if basket == baskets.setdefault(person, basket):
                self.first.setdefault(person, set()).add(row)
            else:
                later.setdefault(person, []).append(row)
        self.later: dict[int, Rows] = {one: np.array(rows) for one, rows in later.items()}
        every = np.concatenate(list(self.later.values()))
        self.share = np.bincount(every, minlength=shop.catalogue.n_rows) / len(every)


class Customer:
    """Somebody new, who answers truthfully, in one of the two ways."""

    def __init__(self, person: int, window: Window, bank: Bank, how: str) -> None:
        self._bought, self._share, self._bank = window.later[person], window.share, bank
        self._how = how

    def answers(self, question: Question) -> Reply:
        assert question.form is not None
        members = self._bank.options(question.form)
        ratios = {one: self._ratio(self._bank.rows[members[one]]) for one in question.options}
        if self._how == "clearly":
            liked = [one for one, (_, ratio) in ratios.items() if ratio >= CLEARLY]
        else:
            above = [one for one, (_, ratio) in ratios.items() if ratio > 1]
            above.sort(key=lambda one: -ratios[one][0] * log(ratios[one][1]))
            liked = above[:MOST_INTERESTS]
        return Reply(question.question_id, tuple(liked))

    def _ratio(self, rows: Rows) -> tuple[int, float]:
        """Return how many were bought, and how much more than everybody does; 0 for too few."""
        n = int(np.isin(self._bought, rows).sum())
        if n < LEAST_PURCHASES:
            return n, 0.0
        return n, n / len(self._bought) / max(float(self._share[rows].sum()), 1e-9)


class Asker:
    """Chooses questions in the three ways."""

    def __init__(self, snapshot: Snapshot, bank: Bank, now_s: int) -> None:
        self._snapshot, self._bank, self._now_s = snapshot, bank, now_s
        self._naming = Naming(snapshot.catalogue, ())
        self._nothing = read_history(EMPTY_STATE, snapshot.catalogue.n_rows, now_s)

    def best(self, said: Preferences) -> Question | None:
        start = self._snapshot.model.starts.of_context(None, said)
        return next_question(
            self._bank,
            self._snapshot,
            Known(said, self._nothing, start),
            askable(self._bank, self._snapshot, said, self._naming, self._now_s),
            profiled=True,
            default="opt_out",
        )

    def random_options(self, rng: np.random.Generator, said: Preferences) -> Question | None:
        question = self.best(said)
        if question is None:
            return None
        assert question.form is not None
        return self._of(question.form, said, rng)

    def random(self, rng: np.random.Generator, said: Preferences) -> Question | None:
        answered = {one.question_id for one in said.answered}
        forms = [one for one in self._bank.forms if one.question_id not in answered]
        return self._of(forms[rng.integers(len(forms))], said, rng)

    def _of(self, form: Form, said: Preferences, rng: np.random.Generator) -> Question:
        known = said.interests
        options: list[Option] = [one for one in self._bank.options(form) if one.name not in known]
        n = min(MOST_OPTIONS, len(options))
        chosen = [options[at] for at in rng.choice(len(options), n, replace=False)] if n else []
        return Question(form.question_id, "choice", "new", form, tuple(chosen))


def measure(shop: Shop, folds: int) -> tuple[Found, dict[str, float]]:
    """Return the NDCG of each person by way and number of answers, and what was ticked."""
    window = Window(shop)
    persons = np.array(sorted(window.first.keys() & window.later.keys()), dtype=np.uint32)
    fold = np.random.default_rng(shop.config.seed).integers(0, FOLDS, len(persons))
    found: Found = {}
    ticked: dict[str, list[int]] = {}
    for held in range(folds):
        with trained(shop, persons[fold == held], {}) as (snapshot, _):
            bank = Bank(snapshot)
            asker = Asker(snapshot, bank, shop.now_s)
            for person in persons[fold == held].tolist():
                for how in ANSWERS:
                    customer = Customer(person, window, bank, how)
                    rng = np.random.default_rng([shop.config.seed, person])
                    ways: dict[str, Choose] = {
                        "best": asker.best,
                        "random_options": partial(asker.random_options, rng),
                        "random": partial(asker.random, rng),
                    }
                    for way, choose in ways.items():
                        truth = window.first[person]
                        run = _run(snapshot, shop, customer, choose, truth)
                        for n, (score, n_liked) in enumerate(run):
                            found.setdefault((how, way, n), {})[person] = score
                            if n:
                                ticked.setdefault(f"{how}, {way} {n}", []).append(n_liked)
    return found, {name: round(float(np.mean(counts)), 2) for name, counts in ticked.items()}


def _run(
    snapshot: Snapshot, shop: Shop, customer: Customer, choose: Choose, truth: set[int]
) -> list[tuple[float, int]]:
    """Return the NDCG before and after each answer, and how many options each chose."""
    said, now = NO_PREFERENCES, datetime.fromtimestamp(shop.now_s, UTC)
    found = [(_ndcg(snapshot, said, truth, shop), 0)]
    for _ in range(QUESTIONS):
        question = choose(said)
        n_liked = 0
        if question is not None:
            reply = customer.answers(question)
            n_liked = len(reply.liked)
            said = replied(said, reply, now, "customer", "opt_out", is_new=True)
        found.append((_ndcg(snapshot, said, truth, shop), n_liked))
    return found


def _ndcg(snapshot: Snapshot, said: Preferences, truth: set[int], shop: Shop) -> float:
    start = snapshot.model.starts.of_context(None, said)
    request = RecommendationRequest(limit=shop.config.k)
    response = recommend(snapshot, EMPTY_STATE, said, request, shop.now_s, start=start)
    hits = np.array([[chosen.row in truth for chosen in response.chosen]])
    (ndcg,) = metrics.ndcg_at_k(hits, np.array([len(truth)]))
    return float(ndcg)


def report(found: Found, config: TrainConfig) -> list[dict[str, Any]]:
    """Return a row for each way and number of answers, compared with no question."""
    rows = []
    for (how, way, n), by_person in found.items():
        if n == 0 and (how, way) != (ANSWERS[0], "best"):
            continue
        scores = np.array(list(by_person.values()))
        gained = scores - np.array([found[how, way, 0][person] for person in by_person])
        low, high = metrics.bootstrap_ci(gained, config.n_bootstrap, config.seed)
        rows.append(
            {
                "answers_are": how if n else "none",
                "questions": way if n else "none",
                "answers": n,
                "ndcg@20": round(float(scores.mean()), 5),
                "difference": round(float(gained.mean()), 5),
                "difference_ci95": [round(low, 5), round(high, 5)],
                "n_users": len(scores),
            }
        )
    return rows


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=2, help="of 5: each is a fifth of the people")
    arguments = parser.parse_args()
    shop = read_shop(arguments.data_dir, TrainConfig())
    found, ticked = measure(shop, arguments.folds)
    document = {"rows": report(found, shop.config), "ticked": ticked}
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
