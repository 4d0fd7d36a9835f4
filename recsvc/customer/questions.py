"""Which closed question to ask a person next, and which are not asked at all.

Consent comes first where the site needs it; then the question about taste whose answer says most
about what the person will buy (``question_bank.gains``). What is known, was answered or is never
named is not asked. Who refuses profiling is asked nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_store.preferences import Preferences, ProfilingDefault
from recsvc.customer.hiding import hidden
from recsvc.customer.question_bank import STEP, Bank, Form, Option, gains
from recsvc.explaining.naming import Naming
from recsvc.merchandising.placements import PRODUCTS
from recsvc.ranking.history import History
from recsvc.ranking.starts import Start
from recsvc.snapshot import Snapshot

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONSENT, MAIL = "consent_profiling", "email_frequency"
YES, NO, SKIP = "yes", "no", "skip"
FREQUENCIES = {f"days_{days}": days for days in (1, 7, 14, 30)}
MOST_OPTIONS = 8
KNOWN = 0.8
"""From this chance of a yes on, what somebody did has answered already."""
COMMON = 0.95
"""A department that so many will choose says nothing of them, but what they choose of it does."""
LEAST_GAIN = 1e-4
"""In nats: below, no question is worth the time of whoever is asked."""

Because = Literal["consent", "mail", "new", "chosen", "known", "common"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question, ready to be put into words.

    Parameters
    ----------
    question_id : str
        Names it for good.
    kind : {"choice", "yes_no", "consent"}
        What it looks like.
    form : Form or None
        What it asks about, if that is taste.
    options : tuple of Option
        What can be chosen, of a question about taste.
    rows : tuple of int
        A catalogue row that shows each of the options.
    because : str
        Why it is asked.
    gain : float
        Expected fall of the entropy of the next choice, in nats; 0 where taste is not asked about.
    """

    question_id: str
    kind: Literal["choice", "yes_no", "consent"]
    because: Because
    form: Form | None = None
    options: tuple[Option, ...] = ()
    rows: tuple[int, ...] = ()
    gain: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the taste of whoever is asked.

    Parameters
    ----------
    preferences : Preferences
        What they decided.
    history : History
        What they did; empty for somebody new.
    start : Start or None
        Where they start, if they did nothing yet.
    """

    preferences: Preferences
    history: History
    start: Start | None = None

    @property
    def liked(self) -> frozenset[str]:
        """Categories and brands that they follow or are interested in."""
        said = self.preferences
        return said.interests | said.followed_categories | said.followed_brands

    @property
    def settled(self) -> frozenset[str]:
        """Those that need no question."""
        said = self.preferences
        disowned = {one.name for one in said.disowned if one.kind in ("category", "brand")}
        return self.liked | said.hidden_categories | said.hidden_brands | disowned

    def has_answered(self, question_id: str) -> bool:
        """Tell whether a question was answered or skipped."""
        return any(one.question_id == question_id for one in self.preferences.answered)


class Asking:
    """Chooses questions about taste for one person.

    Parameters
    ----------
    bank : Bank
        What can be asked.
    snapshot : Snapshot
        What serves.
    known : Known
        What is known of the person.
    allowed : ndarray of bool, shape (n,)
        Which of the bank's items may be shown and named to the person.
    """

    def __init__(self, bank: Bank, snapshot: Snapshot, known: Known, allowed: Mask) -> None:
        self._bank, self._known = bank, known
        self._settled = {name.lower() for name in known.settled}
        weights = bank.weights * allowed
        if known.start is not None and len(bank.rows):
            at, factors = snapshot.model.placed(bank.rows)
            lifts = np.zeros(len(bank.rows))
            lifts[np.isin(bank.rows, at)] = known.start.scores(at, factors)
            weights = weights * np.exp(lifts - lifts.max())
        self._weights: F64 = weights / max(float(weights.sum()), 1e-12)
        own = np.log(known.history.weights + np.float32(1)).astype(np.float64)
        self._n_mine = float(own.sum())
        # Of what somebody did, what is not among the popular items belongs to no option.
        self._mine: F64 = np.zeros(len(bank.rows))
        if len(own):
            rows = known.history.rows
            at = np.minimum(np.searchsorted(rows, bank.rows), len(own) - 1)
            found = rows[at] == bank.rows
            self._mine[found] = own[at[found]]

    def first(self) -> Question | None:
        """Return the question about all departments, or ``None`` if it is not worth asking."""
        return self._best([form for form in self._bank.forms if form.inside is None])

    def best(self) -> Question | None:
        """Return the question that is worth most, or ``None`` if none is worth anything."""
        return self._best(self._bank.forms)

    def _best(self, forms: Iterable[Form]) -> Question | None:
        found = [self.of(form) for form in forms if self._is_open(form)]
        worth = [
            one
            for one in found
            if one.gain >= LEAST_GAIN and not self._known.has_answered(one.question_id)
        ]
        return max(worth, key=lambda one: one.gain, default=None)

    def of(self, form: Form) -> Question:
        """Return a form with the options that are worth asking, the best first."""
        members = self._bank.options(form)
        options = list(members)
        shares = np.array([float(self._weights[at].sum()) for at in members.values()])
        mine = np.array([float(self._mine[at].sum()) for at in members.values()])
        gain, likely = gains(shares, mine, self._n_mine)
        settled = np.array([self._is_settled(option) for option in options], dtype=bool)
        known = (mine > 0) & (likely >= KNOWN)
        gain[(shares <= 0) | known | settled] = 0
        order = np.argsort(-gain, kind="stable")
        best = order[gain[order] > 0][:MOST_OPTIONS].tolist()
        chosen = tuple(options[at] for at in best)
        rows = tuple(self._shown(members[option]) for option in chosen)
        total = float(gain[best].sum())
        if len(chosen) == 1:
            single = chosen[0].single_id
            return Question(single, "yes_no", self._because(form), form, chosen, rows, total)
        return Question(form.question_id, "choice", self._because(form), form, chosen, rows, total)

    def _shown(self, places: npt.NDArray[np.int64]) -> int:
        """Return the row of the most popular item of an option that may be shown."""
        return int(self._bank.rows[places[self._weights[places] > 0][0]])

    def _is_settled(self, option: Option) -> bool:
        return option.name.lower() in self._settled or option.text.lower() in self._settled

    def _is_open(self, form: Form) -> bool:
        """Tell whether a form may be asked: not answered, and inside what the person may like."""
        if self._known.has_answered(form.question_id):
            return False
        return form.inside is None or self._because(form) != "new"

    def _because(self, form: Form) -> Because:
        """Tell why somebody may like what a form is inside of; ``new`` if nothing says so."""
        if form.inside is None:
            return "new"
        if any(_is_in(name, form.inside) for name in self._known.liked):
            return "chosen"
        places = self._bank.options(Form("departments"))[Option("category", form.inside)]
        mine = np.array([float(self._mine[places].sum())])
        share = np.array([float(self._weights[places].sum())])
        _, likely = gains(share, mine, self._n_mine)
        if mine[0] > 0 and likely[0] >= KNOWN:
            return "known"
        refused = self._is_settled(Option("category", form.inside))
        return "common" if likely[0] >= COMMON and not refused else "new"


def _is_in(name: str, department: str) -> bool:
    """Tell whether what somebody likes is a department, or a category in it."""
    path, name = f"{STEP}{department}{STEP}".lower(), name.lower()
    return path.endswith(f"{STEP}{name}{STEP}") or f"{name}{STEP}".startswith(path[len(STEP) :])


def askable(
    bank: Bank, snapshot: Snapshot, preferences: Preferences, naming: Naming, now_s: int
) -> Mask:
    """Return which of the bank's items may be shown and named to a person, shape (n,)."""
    allowed = snapshot.catalogue.showable(now_s, PRODUCTS)[bank.rows] & bank.nameable(naming)
    if snapshot.recalled is not None:
        allowed &= ~snapshot.recalled[bank.rows]
    rows, mask = hidden(snapshot.catalogue, preferences, now_s)
    allowed &= ~np.isin(bank.rows, rows)
    if mask is not None:
        allowed &= ~mask[bank.rows]
    return allowed


def next_question(
    bank: Bank,
    snapshot: Snapshot,
    known: Known,
    allowed: Mask,
    *,
    profiled: bool,
    default: ProfilingDefault,
) -> Question | None:
    """Return what to ask a person next.

    Parameters
    ----------
    bank : Bank
        What can be asked about.
    snapshot : Snapshot
        What serves.
    known : Known
        What is known of the person; their preferences must be readable.
    allowed : ndarray of bool
        Result of `askable`.
    profiled : bool
        Whether the person may be profiled.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.

    Returns
    -------
    Question or None
        ``None`` for whoever refuses, and when nothing is worth asking.
    """
    said = known.preferences
    if not profiled:
        may_ask = default == "opt_in" and said.personalization and said.consent.profiling is None
        if not may_ask or known.has_answered(CONSENT):
            return None
        return Question(CONSENT, "consent", "consent")
    is_new = len(known.history.rows) == 0 and not known.liked
    asking = Asking(bank, snapshot, known, allowed)
    taste = (asking.first() if is_new else None) or asking.best()
    wants_mail = said.consent.email_marketing is True and said.email.frequency_days is None
    # To somebody of whom nothing is known, what they like comes before how often to write of it.
    if wants_mail and not known.has_answered(MAIL) and not (is_new and taste is not None):
        return Question(MAIL, "choice", "mail")
    return taste
