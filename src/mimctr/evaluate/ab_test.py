"""Ranking policies in the same sessions: who shows what, what is clicked, and how sure the difference is.

Everything is paired. Policies share sessions, candidates and the uniform number that decides whether an item of a
session is clicked, so two that show an item at the same place get the same click; so are the resamples of users.
A ratio (clicks per impression) is resampled as a ratio: sums over users above, sums over users below.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.online import Count, Measure
from mimctr.evaluate.significance import (
    BySeed,
    Difference,
    Resampled,
    by_seed,
    pool,
    resample_users,
    resampled_sum,
)

NOBODY = -1
"""In the place of a candidate: the page is shorter."""
COUNTS: tuple[Count, ...] = ("clicks", "expected")
MEASURES: tuple[Measure, ...] = ("ctr", "rpm")


class Market(NamedTuple):
    """What can be shown in every session, and what is true of it."""

    users: Int[ndarray, "sessions"]
    offered: Bool[ndarray, "sessions candidates"]
    """Where there is a candidate: the first places of each row."""
    probability: Float[ndarray, "sessions candidates positions"]
    bid: Float[ndarray, "sessions candidates"]

    @property
    def num_positions(self) -> int:
        """Places of a page."""
        return self.probability.shape[2]


class Earned(NamedTuple):
    """What one policy earned in every session, by what is counted; clicks are the mean over the draws."""

    impressions: Float[ndarray, "sessions"]
    clicks: Mapping[Count, Float[ndarray, "sessions"]]
    revenue: Mapping[Count, Float[ndarray, "sessions"]]


def rank(market: Market, values: Float[ndarray, "sessions candidates"]) -> Int[ndarray, "sessions positions"]:
    """Return the candidates of the largest ``values`` in order, what is equal as retrieval has it."""
    order = np.argsort(-np.where(market.offered, values, -np.inf), axis=1, kind="stable")
    page = order[:, : market.num_positions]
    return np.where(np.take_along_axis(market.offered, page, axis=1), page, NOBODY)


def draw_uniforms(market: Market, seeds: Sequence[int]) -> Float[ndarray, "draws sessions candidates"]:
    """Return the number below whose probability each item of each session is clicked, for every draw of clicks."""
    return np.stack(
        [np.random.default_rng(seed).random(market.offered.shape, dtype=np.float32) for seed in seeds]
    )


def earn(
    market: Market,
    page: Int[ndarray, "sessions positions"],
    uniforms: Float[ndarray, "draws sessions candidates"],
) -> Earned:
    """Return what is earned with the pages of a policy.

    Args:
        market: The sessions.
        page: Candidate at each position, from :func:`rank`.
        uniforms: From :func:`draw_uniforms`; the same for all policies.
    """
    there = page != NOBODY
    session, position = np.arange(len(page))[:, None], np.arange(page.shape[1])
    chosen = np.where(there, page, 0)
    probability = np.where(there, market.probability[session, chosen, position], 0).astype(np.float64)
    bid = market.bid[session, chosen].astype(np.float64)
    clicked = np.mean([(one[session, chosen] < probability) & there for one in uniforms], axis=0)
    happened: dict[Count, ndarray] = {"clicks": clicked, "expected": probability}
    return Earned(
        there.sum(axis=1).astype(np.float64),
        {count: values.sum(axis=1) for count, values in happened.items()},
        {count: (values * bid).sum(axis=1) for count, values in happened.items()},
    )


class Ratios:
    """Clicks per impression and revenue per thousand of what policies earned, on the same resamples of users.

    Args:
        market: The sessions.
        num_resamples: Of users.
        seed: Of the resamples.
    """

    def __init__(self, market: Market, *, num_resamples: int, seed: int) -> None:
        _, self._users = np.unique(market.users, return_inverse=True)
        self._counts = resample_users(int(self._users.max()) + 1, num_resamples=num_resamples, seed=seed)

    def of(
        self, earned: Earned, measure: Measure, count: Count, sessions: Bool[ndarray, "sessions"]
    ) -> Resampled:
        """Return a measure of some sessions."""
        above = earned.clicks[count] if measure == "ctr" else 1000 * earned.revenue[count]
        top, bottom = (self._by_user(values, sessions) for values in (above, earned.impressions))
        tops, bottoms = (resampled_sum(values, self._counts) for values in (top, bottom))
        return Resampled(top.sum() / bottom.sum(), _divide(tops, bottoms), int((bottom > 0).sum()))

    def _by_user(
        self, values: Float[ndarray, "sessions"], sessions: Bool[ndarray, "sessions"]
    ) -> Float[ndarray, "users"]:
        return np.bincount(self._users[sessions], weights=values[sessions], minlength=self._counts.shape[1])


def level(seeds: Sequence[Resampled]) -> Estimate:
    """Return a ratio, mean over the seeds of a policy, with its interval over users and seeds."""
    return _estimate(pool(by_seed(seeds)), tested=False)


def relative_change(policy: Sequence[Resampled], base: Sequence[Resampled]) -> Estimate | None:
    """Return what :func:`changes_by_seed` does, mean over seeds, with its interval and p-value."""
    changes = changes_by_seed(policy, base)
    return None if changes is None else pooled_change(changes)


def changes_by_seed(policy: Sequence[Resampled], base: Sequence[Resampled]) -> BySeed | None:
    """Return how much larger a ratio is than another policy's, as a share of that; None where that earned nothing.

    Args:
        policy: One a seed; or one alone, of a policy without seeds, that is compared with every seed of the other.
        base: Likewise, in the same order of seeds.
    """
    num_seeds = max(len(policy), len(base))
    pairs = [(policy[seed % len(policy)], base[seed % len(base)]) for seed in range(num_seeds)]
    if not all(other.value for _, other in pairs):
        return None
    return by_seed(
        [
            Resampled(
                one.value / other.value - 1,
                _divide(one.draws, other.draws) - 1,
                min(one.num_users, other.num_users),
            )
            for one, other in pairs
        ]
    )


def pooled_change(changes: BySeed) -> Estimate:
    """Return a relative change, mean over seeds, with its interval over users and seeds and its p-value."""
    return _estimate(pool(changes), tested=True)


def shared(page: Int[ndarray, "sessions positions"], other: Int[ndarray, "sessions positions"]) -> float:
    """Return the share of a policy's impressions whose item another policy shows in the same session too."""
    there = page != NOBODY
    both = (page[:, :, None] == other[:, None, :]).any(axis=2) & there
    return float(both.sum() / there.sum())


def _divide(
    above: Float[ndarray, "resamples"], below: Float[ndarray, "resamples"]
) -> Float[ndarray, "resamples"]:
    """Return the ratio; NaN where there is nothing below."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)


def _estimate(found: Difference, *, tested: bool) -> Estimate:
    p_value = found.p_value if tested else None
    return Estimate(mean=found.mean, sd=found.sd, low=found.low, high=found.high, p_value=p_value)
