"""Every policy on every slice of the sessions: what it earned, and how much more than another."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.evaluate.ab_test import (
    COUNTS,
    MEASURES,
    Earned,
    Market,
    Ratios,
    changes_by_seed,
    draw_uniforms,
    earn,
    level,
    pooled_change,
    rank,
    shared,
)
from mimctr.evaluate.cohorts import ALL
from mimctr.evaluate.contrasts import BY_SENSITIVITY, CATEGORY, Contrast, possible
from mimctr.evaluate.online import AS_LOGGED, TRUTH, Change, Count, Measure, Outcome, Ranking
from mimctr.evaluate.significance import Resampled

RANKINGS: tuple[Ranking, ...] = ("probability", "revenue")

Scores = Mapping[str, Sequence[Float[ndarray, "sessions candidates"]]]
"""Policy -> probabilities of a click, one array a seed."""
Pages = dict[str, list[Int[ndarray, "sessions positions"]]]
"""Policy -> what it shows, likewise."""


class Compared(NamedTuple):
    """What an A/B test found."""

    outcomes: list[Outcome]
    changes: list[Change]
    shared_with_base: dict[str, float]


def compare_policies(
    market: Market,
    categories: Sequence[str],
    scores: Scores,
    *,
    click_seeds: Sequence[int],
    num_resamples: int,
    resample_seed: int,
    by_category: Contrast = BY_SENSITIVITY,
) -> Compared:
    """Return what every policy earned, overall and by category, under both rankings.

    Besides those of ``scores``, whose first is the base, there are two: retrieval's own order, and the true
    probabilities.

    Args:
        market: The sessions.
        categories: Of each session.
        scores: What models say, the same seeds for every policy.
        click_seeds: One draw of clicks each.
        num_resamples: Of users, behind every interval.
        resample_seed: Of the resamples.
        by_category: Two groups of categories whose changes are contrasted.
    """
    uniforms = draw_uniforms(market, click_seeds)
    ratios = Ratios(market, num_resamples=num_resamples, seed=resample_seed)
    slices = {ALL: np.ones(len(categories), bool)} | {
        f"{CATEGORY}{name}": np.array([one == name for one in categories]) for name in sorted(set(categories))
    }
    contrasts = [*(Contrast((name,)) for name in slices), *possible([by_category], slices)]
    base = next(iter(scores))
    outcomes, changes, shared_with_base = [], [], {}
    for ranking in RANKINGS:
        pages = make_pages(market, scores, ranking)
        if ranking == "probability":
            shared_with_base = _shared(pages, base)
        earned = {name: [earn(market, page, uniforms) for page in own] for name, own in pages.items()}
        found = {
            (name, policy, measure, count): [ratios.of(one, measure, count, sessions) for one in own]
            for name, sessions in slices.items()
            for policy, own in earned.items()
            for measure, count in product(MEASURES, COUNTS)
        }
        outcomes += [
            _outcome(policy, ranking, name, market, sessions, own, found)
            for name, sessions in slices.items()
            for policy, own in earned.items()
        ]
        for contrast in contrasts:
            changes += _changes(list(earned), ranking, contrast, found)
    return Compared(outcomes, changes, shared_with_base)


def make_pages(market: Market, scores: Scores, ranking: Ranking) -> Pages:
    """Return what every policy shows in every session, by seed; those without a model have one page."""
    worth = market.bid if ranking == "revenue" else np.ones_like(market.bid)
    own = {name: [rank(market, values * worth) for values in seeds] for name, seeds in scores.items()}
    as_found = np.broadcast_to(-np.arange(market.bid.shape[1], dtype=np.float64), market.bid.shape)
    truth = market.probability[:, :, 0].astype(np.float64)
    return own | {AS_LOGGED: [rank(market, as_found)], TRUTH: [rank(market, truth * worth)]}


Found = Mapping[tuple[str, str, Measure, Count], Sequence[Resampled]]
"""By slice, policy, and what is measured: one a seed."""


def _outcome(
    policy: str,
    ranking: Ranking,
    name: str,
    market: Market,
    sessions: Bool[ndarray, "sessions"],
    earned: Sequence[Earned],
    found: Found,
) -> Outcome:
    def total(of: str, count: Count) -> float:
        return float(np.mean([getattr(one, of)[count][sessions].sum() for one in earned]))

    return Outcome(
        policy=policy,
        ranking=ranking,
        slice=name,
        num_sessions=int(sessions.sum()),
        num_users=len(np.unique(market.users[sessions])),
        num_impressions=int(earned[0].impressions[sessions].sum()),
        clicks=total("clicks", "clicks"),
        expected_clicks=total("clicks", "expected"),
        revenue=total("revenue", "clicks"),
        expected_revenue=total("revenue", "expected"),
        ctr=level(found[name, policy, "ctr", "clicks"]),
        rpm=level(found[name, policy, "rpm", "clicks"]),
    )


def _changes(policies: Sequence[str], ranking: Ranking, contrast: Contrast, found: Found) -> list[Change]:
    """Return every policy against every one before it that earned something on every slice."""
    changes = []
    for place, policy in enumerate(policies):
        for against, measure, count in product(policies[:place], MEASURES, COUNTS):
            relative = {
                name: changes_by_seed(
                    found[name, policy, measure, count], found[name, against, measure, count]
                )
                for name in contrast.all_slices
            }
            known = {name: values for name, values in relative.items() if values is not None}
            if len(known) == len(relative):
                changes.append(
                    Change(
                        policy=policy,
                        against=against,
                        ranking=ranking,
                        slice=contrast.name,
                        minus_slice=contrast.minus_name,
                        measure=measure,
                        count=count,
                        relative=pooled_change(contrast.of(known.__getitem__)),
                    )
                )
    return changes


def _shared(pages: Pages, base: str) -> dict[str, float]:
    """Return what share of each policy's impressions the base has too, mean over seeds."""
    found = {}
    for name, own in pages.items():
        pairs = [(own[seed % len(own)], page) for seed, page in enumerate(pages[base])]
        found[name] = float(np.mean([shared(one, other) for one, other in pairs]))
    return found
