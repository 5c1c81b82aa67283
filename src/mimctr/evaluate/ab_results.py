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
    Resampled,
    draw_uniforms,
    earn,
    level,
    rank,
    relative_change,
    shared,
)
from mimctr.evaluate.cohorts import ALL
from mimctr.evaluate.online import AS_LOGGED, TRUTH, Change, Count, Measure, Outcome, Ranking

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
    """
    uniforms = draw_uniforms(market, click_seeds)
    ratios = Ratios(market, num_resamples=num_resamples, seed=resample_seed)
    slices = {ALL: np.ones(len(categories), bool)} | {
        f"category:{name}": np.array([one == name for one in categories]) for name in sorted(set(categories))
    }
    base = next(iter(scores))
    outcomes, changes, shared_with_base = [], [], {}
    for ranking in RANKINGS:
        pages = make_pages(market, scores, ranking)
        if ranking == "probability":
            shared_with_base = _shared(pages, base)
        earned = {name: [earn(market, page, uniforms) for page in own] for name, own in pages.items()}
        for name, sessions in slices.items():
            found = {
                (policy, measure, count): [ratios.of(one, measure, count, sessions) for one in own]
                for policy, own in earned.items()
                for measure, count in product(MEASURES, COUNTS)
            }
            outcomes += [
                _outcome(policy, ranking, name, market, sessions, own, found)
                for policy, own in earned.items()
            ]
            changes += _changes(list(earned), ranking, name, found)
    return Compared(outcomes, changes, shared_with_base)


def make_pages(market: Market, scores: Scores, ranking: Ranking) -> Pages:
    """Return what every policy shows in every session, by seed; those without a model have one page."""
    worth = market.bid if ranking == "revenue" else np.ones_like(market.bid)
    own = {name: [rank(market, values * worth) for values in seeds] for name, seeds in scores.items()}
    as_found = np.broadcast_to(-np.arange(market.bid.shape[1], dtype=np.float64), market.bid.shape)
    truth = market.probability[:, :, 0].astype(np.float64)
    return own | {AS_LOGGED: [rank(market, as_found)], TRUTH: [rank(market, truth * worth)]}


Found = Mapping[tuple[str, Measure, Count], Sequence[Resampled]]


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
        ctr=level(found[policy, "ctr", "clicks"]),
        rpm=level(found[policy, "rpm", "clicks"]),
    )


def _changes(policies: Sequence[str], ranking: Ranking, name: str, found: Found) -> list[Change]:
    """Return every policy against every one before it."""
    changes = []
    for place, policy in enumerate(policies):
        for against, measure, count in product(policies[:place], MEASURES, COUNTS):
            relative = relative_change(found[policy, measure, count], found[against, measure, count])
            if relative is not None:
                changes.append(
                    Change(
                        policy=policy,
                        against=against,
                        ranking=ranking,
                        slice=name,
                        measure=measure,
                        count=count,
                        relative=relative,
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
