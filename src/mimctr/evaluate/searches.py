"""How well encoders search, how sure that is, and how they differ: over users (bootstrap) and seeds.

All encoders are judged on the same pairs, so every difference is paired: same seed, same resamples of users
(:mod:`mimctr.evaluate.significance`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.evaluate.cohorts import ALL, SEEN_ITEMS, UNSEEN_ITEMS
from mimctr.evaluate.encoder_results import Estimate, Measure
from mimctr.evaluate.significance import (
    Resampled,
    by_seed,
    pool,
    resample_users,
    resampled_auc,
    resampled_sum,
)

DEPTHS = (1, 10, 100)
SLICES = (ALL, UNSEEN_ITEMS, SEEN_ITEMS)
COSINE_AUC = "cosine_auc"


class Searched(NamedTuple):
    """What one encoder found in one part."""

    rank: Float[ndarray, "pairs"]
    """Of what was bought; 1 is best."""
    user: Int[ndarray, "pairs"]
    slices: dict[str, Bool[ndarray, "pairs"]]
    score: Float[ndarray, "impressions"]
    """Mean cosine of target and behaviors."""
    click: Float[ndarray, "impressions"]
    impression_user: Int[ndarray, "impressions"]


class Measured(NamedTuple):
    """A metric of one part and slice."""

    metric: Resampled
    size: int
    """Pairs or impressions."""


def measure(
    searched: Mapping[str, Sequence[Mapping[str, Searched]]], *, base: str, best: str, num_resamples: int
) -> list[Measure]:
    """Return every metric of every row by part and slice, with differences to two of the rows.

    Args:
        searched: Row -> one entry a seed, in the same order -> part.
        base: Name of the row that gains are counted from.
        best: Name of the row that ablations are counted from.
        num_resamples: Bootstrap resamples of users, the same for all rows.

    Raises:
        DataError: two rows were judged on different pairs.
    """
    found = {row: [_metrics(by_part, num_resamples) for by_part in seeds] for row, seeds in searched.items()}
    _refuse_different_pairs(searched)
    measures = []
    for row, seeds in found.items():
        for key in seeds[0]:
            measured = [seed[key] for seed in seeds]
            part, name, metric = key
            measures.append(
                Measure(
                    row=row,
                    part=part,
                    slice=name,
                    metric=metric,
                    num_pairs=measured[0].size,
                    by_seed=[one.metric.value for one in measured],
                    value=_estimate(measured, None),
                    over_base=_against(found, row, base, key),
                    over_best=_against(found, row, best, key),
                )
            )
    return measures


def resampled_mean(
    values: Float[ndarray, "pairs"], users: Int[ndarray, "pairs"], counts: Int[ndarray, "resamples users"]
) -> Resampled:
    """Return the mean over pairs, and that in each resample of users; NaN where a resample holds no pair.

    Args:
        values: Of each pair.
        users: Column of ``counts`` of each pair's user.
        counts: From :func:`~mimctr.evaluate.significance.resample_users`.
    """
    num_users = counts.shape[1]
    totals = np.bincount(users, weights=values, minlength=num_users)
    sizes = np.bincount(users, minlength=num_users)
    drawn = resampled_sum(sizes, counts)
    draws = np.where(drawn > 0, resampled_sum(totals, counts) / np.maximum(drawn, 1), np.nan)
    return Resampled(float(values.mean()), draws, int((sizes > 0).sum()))


def pair_metrics(ranks: Float[ndarray, "pairs"]) -> dict[str, Float[ndarray, "pairs"]]:
    """Return by metric what each pair adds to its mean: whether it is found by depth k, and the reciprocal rank."""
    found = {f"recall@{depth}": (ranks <= depth).astype(np.float64) for depth in DEPTHS}
    return {**found, "mrr": 1 / ranks.astype(np.float64)}


def _metrics(by_part: Mapping[str, Searched], num_resamples: int) -> dict[tuple[str, str, str], Measured]:
    """Return (part, slice, metric) -> metric with its resamples; no AUC of impressions of one class."""
    result = {}
    for part, search in by_part.items():
        _, users = np.unique(search.user, return_inverse=True)
        counts = resample_users(int(users.max()) + 1, num_resamples=num_resamples, seed=0)
        for name in SLICES:
            mask = search.slices.get(name)
            if mask is not None and mask.any():
                for metric, values in pair_metrics(search.rank[mask]).items():
                    mean = resampled_mean(values, users[mask], counts)
                    result[part, name, metric] = Measured(mean, int(mask.sum()))
        if len(np.unique(search.click)) == 2:
            _, users = np.unique(search.impression_user, return_inverse=True)
            counts = resample_users(int(users.max()) + 1, num_resamples=num_resamples, seed=0)
            auc = resampled_auc(search.click, search.score, users, counts)
            result[part, ALL, COSINE_AUC] = Measured(auc, len(search.click))
    return result


def _against(
    found: Mapping[str, Sequence[Mapping[tuple[str, str, str], Measured]]],
    row: str,
    other: str,
    key: tuple[str, str, str],
) -> Estimate | None:
    """Return the difference of two rows; None where the other is the row itself or was not run."""
    if row == other or other not in found:
        return None
    return _estimate([seed[key] for seed in found[row]], [seed[key] for seed in found[other]])


def _estimate(measured: Sequence[Measured], minus: Sequence[Measured] | None) -> Estimate:
    found = by_seed([one.metric for one in measured])
    pooled = pool(found if minus is None else found.minus(by_seed([one.metric for one in minus])))
    low, high, p_value = pooled.low, pooled.high, pooled.p_value
    if minus is None:  # a level, from 0 to 1 whatever Student's distribution says
        p_value = None
        low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (low, high))
    return Estimate(mean=pooled.mean, sd=pooled.sd, low=low, high=high, p_value=p_value)


def _refuse_different_pairs(searched: Mapping[str, Sequence[Mapping[str, Searched]]]) -> None:
    names = list(searched)
    for row, seeds in searched.items():
        for by_part in seeds:
            for part, search in by_part.items():
                if not np.array_equal(search.user, searched[names[0]][0][part].user):
                    raise DataError(
                        f"encoder tables: {row} was judged on {len(search.user):,} {part} pairs, not those of "
                        f"{names[0]}. Run all rows on one dataset."
                    )
