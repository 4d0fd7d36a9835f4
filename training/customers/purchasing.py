"""How often customers buy, and when they stop: the BG/NBD model and its modified form.

While alive a customer buys at a constant rate, and after a purchase may be gone for ever. Rates
differ between customers by a gamma distribution, the chance of being gone by a beta distribution.
Fader, Hardie and Lee (2005), "Counting your customers the easy way: an alternative to the
Pareto/NBD model", Marketing Science 24(2), 275-284: BG/NBD. There nobody can stop before the
second purchase, so whoever bought once is alive for ever. Batislam, Denizel and Filiztekin (2007),
"Empirical validation and comparison of models for customer base analysis", International Journal of
Research in Marketing 24(3), 201-209, let the first purchase be the last too (MBG/NBD); it fits
shops with many customers who bought once, and it is what we use.

No library that is kept is light enough: ``lifetimes`` and ``btyd`` are no longer maintained, and
``pymc-marketing`` brings PyMC. ``docs/customers.md`` says how this file was checked against one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaincinv, betaln, gammaln, hyp2f1

F64 = npt.NDArray[np.float64]

PRIOR_SD = 5.0
"""Standard deviation of a normal prior on the logarithm of each parameter, so that a small shop
has an estimate too; it has no weight worth mentioning from a hundred customers on."""
_BOUND = 12.0
_NEAR = 1e-6
_POINTS = 200
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Repeats:
    """What the model needs to know of n customers.

    Parameters
    ----------
    count : ndarray of float64, shape (n,)
        Purchases after the first one: x.
    last : ndarray of float64, shape (n,)
        Time from the first purchase to the last one: t_x; 0 where there was only one.
    age : ndarray of float64, shape (n,)
        Time from the first purchase to now: T, at least `last`.
    """

    count: F64
    last: F64
    age: F64

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True, slots=True)
class PurchaseProcess:
    """A fitted model. Times are in the unit in which it was fitted.

    Parameters
    ----------
    r, alpha : float
        Shape and rate of the gamma distribution of the purchase rates.
    a, b : float
        Of the beta distribution of the chance to be gone after a purchase.
    modified : bool
        Whether the first purchase can be the last: MBG/NBD, otherwise BG/NBD.
    log_likelihood : float
        Of the customers that it was fitted on, without the prior.
    """

    r: float
    alpha: float
    a: float
    b: float
    modified: bool
    log_likelihood: float

    def alive(self, known: Repeats) -> F64:
        """Return the probability that each customer is not gone.

        BG/NBD: Fader and Hardie (2008), "Computing P(alive) using the BG/NBD model"; MBG/NBD:
        Batislam et al. (2007).
        """
        odds_gone = np.exp(np.minimum(_log_odds_gone(_logs(self), known, self.modified), 700.0))
        alive: F64 = 1.0 / (1.0 + odds_gone)
        return alive

    def expected(self, known: Repeats, horizon: float) -> F64:
        """Return the expected purchases of each customer in the time from now to `horizon`.

        Equation 10 of Fader, Hardie and Lee (2005). Euler's transformation of its hypergeometric
        function takes the power of a large number out of it, which would overflow for customers
        with hundreds of purchases.
        """
        offset = float(self.modified)
        # At a = 1 the formula is 0/0, and where r - a is whole scipy's function loses its digits;
        # beside them the formula is smooth.
        a = self.a
        while abs(a - 1.0) < _NEAR or abs(self.r - a - round(self.r - a)) < _NEAR:
            a += 2.0 * _NEAR
        z = horizon / (self.alpha + known.age + horizon)
        total = a + self.b + known.count - 1.0 + offset
        with np.errstate(over="ignore", invalid="ignore"):
            hyper = hyp2f1(a + self.b - 1.0 + offset - self.r, a - 1.0, total, z)
            while_alive = total / (a - 1.0) * (1.0 - (1.0 - z) ** (a - 1.0) * hyper)
        lost = np.flatnonzero(~np.isfinite(while_alive))
        if len(lost):
            some = Repeats(known.count[lost], known.last[lost], known.age[lost])
            while_alive[lost] = self.expected_while_alive(some, horizon)
        expected: F64 = np.maximum(while_alive, 0.0) * self.alive(known)
        return expected

    def expected_while_alive(self, known: Repeats, horizon: float) -> F64:
        """Return the expected purchases of each customer who is certainly not gone, by an integral.

        With the chance p to be gone after a purchase and the rate l it is (1 - exp(-l p t)) / p;
        l has the gamma distribution of `none_within`, p the beta distribution of who has had x (in
        the modified form x + 1) chances to go and did not. For parameters beyond the range of the
        hypergeometric function; two or three digits are right.
        """
        shape, rate = self.r + known.count, self.alpha + known.age
        survived = self.b + known.count + float(self.modified)
        total = np.zeros(len(known))
        # Denser towards small p, where those who stay long are.
        for at in (np.arange(_POINTS) + 0.5) / _POINTS:
            p = np.maximum(betaincinv(self.a, survived, at**3), _LEAST)
            total -= 3.0 * at**2 * np.expm1(-shape * np.log1p(p * horizon / rate)) / p
        return total / _POINTS

    def none_within(self, known: Repeats, horizon: float) -> F64:
        """Return the probability that each customer buys nothing in the time to `horizon`.

        Customers stop only at a purchase. So those who are alive buy none with the probability of
        a Poisson process whose rate has the gamma distribution with shape r + x and rate alpha + T.
        """
        shape = self.r + known.count
        still = (1.0 + horizon / (self.alpha + known.age)) ** -shape
        none: F64 = 1.0 - self.alive(known) * (1.0 - still)
        return none

    def interval(self, known: Repeats) -> F64:
        """Return the mean time between purchases while active, drawn towards the shop's mean.

        The customer's own intervals, x of them in the time t_x, and r more that took alpha.
        """
        interval: F64 = (self.alpha + known.last) / (self.r + known.count)
        return interval


def fit_process(
    known: Repeats, weights: F64 | None = None, *, modified: bool = True
) -> PurchaseProcess:
    """Estimate the parameters by maximum likelihood (with the faint prior of `PRIOR_SD`).

    Parameters
    ----------
    known : Repeats
        Of n customers; the time unit is free.
    weights : ndarray of float64, shape (n,), optional
        How many customers each row stands for; one by default.
    modified : bool
        MBG/NBD, otherwise BG/NBD.

    Raises
    ------
    ValueError
        If there is no customer, or no time between purchases.
    """
    counts = np.ones(len(known)) if weights is None else weights
    if len(known) == 0 or known.age.max() <= 0:
        raise ValueError("purchases of at least one customer over some time are needed")
    # Near one, the four parameters have gradients of like size.
    unit = float(known.age.max()) / 10.0
    scaled = Repeats(known.count, known.last / unit, known.age / unit)
    total = float(counts.sum())

    def loss(logs: F64) -> float:
        prior = float(np.sum(logs**2)) / (2.0 * PRIOR_SD**2)
        return (prior - float(counts @ _log_likelihoods(logs, scaled, modified))) / total

    best: Any = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-_BOUND, _BOUND)] * 4)
    r, alpha, a, b = (float(value) for value in np.exp(best.x))
    fitted = PurchaseProcess(r, alpha * unit, a, b, modified, 0.0)
    likelihood = float(counts @ _log_likelihoods(_logs(fitted), known, modified))
    return PurchaseProcess(r, alpha * unit, a, b, modified, likelihood)


def _logs(process: PurchaseProcess) -> F64:
    return np.log([process.r, process.alpha, process.a, process.b])


def _log_likelihoods(logs: F64, known: Repeats, modified: bool) -> F64:
    """Return each customer's log-likelihood: equation 6 of Fader, Hardie and Lee (2005).

    MBG/NBD has one more chance to stop, which adds one to the exponents of the beta distribution.
    """
    r, alpha, a, b = np.exp(logs)
    offset = float(modified)
    # Few counts are distinct; gamma functions are what costs.
    counts, at = np.unique(known.count, return_inverse=True)
    of_count = gammaln(r + counts) - gammaln(r) + r * np.log(alpha)
    of_count += betaln(a, b + counts + offset) - betaln(a, b)
    survived = -(r + known.count) * np.log(alpha + known.age)
    either = survived + np.logaddexp(0.0, _log_odds_gone(logs, known, modified))
    result: F64 = of_count[at] + either
    return result


def _log_odds_gone(logs: F64, known: Repeats, modified: bool) -> F64:
    """Return the logarithm of the odds that a customer is gone; -inf for never."""
    r, alpha, a, b = np.exp(logs)
    chances = b + known.count - (0.0 if modified else 1.0)
    # Without a second purchase BG/NBD knows no chance to stop; the bound is for the logarithm.
    possible = modified | (known.count > 0)
    odds = np.log(a) - np.log(np.where(possible, chances, 1.0))
    odds = odds + (r + known.count) * (np.log(alpha + known.age) - np.log(alpha + known.last))
    result: F64 = np.where(possible, odds, -np.inf)
    return result
