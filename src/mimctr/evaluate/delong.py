"""DeLong's test: is a difference of AUC real for these very models, if impressions were independent?

DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), in O(n log n) as in Sun and Xu (IEEE Signal Processing Letters
21, 2014). For a difference of AUC, or a mean of such differences, with ``d`` the same difference of the placements
(:mod:`mimctr.evaluate.placements`),

    se^2 = var(d over clicks) / num_clicks + var(d over non-clicks) / num_non_clicks

It knows nothing of seeds, and a user's impressions are not independent: the spread over users
(:mod:`mimctr.evaluate.significance`) is what the report's intervals rest on.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mimctr.errors import DataError
from mimctr.evaluate.placements import Placements
from mimctr.evaluate.significance import two_sided


class DeLong(NamedTuple):
    """A difference of AUC with its uncertainty over impressions."""

    difference: float
    standard_error: float | None
    """None with fewer than two clicks or two non-clicks."""

    @property
    def p_value(self) -> float | None:
        """Two-sided, for "no difference"; None where a difference has no spread, as of a handful of impressions."""
        if self.standard_error is None or (self.standard_error == 0 and self.difference != 0):
            return None
        return two_sided(self.difference, self.standard_error)


def contrasted(first: Iterable[DeLong], second: Iterable[DeLong] = ()) -> DeLong:
    """Return the mean difference of ``first`` minus that of ``second``; no two share an impression."""
    groups = [list(first), list(second)]
    parts = [(sign / len(group), one) for sign, group in zip((1, -1), groups, strict=True) for one in group]
    errors = [weight * one.standard_error for weight, one in parts if one.standard_error is not None]
    return DeLong(
        sum(weight * one.difference for weight, one in parts),
        math.hypot(*errors) if len(errors) == len(parts) else None,
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
