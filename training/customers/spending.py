"""What customers spend on a day of purchases: the gamma-gamma model.

Amounts of one customer vary around a mean by a gamma distribution, and the scale of those differs
between customers by another. Fader, Hardie and Lee (2005), "RFM and CLV: using iso-value curves for
customer base analysis", Journal of Marketing Research 42(4), 415-430; formulas from Fader and
Hardie (2013), "The gamma-gamma model of monetary value". It takes for granted that how much a
customer spends at a time does not depend on how often; ``docs/customers.md`` has the correlation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln

from training.customers.purchasing import PRIOR_SD

F64 = npt.NDArray[np.float64]

_BOUND = 12.0
_MIN_Q = 1.05


@dataclass(frozen=True, slots=True)
class SpendModel:
    """A fitted model.

    Parameters
    ----------
    p : float
        Shape of the distribution of one customer's amounts.
    q, gamma : float
        Shape and rate of the distribution of their scales; q is at least 1.05, since the mean of
        all customers does not exist below 1.
    log_likelihood : float
        Of the customers that it was fitted on, without the prior.
    """

    p: float
    q: float
    gamma: float
    log_likelihood: float

    def expected(self, count: F64, mean: F64) -> F64:
        """Return each customer's expected amount: equation 5 of Fader and Hardie (2013).

        Parameters
        ----------
        count : ndarray of float64, shape (n,)
            Amounts that are known; with 0 the mean of all customers is the answer.
        mean : ndarray of float64, shape (n,)
            Their mean.
        """
        weight = self.p * count
        known = np.where(count > 0, mean, 0.0)
        expected: F64 = self.p * (self.gamma + count * known) / (weight + self.q - 1.0)
        return expected


def fit_spend(count: F64, mean: F64) -> SpendModel:
    """Estimate the parameters by maximum likelihood (with a faint prior).

    Parameters
    ----------
    count : ndarray of float64, shape (n,)
        Amounts of each customer, at least 1.
    mean : ndarray of float64, shape (n,)
        Their mean, above 0; the currency is free.

    Raises
    ------
    ValueError
        If there is no customer, or a mean that is not above 0.
    """
    if len(count) == 0 or not (mean > 0).all():
        raise ValueError("amounts above 0 of at least one customer are needed")
    unit = float(np.median(mean))
    scaled = mean / unit

    def loss(logs: F64) -> float:
        prior = float(np.sum(logs**2)) / (2.0 * PRIOR_SD**2)
        return (prior - float(_log_likelihoods(logs, count, scaled).sum())) / len(count)

    bounds = [(-_BOUND, _BOUND), (float(np.log(_MIN_Q)), _BOUND), (-_BOUND, _BOUND)]
    best: Any = minimize(loss, np.array([0.5, 1.0, 1.0]), method="L-BFGS-B", bounds=bounds)
    p, q, gamma = (float(value) for value in np.exp(best.x))
    logs = np.log([p, q, gamma * unit])
    return SpendModel(p, q, gamma * unit, float(_log_likelihoods(logs, count, mean).sum()))


def _log_likelihoods(logs: F64, count: F64, mean: F64) -> F64:
    """Return each customer's log-likelihood: equation 1a of Fader and Hardie (2013)."""
    p, q, gamma = np.exp(logs)
    counts, at = np.unique(count, return_inverse=True)
    shape = p * counts
    of_count = gammaln(shape + q) - gammaln(shape) - gammaln(q) + shape * np.log(counts)
    result: F64 = (
        of_count[at]
        + q * np.log(gamma)
        + (p * count - 1.0) * np.log(mean)
        - (p * count + q) * np.log(gamma + mean * count)
    )
    return result
