"""What people can be asked about their taste, and what their answers would be worth.

Somebody's taste is a share of each department (category, brand) in what they choose: a Dirichlet
whose mean, before anything is known, is what everybody buys, as where they start re-weights it
(``starts``), drawn to what they did themselves (``topics`` counts the same way). To say yes to one
means that it is among their next `CHOICES` choices. What an answer is worth is the mutual
information of that answer and the next choice, in nats: an expected fall in entropy, so that what
nobody buys, and what is known already, is worth nothing. A question is worth the sum over its
options (an upper bound: what one option says of another is counted twice).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.content import columns_at
from recsvc.explaining.naming import Naming
from recsvc.ranking.topics import PSEUDO_PURCHASES
from recsvc.snapshot import Snapshot

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Level = Literal["departments", "categories", "brands"]
ROWS = 10_000
"""The most popular items, which stand for what is sold."""
CHOICES = 10
DOMINANT = 0.95
"""What has this share of all that is sold does not divide anybody; what is below it may."""
MAX_DEPTH = 3
STEP = " > "


def digest(name: str) -> str:
    """Return a short name for a long one, of letters and digits."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Option:
    """A department, category or brand that somebody may care for.

    Parameters
    ----------
    kind : {"category", "brand"}
        What it is.
    name : str
        Path of the category, or name of the brand.
    """

    kind: Literal["category", "brand"]
    name: str

    @property
    def option_id(self) -> str:
        """Names it in answers."""
        return digest(self.name)

    @property
    def single_id(self) -> str:
        """Names the question about this alone."""
        return f"{self.kind}-{digest(self.name)}"

    @property
    def text(self) -> str:
        """What people call it: the last step of a path."""
        return self.name.rpartition(STEP)[2] if self.kind == "category" else self.name


@dataclass(frozen=True, slots=True)
class Form:
    """A question about taste: which of some departments, categories or brands somebody likes.

    Parameters
    ----------
    level : {"departments", "categories", "brands"}
        What is asked about.
    inside : str or None
        Path of the department that was chosen; ``None`` for all.
    """

    level: Level
    inside: str | None = None

    @property
    def question_id(self) -> str:
        """Names it for good."""
        return self.level if self.inside is None else f"{self.level}-{digest(self.inside)}"


def gains(shares: F64, mine: F64, n_mine: float) -> tuple[F64, F64]:
    """Return what answers are worth, and how likely each is a yes.

    Parameters
    ----------
    shares : ndarray of float64, shape (n,)
        Share of everybody's choices of each option.
    mine : ndarray of float64, shape (n,)
        How many choices of the person's own count for it.
    n_mine : float
        How many there are in all.

    Returns
    -------
    gain : ndarray of float64, shape (n,)
        Mutual information of the answer and the next choice, in nats.
    likely : ndarray of float64, shape (n,)
        Chance of a yes.
    """
    total = float(PSEUDO_PURCHASES) + n_mine
    a = np.maximum(float(PSEUDO_PURCHASES) * shares + mine, 1e-9)
    b = np.maximum(total - a, 1e-9)
    # That none of the next choices falls into it: the zero term of a beta-binomial.
    before = np.arange(CHOICES)
    no = np.prod((b[:, None] + before) / (total + before), axis=1)
    no = np.clip(no, 1e-12, 1 - 1e-12)
    mean, after_no = a / total, a / (total + CHOICES)
    after_yes = np.minimum((mean - no * after_no) / (1 - no), 1 - 1e-12)
    gain: F64 = no * _divergence(after_no, mean) + (1 - no) * _divergence(after_yes, mean)
    return gain, 1 - no


def _divergence(p: F64, q: F64) -> F64:
    """Return the Kullback-Leibler divergence of two coins, in nats."""
    p, q = np.clip(p, 1e-12, 1 - 1e-12), np.clip(q, 1e-12, 1 - 1e-12)
    result: F64 = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return result


class Bank:
    """What can be asked about: departments, their categories and brands, and who buys them.

    Parameters
    ----------
    snapshot : Snapshot
        Its most popular items; of a shop without a model, its first ones.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        model = snapshot.model
        rows = model.popular[:ROWS].astype(np.int64)
        if len(rows) == 0:
            rows = np.arange(min(snapshot.catalogue.n_rows, ROWS), dtype=np.int64)
        weights = model.recent[rows] if model.n_items else np.ones(len(rows), dtype=np.float32)
        shares = dict(zip(rows.tolist(), weights.tolist(), strict=True))
        frame = (
            columns_at(snapshot.catalogue, rows)
            .select(pl.col("row").cast(pl.Int64), "brand", path=pl.col("categories").list.first())
            .filter(pl.col("path").is_not_null())
            .with_columns(weight=pl.col("row").replace_strict(shares, return_dtype=pl.Float64))
            .sort("weight", "row", descending=[True, False])
        )
        self.rows: I64 = frame["row"].to_numpy()
        self.weights: F64 = frame["weight"].to_numpy()
        steps = [path.split(STEP) for path in frame["path"].to_list()]
        depth = self._depth(steps)
        self.paths: list[str] = frame["path"].to_list()
        self.departments = [STEP.join(one[: depth + 1]) for one in steps]
        self.categories = [
            STEP.join(one[: depth + 2]) if len(one) > depth + 1 else None for one in steps
        ]
        self.brands: list[str | None] = frame["brand"].to_list()
        self._members = self._grouped()
        self._forms = {form.question_id: form for form in self._members}
        self._singles = {
            option.single_id: option for options in self._members.values() for option in options
        }

    def _depth(self, steps: Sequence[Sequence[str]]) -> int:
        """Return how many first steps of paths are common to nearly everything."""
        total = self.weights.sum()
        for depth in range(MAX_DEPTH):
            sums: dict[str, float] = {}
            for one, weight in zip(steps, self.weights.tolist(), strict=True):
                name = STEP.join(one[: depth + 1])
                sums[name] = sums.get(name, 0.0) + weight
            if len(sums) != 1 and max(sums.values(), default=0) < DOMINANT * total:
                return depth
            if all(len(one) <= depth + 1 for one in steps):
                return depth
        return MAX_DEPTH

    def _grouped(self) -> dict[Form, dict[Option, I64]]:
        """Return for each form its options, and which of the rows each of these holds."""
        found: dict[Form, dict[Option, list[int]]] = {}
        for at, (department, category, brand) in enumerate(
            zip(self.departments, self.categories, self.brands, strict=True)
        ):
            entries = [(Form("departments"), Option("category", department))]
            if category is not None:
                entries.append((Form("categories", department), Option("category", category)))
            if brand:
                entries.append((Form("brands", department), Option("brand", brand)))
            for form, option in entries:
                found.setdefault(form, {}).setdefault(option, []).append(at)
        return {
            form: {option: np.array(places) for option, places in options.items()}
            for form, options in found.items()
        }

    def form(self, question_id: str) -> Form | None:
        """Return the form with an id, or ``None``."""
        return self._forms.get(question_id)

    def single(self, question_id: str) -> Option | None:
        """Return what the question with an id asks about alone, or ``None``."""
        return self._singles.get(question_id)

    def options(self, form: Form) -> Mapping[Option, I64]:
        """Return the options of a form, each with the places of its items, best first."""
        return self._members[form]

    @property
    def forms(self) -> Iterable[Form]:
        """All forms."""
        return self._members

    def nameable(self, naming: Naming) -> Mask:
        """Return which of the rows may be named."""
        if not naming:
            return np.ones(len(self.rows), dtype=bool)
        known = {path: naming.may_name_category(path) for path in set(self.paths)}
        return np.array([known[path] for path in self.paths], dtype=bool)


class BankKeeper:
    """The bank of a process: made again when another model or other categories serve.

    What is sold under a known path changes with trainings only; a brand that an item gets between
    two of them is asked about after the second.
    """

    def __init__(self) -> None:
        self._kept: tuple[str, npt.NDArray[np.int32], Bank] | None = None

    def known(self, snapshot: Snapshot) -> Bank | None:
        """Return the bank if it is still right."""
        if self._kept is None:
            return None
        version, codes, bank = self._kept
        same = version == snapshot.model.version
        if same and np.may_share_memory(codes, snapshot.catalogue.category_codes):
            return bank
        return None

    def of(self, snapshot: Snapshot) -> Bank:
        """Return the bank, made now if it must be."""
        bank = self.known(snapshot)
        if bank is None:
            bank = Bank(snapshot)
            self._kept = (snapshot.model.version, snapshot.catalogue.category_codes, bank)
        return bank
