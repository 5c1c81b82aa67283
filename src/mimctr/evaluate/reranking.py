"""What another order of the same pages would have been clicked, from a log that drew its orders at random.

The log says with what probability an item stood where it stood, its propensity: a policy's click rate at a place is the
clicks on what the policy would have put there, where the log happened to put it there too, each divided by its
propensity. The weights of a place are normalized by their sum (SNIPS; Swaminathan and Joachims 2015, The
Self-Normalized Estimator for Counterfactual Learning): little bias, far less variance. At each place their mean is 1 by
itself: where it is not, the log does not support the policy, and nothing is said of what reaches that place.

Assumed: the propensities are true, and a click depends on the item, its place and the user, not on its neighbors (the
item-position click model; Li and others 2018, Offline Evaluation of Ranking Policies with Click Models).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.evaluate.significance import Resampled, resample_users


class Log(NamedTuple):
    """Impressions in any order, as far as pages need them."""

    user: Int[ndarray, "rows"]
    time: Int[ndarray, "rows"]
    query: Int[ndarray, "rows"]
    item: Int[ndarray, "rows"]
    position: Int[ndarray, "rows"]
    """Smaller is further up; -1 where it is not known."""
    propensity: Float[ndarray, "rows"]
    """NaN where it is not known."""
    click: Int[ndarray, "rows"]


class Pages(NamedTuple):
    """Impressions of one user, time and query stand together, page after page, the topmost of each first."""

    row: Int[ndarray, "shown"]
    """Of the log."""
    page: Int[ndarray, "shown"]
    """From 0, rising."""
    place: Int[ndarray, "shown"]
    """On its page, 0 on top."""
    user: Int[ndarray, "shown"]
    item: Int[ndarray, "shown"]
    propensity: Float[ndarray, "shown"]
    click: Float[ndarray, "shown"]
    left_out: dict[str, int]
    """Why pages are not among these -> how many."""

    @property
    def num_pages(self) -> int:
        """How many there are."""
        return int(self.page.max(initial=-1)) + 1

    @property
    def num_places(self) -> int:
        """Of the longest page."""
        return int(self.place.max(initial=-1)) + 1


def find_pages(log: Log) -> Pages:
    """Return the pages of a log on which there is something to put in another order.

    Left out are pages of one item, those with an item whose position or propensity is not known, and those with two
    items in one place.
    """
    names = ["user", "time", "query"]
    rows = (
        pl.DataFrame(log._asdict()).with_columns(row=pl.int_range(pl.len())).sort(*names, "position", "item")
    )
    known = (pl.col("position") >= 0) & pl.col("propensity").is_not_nan()
    reasons = {
        "one item": pl.len() == 1,
        "no position or propensity": ~known.all(),
        "two items in one place": pl.col("position").n_unique() < pl.len(),
    }
    of_page = rows.group_by(names, maintain_order=True).agg(
        pl.len().alias("size"), *(what.alias(name) for name, what in reasons.items())
    )
    kept, left_out = np.ones(of_page.height, dtype=bool), {}
    for name in reasons:
        wrong = of_page[name].to_numpy() & kept
        kept &= ~wrong
        if wrong.any():
            left_out[name] = int(wrong.sum())
    size = of_page["size"].to_numpy().astype(np.int64)
    place = np.arange(rows.height) - np.repeat(np.cumsum(size) - size, size)
    shown = np.repeat(kept, size)
    rows = rows.filter(shown)
    return Pages(
        row=rows["row"].to_numpy(),
        page=np.repeat(np.cumsum(kept) - 1, size)[shown],
        place=place[shown],
        user=rows["user"].to_numpy(),
        item=rows["item"].to_numpy(),
        propensity=rows["propensity"].to_numpy(),
        click=rows["click"].to_numpy().astype(np.float64),
        left_out=left_out,
    )


def weigh_placements(pages: Pages, scores: Float[ndarray, "rows"] | None) -> Float[ndarray, "shown"]:
    """Return what each impression counts for a policy: 0 where the policy would have put another item there.

    Args:
        pages: Of the log.
        scores: Of each row of the log; the policy puts the highest of a page first, equal ones in the order of their
            items, which knows nothing of the log's. They must not depend on where the item stood. None: the log's own.
    """
    if scores is None:
        return np.ones(len(pages.row))
    order = np.lexsort((pages.item, -scores[pages.row], pages.page))  # what the policy puts at each place
    return np.where(order == np.arange(len(order)), 1 / pages.propensity, 0.0)


class Support(NamedTuple):
    """How much a log knows of a policy."""

    mean_weight: Resampled
    """1 where the log supports the policy."""
    of_places: list[Resampled]
    """Mean weight of each place alone, the top one first; 0 where the log never did there what the policy does."""
    matched: int
    """Impressions that the policy would have made too."""
    effective: float
    """As many impressions of equal weight would say as much (Kish)."""
    largest_weight: float


class Estimator:
    """Click rates of policies on the pages of a log, all on the same resamples of users.

    Args:
        pages: Of the log.
        num_resamples: Of users.
        seed: Of the resamples.
    """

    def __init__(self, pages: Pages, *, num_resamples: int, seed: int) -> None:
        self.pages = pages
        users, user = np.unique(pages.user, return_inverse=True)
        self._counts = resample_users(len(users), num_resamples=num_resamples, seed=seed)
        cells, self._cell = np.unique(user * pages.num_places + pages.place, return_inverse=True)
        self._user, self._place = np.divmod(cells, pages.num_places)
        self._shown = self._by_cell(np.ones(len(user)))
        self._resampled_shown = self._resample(self._shown)

    def of(self, weights: Float[ndarray, "shown"], depths: Sequence[int]) -> list[Resampled]:
        """Return the clicks per impression of a policy in the first places of every page, for each of ``depths``.

        NaN where the log never did at some place what the policy does.
        """
        weight, clicks = self._by_cell(weights), self._by_cell(weights * self.pages.click)
        whole = self._by_place(weight), self._by_place(clicks), self._by_place(self._shown)
        drawn = self._resample(weight), self._resample(clicks), self._resampled_shown
        return [
            Resampled(float(_rate(*whole, depth)), _rate(*drawn, depth), self._counts.shape[1])
            for depth in depths
        ]

    def support(self, weights: Float[ndarray, "shown"]) -> Support:
        """Return how much the log knows of a policy."""
        weight = self._by_cell(weights)
        drawn = self._resample(weight)
        means = drawn.sum(axis=1) / self._resampled_shown.sum(axis=1)
        squares = float((weights**2).sum())
        return Support(
            mean_weight=Resampled(float(weight.sum() / len(weights)), means, self._counts.shape[1]),
            of_places=self._of_places(weight, drawn),
            matched=int((weights > 0).sum()),
            effective=float(weights.sum()) ** 2 / squares if squares else 0.0,
            largest_weight=float(weights.max()),
        )

    def _of_places(
        self, weight: Float[ndarray, "cells"], drawn: Float[ndarray, "resamples places"]
    ) -> list[Resampled]:
        """Return the mean weight of each place; NaN in a resample that does not show it."""
        means = self._by_place(weight) / self._by_place(self._shown)
        shown = self._resampled_shown
        draws = np.divide(drawn, shown, out=np.full(shown.shape, np.nan), where=shown > 0)
        num_users = np.bincount(self._place)
        return [
            Resampled(float(mean), own, int(users))
            for mean, own, users in zip(means, draws.T, num_users, strict=True)
        ]

    def _by_cell(self, values: Float[ndarray, "shown"]) -> Float[ndarray, "cells"]:
        """Return sums by user and place, of those that occur."""
        return np.bincount(self._cell, weights=values)

    def _by_place(self, values: Float[ndarray, "cells"]) -> Float[ndarray, "places"]:
        return np.bincount(self._place, weights=values)

    def _resample(self, values: Float[ndarray, "cells"]) -> Float[ndarray, "resamples places"]:
        return np.stack([self._by_place(count[self._user] * values) for count in self._counts])


def _rate(
    weight: Float[ndarray, "*resamples places"],
    clicks: Float[ndarray, "*resamples places"],
    shown: Float[ndarray, "*resamples places"],
    depth: int,
) -> Float[ndarray, "*resamples"]:
    """Return the mean over the first ``depth`` places of their click rates, each counted as often as it was shown."""
    weight, clicks, shown = (values[..., :depth] for values in (weight, clicks, shown))
    rates = np.divide(clicks, weight, out=np.full(weight.shape, np.nan), where=weight > 0)
    rates = np.where(shown > 0, rates, 0.0)
    return (rates * shown).sum(axis=-1) / shown.sum(axis=-1)
