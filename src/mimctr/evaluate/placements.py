"""Where a model ranks every impression: what AUC, its test and its error over users are all made of.

A click's placement is the share of non-clicks that it ranks above, a non-click's the share of clicks that rank above
it, a tie one half (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988). AUC is the mean of either.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from numpy import ndarray


class Placements(NamedTuple):
    """Where one model ranks some impressions, both classes in the order of the impressions."""

    clicks: Float[ndarray, "clicks"]
    """Share of the non-clicks below each click, a tie one half."""
    non_clicks: Float[ndarray, "non_clicks"]
    """Share of the clicks above each non-click, a tie one half."""
    auc: float
    """Exact: of integers, divided once."""


class Ranking:
    """The impressions of a test part in the order of one model's scores; slices of it then cost no sort.

    Args:
        labels: 0/1 or bool.
        scores: Anything increasing in the click probability; no NaN.
    """

    def __init__(self, labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"]) -> None:
        self._clicked = labels.astype(bool)
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        rising = begins(ranked)
        self._order = order.astype(np.int32) if len(order) < 2**31 else order
        self._level = None if rising.all() else np.cumsum(rising, dtype=self._order.dtype)

    def placements(self, mask: Bool[ndarray, "rows"] | None = None) -> Placements:
        """Return the placements among the impressions of a slice; of all, without one. O(rows).

        Args:
            mask: Of the slice; both classes are there.
        """
        order, level = self._order, self._level
        if mask is not None:
            kept = mask[order]
            order = order[kept]
            level = None if level is None else level[kept]
        clicked = self._clicked[order]
        passed = np.empty(len(self._clicked), dtype=np.int64)
        passed[order] = _doubled_below(clicked, level)
        chosen = self._clicked if mask is None else self._clicked & mask
        others = ~self._clicked if mask is None else ~self._clicked & mask
        of_clicks, of_others = passed[chosen], passed[others]
        pairs = 2 * len(of_clicks) * len(of_others)
        return Placements(
            clicks=of_clicks / (2 * len(of_others)),
            non_clicks=1 - of_others / (2 * len(of_clicks)),
            auc=int(of_clicks.sum()) / pairs,
        )


class GroupAucs(NamedTuple):
    """AUC within each group that has a click and a non-click."""

    values: Float[ndarray, "groups"]
    num_rows: Int[ndarray, "groups"]
    num_skipped: int
    """Groups of one class only."""

    @property
    def num_groups(self) -> int:
        """Those of one class too."""
        return len(self.values) + self.num_skipped


class GroupedRanking:
    """The impressions of a test part by group (user, query), then by score; slices of it then cost no sort.

    Args:
        labels: 0/1 or bool.
        scores: Anything increasing in the click probability; no NaN.
        groups: Integer name of each row's group.
    """

    def __init__(
        self, labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"], groups: Int[ndarray, "rows"]
    ) -> None:
        self._order = np.lexsort((scores, groups))
        self._clicked = labels.astype(bool)[self._order]
        new_group = begins(groups[self._order])
        self._group = np.cumsum(new_group)
        self._level = np.cumsum(new_group | begins(scores[self._order]))

    def aucs(self, mask: Bool[ndarray, "rows"] | None = None) -> GroupAucs:
        """Return the AUC within each group, of the impressions of a slice; of all, without one. Exact. O(rows).

        Args:
            mask: Of the slice; it holds an impression.
        """
        clicked, group, level = self._clicked, self._group, self._level
        if mask is not None:
            kept = mask[self._order]
            clicked, group, level = clicked[kept], group[kept], level[kept]
        starts = np.flatnonzero(begins(group))
        num_rows = np.diff(np.append(starts, len(group)))
        num_clicks = np.add.reduceat(clicked.astype(np.int64), starts)
        others = num_rows - num_clicks
        before = np.cumsum(others) - others  # in the groups before
        passed = np.add.reduceat(np.where(clicked, _doubled_below(clicked, level), 0), starts)
        both = (num_clicks > 0) & (others > 0)
        won = (passed - 2 * before * num_clicks)[both]
        return GroupAucs(won / (2 * num_clicks * others)[both], num_rows[both], int((~both).sum()))


def placements(labels: Shaped[ndarray, "rows"], scores: Num[ndarray, "rows"]) -> Placements:
    """Return the placement of every impression under one model, ties exact. O(n log n).

    Args:
        labels: 0/1 or bool, both there.
        scores: Anything increasing in the click probability.
    """
    return Ranking(labels, scores).placements()


def influences(
    placed: Placements,
    users_of_clicks: Int[ndarray, "clicks"],
    users_of_non_clicks: Int[ndarray, "non_clicks"],
    num_users: int,
) -> Float[ndarray, "users"]:
    """Return how AUC changes as a user counts more: its derivative by the user's weight, where all weigh 1.

    They add to 0; the sum of their squares is the variance of AUC over users (Obuchowski, Biometrics 53, 1997).

    Args:
        placed: Of the impressions.
        users_of_clicks: From 0, of each click.
        users_of_non_clicks: Of each non-click.
        num_users: One more than the largest that there can be.
    """
    found = np.zeros(num_users)
    for values, users in ((placed.clicks, users_of_clicks), (placed.non_clicks, users_of_non_clicks)):
        found += np.bincount(users, weights=values - placed.auc, minlength=num_users) / len(values)
    return found


def begins(values: Num[ndarray, "rows"]) -> Bool[ndarray, "rows"]:
    """Return where sorted values begin a run of equal ones."""
    return np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]])


def _doubled_below(
    clicked: Bool[ndarray, "rows"], level: Int[ndarray, "rows"] | None
) -> Int[ndarray, "rows"]:
    """Return twice how many of the other class stand below each row, a tie one half.

    Args:
        clicked: By score.
        level: Equal where scores are, rising; None where none are.
    """
    clicks = clicked.astype(np.int64)
    others = 1 - clicks
    if level is None:
        clicks_below, others_below = 2 * (np.cumsum(clicks) - clicks), 2 * (np.cumsum(others) - others)
    else:
        starts = np.flatnonzero(begins(level))
        lengths = np.diff(np.append(starts, len(level)))
        clicks_below, others_below = (_below_run(values, starts, lengths) for values in (clicks, others))
    return np.where(clicked, others_below, clicks_below)


def _below_run(
    values: Int[ndarray, "rows"], starts: Int[ndarray, "runs"], lengths: Int[ndarray, "runs"]
) -> Int[ndarray, "rows"]:
    """Return twice the sum of ``values`` below each row's run, and once that of the run itself."""
    own = np.add.reduceat(values, starts)
    return np.repeat(2 * (np.cumsum(own) - own) + own, lengths)
