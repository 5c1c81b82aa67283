"""DeLong's test: is a difference of AUC real for these very models, if impressions were independent?

DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), in O(n log n) by midranks as in Sun and Xu (IEEE Signal
Processing Letters 21, 2014). A click's placement is the share of non-clicks that it ranks above, a non-click's the
share of clicks that rank above it, a tie one half; AUC is the mean of either. For a difference of AUC, or a mean of
such differences, with ``d`` the same difference of the placements,

    se^2 = var(d over clicks) / num_clicks + var(d over non-clicks) / num_non_clicks

It knows nothing of seeds, and a user's impressions are not independent: the bootstrap over users
(:mod:`mimctr.evaluate.significance`) is what the report's intervals rest on.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num, Shaped
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.metrics import doubled_ranks
from mimctr.evaluate.significance import two_sided


class Placements(NamedTuple):
    """Where one model ranks every impression; the mean of either field is its AUC."""

    clicks: Float[ndarray, "clicks"]
    """Share of the non-clicks below each click, a tie one half."""
    non_clicks: Float[ndarray, "non_clicks"]
    """Share of the clicks above each non-click, a tie one half."""


class DeLong(NamedTuple):
    """A difference of AUC with its uncertainty over impressions."""

    difference: float
    standard_error: float | None
    """None with fewer than two clicks or two non-clicks."""

    @property
    def p_value(self) -> float | None:
        """Two-sided, for "no difference"."""
        return None if self.standard_error is None else two_sided(self.difference, self.standard_error)


def contrasted(first: Iterable[DeLong], second: Iterable[DeLong] = ()) -> DeLong:
    """Return the mean difference of ``first`` minus that of ``second``; no two share an impression."""
    groups = [list(first), list(second)]
    parts = [(sign / len(group), one) for sign, group in zip((1, -1), groups, strict=True) for one in group]
    errors = [weight * one.standard_error for weight, one in parts if one.standard_error is not None]
    return DeLong(
        sum(weight * one.difference for weight, one in parts),
        math.hypot(*errors) if len(errors) == len(parts) else None,
    )


def placements(labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"]) -> Placements:
    """Return the placement of every impression under one model, ties exact. O(n log n).

    Args:
        labels: 0/1 or bool, both there.
        scores: Anything increasing in the click probability.
    """
    clicked = labels.astype(bool)
    of_class = clicked.astype(np.int64)
    passed = np.empty(len(scores), dtype=np.int64)
    order, ranks = doubled_ranks(scores, np.zeros_like(of_class))
    passed[order] = ranks
    order, ranks = doubled_ranks(scores, of_class)
    passed[order] -= ranks  # twice how many of the other class are below, a tie one half
    num_clicks = int(of_class.sum())
    return Placements(
        clicks=passed[clicked] / (2 * (len(scores) - num_clicks)),
        non_clicks=1 - passed[~clicked] / (2 * num_clicks),
    )


def delong(pairs: Iterable[tuple[Placements, Placements]]) -> DeLong:
    """Return the mean over ``pairs`` of the first's AUC minus the second's, with its standard error.

    One pair is DeLong's test of two models; several, all on the same impressions, are the same test of a linear
    contrast of all their AUCs.

    Raises:
        DataError: there is no pair.
    """
    clicks, non_clicks, num_pairs = np.zeros(()), np.zeros(()), 0
    for first, second in pairs:
        clicks = clicks + (first.clicks - second.clicks)
        non_clicks = non_clicks + (first.non_clicks - second.non_clicks)
        num_pairs += 1
    if not num_pairs:
        raise DataError("delong: there is no pair of models. Give at least one.")
    clicks, non_clicks = clicks / num_pairs, non_clicks / num_pairs
    if min(len(clicks), len(non_clicks)) < 2:
        return DeLong(float(clicks.mean()), None)
    variance = clicks.var(ddof=1) / len(clicks) + non_clicks.var(ddof=1) / len(non_clicks)
    return DeLong(float(clicks.mean()), math.sqrt(variance))
