"""Every policy on the pages of a log: where the log knows enough of it, its clicks, how many more than another's."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mimctr.evaluate import reranking
from mimctr.evaluate.ab_test import level, relative_change
from mimctr.evaluate.off_policy import AS_LOGGED, Change, Outcome, Support, Wrong
from mimctr.evaluate.reranking import Estimator, Pages, weigh_placements
from mimctr.evaluate.significance import Resampled, by_seed

MOST_OFF = 0.1
"""A mean weight that is nearer to 1 is right, however well it was measured."""
FAR = 2
"""So many times the reach of the 95 % interval from 1 a mean weight is wrong: of sound places, one in ten thousand."""

Scores = Mapping[str, Sequence[Float[ndarray, "rows"]]]
"""Policy -> scores of every row of the log, one array a seed."""


class Estimated(NamedTuple):
    """What a log says of policies."""

    support: list[Support]
    outcomes: list[Outcome]
    changes: list[Change]


def estimate_policies(
    pages: Pages, scores: Scores, *, depths: Sequence[int], num_resamples: int, resample_seed: int
) -> Estimated:
    """Return what policies would have been clicked, and the log's own, as deep as the log supports them.

    A place without support is in no estimate: what the policy does there, the log never did, or too seldom.

    Args:
        pages: Of the log; at least one.
        scores: The same seeds for every policy; not of where an item stood.
        depths: Places from the top; the whole page besides.
        num_resamples: Of users, behind every interval.
        resample_seed: Of the resamples.
    """
    estimator = Estimator(pages, num_resamples=num_resamples, seed=resample_seed)
    places = pages.num_places
    asked = [*(depth for depth in dict.fromkeys(depths) if depth < places), None]
    support, outcomes, changes = [], [], []
    found: dict[str, dict[int | None, list[Resampled]]] = {}
    for policy, own in {**scores, AS_LOGGED: [None]}.items():
        weights = [weigh_placements(pages, one) for one in own]
        of_seeds = [estimator.support(one) for one in weights]
        wrong = _find_wrong(of_seeds)
        deepest = places if wrong is None else (wrong.place or 1) - 1
        known = [depth for depth in asked if (depth or places) <= deepest]
        support.append(_support(policy, of_seeds, wrong, supported=bool(known)))
        if not known:
            continue
        rates = [estimator.of(one, [depth or places for depth in known]) for one in weights]
        found[policy] = dict(zip(known, map(list, zip(*rates, strict=True)), strict=True))
        outcomes += [
            Outcome(policy=policy, depth=depth, ctr=level(seeds)) for depth, seeds in found[policy].items()
        ]
    for place, policy in enumerate(found):
        for against in list(found)[:place]:
            for depth in (one for one in found[policy] if one in found[against]):
                relative = relative_change(found[policy][depth], found[against][depth])
                if relative is not None:
                    changes.append(Change(policy=policy, against=against, depth=depth, relative=relative))
    return Estimated(support, outcomes, changes)


def _support(
    policy: str, seeds: Sequence[reranking.Support], wrong: Wrong | None, *, supported: bool
) -> Support:
    return Support(
        policy=policy,
        mean_weight=level([one.mean_weight for one in seeds]),
        matched_impressions=float(np.mean([one.matched for one in seeds])),
        effective_impressions=float(np.mean([one.effective for one in seeds])),
        largest_weight=max(one.largest_weight for one in seeds),
        wrong=wrong,
        supported=supported,
    )


def _find_wrong(seeds: Sequence[reranking.Support]) -> Wrong | None:
    """Return where the log does not support a policy: on the page as a whole, or from which place on."""
    whole = _mean_over([one.mean_weight for one in seeds])
    if not all(one.matched for one in seeds) or _is_wrong(whole, untested=True):
        return Wrong(place=None, mean_weight=whole.value)
    for place, own in enumerate(zip(*(one.of_places for one in seeds), strict=True), start=1):
        mean = _mean_over(own)
        if not all(one.value for one in own) or _is_wrong(mean, untested=False):
            return Wrong(place=place, mean_weight=mean.value)
    return None


def _mean_over(seeds: Sequence[Resampled]) -> Resampled:
    """Return a mean weight over the seeds: they share the log, so how they differ is no doubt of it."""
    values, draws, num_users = by_seed(seeds)
    return Resampled(float(values.mean()), draws.mean(axis=0), num_users)


def _is_wrong(mean: Resampled, *, untested: bool) -> bool:
    """Return whether a mean weight is too far from 1 for chance.

    Below 1 it rests on fewer impressions than it should, and its interval is too short by the root of it.

    Args:
        mean: Not 0.
        untested: Returned for one that is off, with too few users for an interval.
    """
    off = abs(mean.value - 1)
    if off <= MOST_OFF:
        return False
    interval = level([mean])
    if interval.low is None or interval.high is None:
        return untested
    reach = (interval.high - interval.low) / 2
    return off * math.sqrt(min(mean.value, 1)) > FAR * reach
