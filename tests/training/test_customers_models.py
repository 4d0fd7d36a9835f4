"""The models of when and how much customers buy, against published answers, a simulation, laws.

``cdnow.csv`` is the CDNOW sample of Fader and Hardie: 2,357 customers of a music shop who first
bought in early 1997, after 39 weeks. Columns: how many customers, purchases after the first, day of
the last one and day of today counted from the first, mean dollars of the repeat purchases.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training.customers.purchasing import F64, PurchaseProcess, Repeats, fit_process
from training.customers.spending import SpendModel, fit_spend

CDNOW = np.genfromtxt(Path(__file__).parent / "cdnow.csv", delimiter=",", skip_header=1)
WEEKS = Repeats(CDNOW[:, 1], CDNOW[:, 2] / 7, CDNOW[:, 3] / 7)
PUBLISHED = PurchaseProcess(0.243, 4.414, 0.793, 2.426, modified=False, log_likelihood=-9582.4)
"""Table 2 of Fader, Hardie and Lee (2005)."""


def one(count: float, last: float, age: float) -> Repeats:
    return Repeats(np.array([count]), np.array([last]), np.array([age]))


def test_bg_nbd_has_the_published_parameters() -> None:
    assert CDNOW[:, 0].sum() == 2357
    fitted = fit_process(WEEKS, CDNOW[:, 0], modified=False)
    assert fitted.log_likelihood == pytest.approx(PUBLISHED.log_likelihood, abs=0.05)
    for name in ("r", "alpha", "a", "b"):
        assert getattr(fitted, name) == pytest.approx(getattr(PUBLISHED, name), rel=5e-3)


def test_bg_nbd_expects_what_the_authors_worked_out() -> None:
    """The customer of their spreadsheet: two purchases, the last in week 30.43 of 38.86."""
    assert PUBLISHED.expected(one(2, 30.43, 38.86), 39) == pytest.approx(1.226, abs=5e-4)
    # Their model gives up nobody who bought once.
    assert PUBLISHED.alive(one(0, 0, 38.86)) == 1


def test_mbg_nbd_agrees_with_another_fit() -> None:
    """Estimates of the library lifetimes 0.11.3 on the same customers (docs/customers.md)."""
    fitted = fit_process(WEEKS, CDNOW[:, 0])
    assert fitted.log_likelihood == pytest.approx(-9582.13, abs=0.02)
    for name, value in {"r": 0.524838, "alpha": 6.182988, "a": 0.891356, "b": 1.614}.items():
        assert getattr(fitted, name) == pytest.approx(value, rel=5e-3)
    theirs = PurchaseProcess(0.524838, 6.182988, 0.891356, 1.614, True, 0.0)
    assert theirs.expected(one(2, 30.43, 38.86), 39) == pytest.approx(1.2626708, rel=1e-6)
    assert theirs.alive(one(2, 30.43, 38.86)) == pytest.approx(0.7061263, rel=1e-6)
    assert theirs.alive(one(0, 0, 38.86)) < 0.7


def test_gamma_gamma_has_the_published_parameters() -> None:
    """P = 6.25, q = 3.74, gamma = 15.44: Fader and Hardie (2013), section 4."""
    some = CDNOW[CDNOW[:, 1] > 0]
    each = np.repeat(some, some[:, 0].astype(int), axis=0)
    assert len(each) == 946
    fitted = fit_spend(each[:, 1], each[:, 4])
    assert fitted.p == pytest.approx(6.25, rel=6e-3)
    assert fitted.q == pytest.approx(3.74, rel=6e-3)
    assert fitted.gamma == pytest.approx(15.44, rel=6e-3)
    # Estimates of lifetimes have the same likelihood.
    assert fitted.log_likelihood == pytest.approx(-4055.923, abs=2e-3)
    # Somebody of whom nothing is known spends the mean of all: p gamma / (q - 1).
    mean = fitted.p * fitted.gamma / (fitted.q - 1)
    assert fitted.expected(np.zeros(1), np.zeros(1)) == pytest.approx(mean)
    assert 35 < mean < 36


def simulated(
    n: int, truth: PurchaseProcess, horizon: float, rng: np.random.Generator
) -> tuple[Repeats, F64]:
    """Return customers who behave as the model says, and what they buy in the time after."""
    ages = rng.uniform(100, 300, n)
    rates = rng.gamma(truth.r, 1 / truth.alpha, n)
    chances = rng.beta(truth.a, truth.b, n)
    count, last, later = np.zeros(n), np.zeros(n), np.zeros(n)
    for at in range(n):
        time, alive = 0.0, not truth.modified or rng.random() >= chances[at]
        while alive:
            time += rng.exponential(1 / rates[at])
            if time > ages[at] + horizon:
                break
            if time <= ages[at]:
                count[at], last[at] = count[at] + 1, time
            else:
                later[at] += 1
            alive = rng.random() >= chances[at]
    return Repeats(count, last, ages), later


@pytest.mark.parametrize("modified", [False, True])
def test_what_made_the_data_is_found_again(modified: bool) -> None:
    truth = PurchaseProcess(0.8, 12.0, 1.3, 6.0, modified, 0.0)
    known, later = simulated(20_000, truth, 90.0, np.random.default_rng(4))
    fitted = fit_process(known, modified=modified)
    for name in ("r", "alpha", "a", "b"):
        assert getattr(fitted, name) == pytest.approx(getattr(truth, name), rel=0.12)
    # What is expected comes, in all and for those who bought much or little.
    expected, none = fitted.expected(known, 90), fitted.none_within(known, 90)
    for some in (slice(None), known.count == 0, known.count >= 10, fitted.alive(known) < 0.3):
        came, nothing = later[some], later[some] == 0
        for said, seen in ((expected[some], came), (none[some], nothing)):
            chance = 3.5 * seen.std() / np.sqrt(len(seen))
            assert said.mean() == pytest.approx(seen.mean(), abs=chance)
            assert chance < 0.16 * (seen.mean() + 0.5)


def test_spend_that_was_made_up_is_found_again() -> None:
    rng = np.random.default_rng(5)
    count = rng.integers(1, 20, 200_000).astype(float)
    scales = rng.gamma(4.0, 1 / 50.0, len(count))
    mean = rng.gamma(2.0 * count, 1 / scales) / count
    fitted = fit_spend(count, mean)
    assert fitted.p == pytest.approx(2.0, rel=0.05)
    assert fitted.q == pytest.approx(4.0, rel=0.05)
    assert fitted.gamma == pytest.approx(50.0, rel=0.06)
    # Between the customer's own mean and that of all, nearer to one's own with every purchase.
    few, many = fitted.expected(np.array([1.0, 100.0]), np.array([500.0, 500.0]))
    assert mean.mean() < few < many < 500


@given(
    r=st.floats(0.01, 50), alpha=st.floats(0.1, 1000), a=st.floats(0.01, 30),
    b=st.floats(0.05, 1000), modified=st.booleans(), count=st.integers(0, 900),
    age=st.integers(0, 3000), part=st.floats(0, 1),
)  # fmt: skip
@example(r=3.98165, alpha=0.5, a=3.98165, b=18.0, modified=False, count=0, age=0, part=0.0)
@example(r=2.0, alpha=1.0, a=1.0, b=1.0, modified=False, count=0, age=0, part=0.0)
@settings(deadline=None, max_examples=150)
def test_laws_of_the_purchase_process(
    r: float, alpha: float, a: float, b: float, modified: bool, count: int, age: int, part: float
) -> None:
    process = PurchaseProcess(r, alpha, a, b, modified, 0.0)
    known = one(count, part * age if count else 0, age)
    alive = process.alive(known)
    expected = [float(process.expected(known, days)[0]) for days in (1, 30, 365)]
    none = [float(process.none_within(known, days)[0]) for days in (1, 30, 365)]
    assert 0 <= alive[0] <= 1
    assert expected == sorted(expected)
    assert none == sorted(none, reverse=True)
    assert all(0 <= value <= 1 + 1e-12 for value in none)
    # Chance of at least one (Markov), and no more than somebody who never stops.
    rate = (r + count) / (alpha + age)
    for days, mean, nothing in zip((1, 30, 365), expected, none, strict=True):
        assert 1 - nothing <= mean * (1 + 1e-6) + 1e-9
        assert mean <= rate * days * (1 + 1e-6)
    # The closed form and the integral are two ways to one number.
    integral = float(process.expected_while_alive(known, 365)[0] * alive[0])
    assert expected[2] == pytest.approx(integral, rel=0.02, abs=1e-6)


def test_parameters_beyond_the_range_of_the_closed_form() -> None:
    """Values of mpmath with 40 digits, where scipy's hypergeometric function overflows."""
    rows = [
        (0.0633, 0.0393, 10.3, 18900.0, False, 30, 0, 90, 2035.3728),
        (80.5, 0.0805, 2690.0, 9590.0, False, 0, 0, 365, 4.5663816),
        (0.0172, 0.619, 5960.0, 13500.0, True, 0, 30, 90, 0.024356518),
    ]
    for r, alpha, a, b, modified, count, age, days, right in rows:
        process = PurchaseProcess(r, alpha, a, b, modified, 0.0)
        found = process.expected(one(count, 0, age), days)
        assert found == pytest.approx(right, rel=2e-3)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Repeats(np.zeros(0), np.zeros(0), np.zeros(0)), "at least one customer"),
        (one(0, 0, 0), "over some time"),
    ],
)
def test_nothing_to_learn_from(known: Repeats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_process(known)


def test_no_amounts_to_learn_from() -> None:
    for amounts in (np.zeros(0), np.array([0.0])):
        with pytest.raises(ValueError, match="above 0"):
            fit_spend(np.ones(len(amounts)), amounts)


@pytest.mark.parametrize("n", [1, 3])
def test_few_and_equal_customers_have_an_estimate(n: int) -> None:
    """The prior keeps it finite; the shop's own code asks for fifty who came back."""
    fitted = fit_process(Repeats(np.full(n, 3.0), np.full(n, 21.0), np.full(n, 28.0)))
    assert 0 < fitted.expected(one(3, 21, 28), 28)[0] < 6
    spend = fit_spend(np.full(n, 3.0), np.full(n, 20.0))
    assert isinstance(spend, SpendModel)
    assert 10 < spend.expected(np.array([3.0]), np.array([20.0]))[0] < 25
