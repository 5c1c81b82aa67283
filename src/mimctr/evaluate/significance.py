"""Is a difference of AUC real? The spread over users, paired, joined with the spread over seeds.

Two things make a measured gain uncertain: which users the test part happens to hold, and which seed the models were
trained with. The first is measured by resampling users, the same resample for every model (their errors are alike, so
only a paired test sees small gains). The second is the spread of the gain over seeds. Their variances add:

    se^2 = var_users(mean gain) + sd_seeds^2 / num_seeds

and the interval is Student's, with the Welch-Satterthwaite degrees of freedom: wide when it rests on two seeds, or on
five users. In a resample, AUC is what it is to first order in how often each user was drawn
(:func:`~mimctr.evaluate.placements.influences`): a thousand resamples then cost one sort, and hold both classes.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.placements import Placements, influences, placements

NORMAL_FROM = 1e6
"""Degrees of freedom from which Student's distribution is taken for the normal one (they differ by 1e-6)."""
MOST_LOST = 0.1
"""Share of resamples that may have no value before no interval is given."""


class Difference(NamedTuple):
    """A pooled difference between two models, with its uncertainty."""

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


class Resampled(NamedTuple):
    """What was measured of one model or policy, and the same in each resample of users."""

    value: float
    draws: Float[ndarray, "resamples"]
    num_users: int
    """That it rests on; of an AUC the fewer of those with a click and those with a non-click."""


class BySeed(NamedTuple):
    """Something measured, one a seed, in the same resamples of users."""

    values: Float[ndarray, "seeds"]
    draws: Float[ndarray, "seeds resamples"]
    num_users: int
    """That it rests on."""

    def minus(self, other: "BySeed") -> "BySeed":
        """Return the difference, seed by seed and resample by resample."""
        return BySeed(
            self.values - other.values, self.draws - other.draws, min(self.num_users, other.num_users)
        )


def by_seed(seeds: Sequence[Resampled]) -> BySeed:
    """Return what was measured with each seed, together."""
    return BySeed(
        np.array([one.value for one in seeds]),
        np.stack([one.draws for one in seeds]),
        min(one.num_users for one in seeds),
    )


def mean_of(parts: Sequence[BySeed]) -> BySeed:
    """Return the mean of what was measured in several places, seed by seed and resample by resample."""
    values, draws, num_users = zip(*parts, strict=True)
    return BySeed(np.mean(values, axis=0), np.mean(draws, axis=0), min(num_users))


def resample_users(num_users: int, *, num_resamples: int, seed: int) -> Int[ndarray, "resamples users"]:
    """Return how often each user is drawn in each bootstrap resample, uint8."""
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_users), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(generator.integers(num_users, size=num_users), minlength=num_users)
    return counts


def resampled_sum(
    values: Float[ndarray, "users"], counts: Int[ndarray, "resamples users"]
) -> Float[ndarray, "resamples"]:
    """Return the sum over the users of each resample."""
    return np.einsum(
        "ru,u->r", counts, values, dtype=np.float64
    )  # no BLAS: its threads stall, and counts are bytes


def resampled_auc(
    labels: Shaped[ndarray, "rows"],
    scores: Num[ndarray, "rows"],
    users: Int[ndarray, "rows"],
    counts: Int[ndarray, "resamples users"],
) -> Resampled:
    """Return the AUC, ties one half, and to first order that in each resample of users. O(n log n).

    Args:
        labels: 0/1 or bool, both there.
        scores: Anything increasing in the click probability.
        users: Column of ``counts`` of each row's user.
        counts: From :func:`resample_users`. The same counts for two models make the test paired.
    """
    clicked = labels.astype(bool)
    return resampled_placements(placements(clicked, scores), users[clicked], users[~clicked], counts)


def resampled_placements(
    placed: Placements,
    users_of_clicks: Int[ndarray, "clicks"],
    users_of_non_clicks: Int[ndarray, "non_clicks"],
    counts: Int[ndarray, "resamples users"],
) -> Resampled:
    """Return what :func:`resampled_auc` does, of impressions that are ranked already."""
    num_users = counts.shape[1]
    changes = influences(placed, users_of_clicks, users_of_non_clicks, num_users)
    rests_on = min(
        int((np.bincount(users, minlength=num_users) > 0).sum())
        for users in (users_of_clicks, users_of_non_clicks)
    )
    return Resampled(placed.auc, placed.auc + resampled_sum(changes, counts), rests_on)


def pool(measured: BySeed, *, confidence: float = 0.95) -> Difference:
    """Return the mean over seeds with its interval over users and seeds.

    With one seed the interval is over users only. Without resamples, with fewer than two users, or where more than a
    tenth of the resamples have no value, there is no interval.

    Args:
        measured: Differences usually, other minus base.
        confidence: Share of intervals that are to hold the true difference.

    Raises:
        DataError: there is no seed.
    """
    values, draws, num_users = measured
    num_seeds = len(values)
    if num_seeds == 0:
        raise DataError("pool: there is no difference to pool. Give one per seed.")
    mean = float(values.mean())
    sd = float(values.std(ddof=1)) if num_seeds > 1 else None
    known = ~np.isnan(draws).any(axis=0)
    if num_users < 2 or known.sum() < 2 or known.mean() < 1 - MOST_LOST:
        return Difference(mean, sd, None, None, None, None)
    of_users = float(draws[:, known].mean(axis=0).var(ddof=1)) * num_users / (num_users - 1)
    of_seeds = sd**2 / num_seeds if sd is not None else 0.0
    variance = of_users + of_seeds
    doubt = of_users**2 * (1 / (num_users - 1) + 1 / (known.sum() - 1))
    if of_seeds:
        doubt += of_seeds**2 / (num_seeds - 1)
    degrees = variance**2 / doubt if doubt else math.inf
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
