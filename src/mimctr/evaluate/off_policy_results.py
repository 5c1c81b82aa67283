"""Every policy on the pages of a log: whether the log knows enough of it, its clicks, how many more than another's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mimctr.evaluate import reranking
from mimctr.evaluate.ab_test import level, relative_change
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.off_policy import AS_LOGGED, Change, Outcome, Support
from mimctr.evaluate.reranking import Estimator, Pages, weigh_placements
from mimctr.evaluate.significance import Resampled

MOST_OFF = 0.1
"""A mean weight that is nearer to 1 is right, however well it was measured."""
FAR = 2
"""So many times the reach of the 95 % interval from 1 a mean weight is wrong: of sound logs, one in ten thousand."""

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
    """Return what policies would have been clicked, and the log's own; none of one that the log does not support.

    Nor of so many places that the log at one of them never did what the policy does.

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
        support.append(_support(policy, [estimator.support(one) for one in weights]))
        if not support[-1].supported:
            continue
        by_seed = [estimator.of(one, [depth or places for depth in asked]) for one in weights]
        by_depth = dict(zip(asked, map(list, zip(*by_seed, strict=True)), strict=True))
        found[policy] = {depth: seeds for depth, seeds in by_depth.items() if _is_known(seeds)}
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


def _is_known(seeds: Sequence[Resampled]) -> bool:
    """Return whether the log did at every place what the policy does there, once at least."""
    return not any(np.isnan(one.value) for one in seeds)


def _support(policy: str, seeds: Sequence[reranking.Support]) -> Support:
    mean = level([one.mean_weight for one in seeds])
    return Support(
        policy=policy,
        mean_weight=mean,
        matched_impressions=float(np.mean([one.matched for one in seeds])),
        effective_impressions=float(np.mean([one.effective for one in seeds])),
        largest_weight=max(one.largest_weight for one in seeds),
        supported=all(one.matched for one in seeds) and not _is_wrong(mean),
    )


def _is_wrong(mean: Estimate) -> bool:
    off = abs(mean.mean - 1)
    reach = 0.0 if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
    return off > MOST_OFF and off > FAR * reach
