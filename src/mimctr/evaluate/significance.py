"""Is a difference of AUC real? A paired bootstrap over users, joined with the spread over seeds.

Two things make a measured gain uncertain: which users the test part happens to hold, and which seed the models were
trained with. The first is measured by resampling users, the same resample for every model (their errors are alike, so
only a paired test sees small gains). The second is the spread of the gain over seeds. Their variances add:

    se^2 = var_users(mean gain) + sd_seeds^2 / num_seeds

and the interval is Student's, with the Welch-Satterthwaite degrees of freedom: wide when it rests on two seeds.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from numpy import ndarray

from mimctr.errors import DataError

NORMAL_FROM = 1e6
"""Degrees of freedom from which Student's distribution is taken for the normal one (they differ by 1e-6)."""
MOST_LOST = 0.1
"""Share of resamples that may hold one class only before no interval is given."""


class Difference(NamedTuple):
    """A pooled difference of AUC between two models, with its uncertainty."""

    mean: float
    """Mean over seeds."""
    sd: float | None
    """Standard deviation over seeds (n - 1); None for one seed."""
    standard_error: float | None
    """Over users and seeds; None where the resamples say nothing (see :func:`pool`)."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    p_value: float | None
    """Two-sided, for "no difference"."""


def resample_users(num_users: int, *, num_resamples: int, seed: int) -> Int[ndarray, "resamples users"]:
    """Return how often each user is drawn in each bootstrap resample, int16."""
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_users), dtype=np.int16)
    for row in counts:
        row[:] = np.bincount(generator.integers(num_users, size=num_users), minlength=num_users)
    return counts


def resampled_auc(
    labels: Shaped[ndarray, "rows"],
    scores: Num[ndarray, "rows"],
    users: Int[ndarray, "rows"],
    counts: Int[ndarray, "resamples users"],
) -> Float[ndarray, "resamples"]:
    """Return the AUC in each resample of users, ties one half; NaN where a resample holds one class only.

    One sort for all resamples; each then costs O(n).

    Args:
        labels: 0/1 or bool.
        scores: Anything increasing in the click probability.
        users: Column of ``counts`` of each row's user.
        counts: From :func:`resample_users`. The same counts for two models make the test paired.
    """
    order = np.argsort(scores, kind="stable")
    score, user = scores[order], users[order]
    negative = (labels[order] == 0).astype(np.float64)
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])  # one run per distinct score
    result = np.empty(len(counts))
    for index, count in enumerate(counts):
        weight = count[user].astype(np.float64)
        weight_negative = weight * negative
        weight_positive = weight - weight_negative
        if len(starts) < len(score):
            weight_negative = np.add.reduceat(weight_negative, starts)
            weight_positive = np.add.reduceat(weight_positive, starts)
        below = np.cumsum(weight_negative) - weight_negative / 2
        pairs = weight_positive.sum() * weight_negative.sum()
        result[index] = (
            (weight_positive * below).sum() / pairs if pairs else np.nan
        )  # no BLAS: its threads stall
    return result


def pool(
    values: Float[ndarray, "seeds"], draws: Float[ndarray, "seeds resamples"], *, confidence: float = 0.95
) -> Difference:
    """Return the mean difference over seeds with its interval over users and seeds.

    With one seed the interval is over users only. Without resamples, or where more than a tenth of them hold one class
    only, there is no interval.

    Args:
        values: Difference (other minus base) per seed.
        draws: The same difference in each resample of users; the resamples are shared by the seeds.
        confidence: Share of intervals that are to hold the true difference.

    Raises:
        DataError: there is no seed.
    """
    num_seeds = len(values)
    if num_seeds == 0:
        raise DataError("pool: there is no difference to pool. Give one per seed.")
    mean = float(values.mean())
    sd = float(values.std(ddof=1)) if num_seeds > 1 else None
    known = ~np.isnan(draws).any(axis=0)
    if known.sum() < 2 or known.mean() < 1 - MOST_LOST:
        return Difference(mean, sd, None, None, None, None)
    of_users = float(draws[:, known].mean(axis=0).var(ddof=1))
    of_seeds = sd**2 / num_seeds if sd is not None else 0.0
    variance = of_users + of_seeds
    degrees = (num_seeds - 1) * (variance / of_seeds) ** 2 if of_seeds else math.inf
    error = math.sqrt(variance)
    reach = student_quantile(confidence, degrees) * error
    return Difference(mean, sd, error, mean - reach, mean + reach, two_sided(mean, error, degrees))


def two_sided(difference: float, standard_error: float, degrees: float = math.inf) -> float:
    """Return the p-value of a difference whose estimate is Student's around 0, or normal; without error it is sure."""
    if standard_error == 0:
        return 1.0 if difference == 0 else 0.0
    return student_outside(abs(difference) / standard_error, degrees)


def student_inside(t: float, degrees: float) -> float:
    """Return P(\\|T\\| < t) for Student's distribution, by quadrature of cos(angle)^(degrees - 1).

    Args:
        t: At least 0.
        degrees: Degrees of freedom, at least 1, infinity allowed.
    """
    if degrees >= NORMAL_FROM:
        return math.erf(t / math.sqrt(2))
    # With x = sqrt(degrees) tan(angle) the density is a power of a cosine. It vanishes beyond ~10 / sqrt(degrees).
    last = min(math.pi / 2, 20 / math.sqrt(degrees))
    angle = min(math.atan(t / math.sqrt(degrees)), last)
    return _cosine_power(angle, degrees - 1) / _cosine_power(last, degrees - 1)


def student_outside(t: float, degrees: float) -> float:
    """Return P(\\|T\\| > t): never below 0, where the quadrature of the inside rounds to a little more than 1."""
    if degrees >= NORMAL_FROM:
        return math.erfc(t / math.sqrt(2))
    return max(1 - student_inside(t, degrees), 0.0)


def student_quantile(inside: float, degrees: float) -> float:
    """Return the t with P(\\|T\\| < t) = ``inside``, by bisection."""
    low, high = 0.0, 1.0
    while student_inside(high, degrees) < inside:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if student_inside(middle, degrees) < inside:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _cosine_power(end: float, power: float) -> float:
    """Integrate cos(x)^power from 0 to ``end`` with 100 Gauss-Legendre points."""
    nodes, weights = _legendre()
    return float(end / 2 * (weights @ np.cos(end / 2 * (nodes + 1)) ** power))


@cache
def _legendre() -> tuple[Float[ndarray, "points"], Float[ndarray, "points"]]:
    return np.polynomial.legendre.leggauss(100)
