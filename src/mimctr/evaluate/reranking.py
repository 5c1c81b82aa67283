"""What another order of the same pages would have been clicked, from a log that drew its orders at random.

The log says with what probability an item stood where it stood, its propensity: a policy's click rate at a place is the
clicks on what the policy would have put there, where the log happened to put it there too, each divided by its
propensity. The weights of a place are normalized by their sum (SNIPS; Swaminathan and Joachims 2015, The
Self-Normalized Estimator for Counterfactual Learning): little bias, far less variance. Their mean is 1 by itself: where
it is not, the log does not support the policy, and nothing is said of it.

Assumed: the propensities are true, and a click depends on the item, its place and the user, not on its neighbors (the
item-position click model; Li and others 2018, Offline Evaluation of Ranking Policies with Click Models).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.evaluate.ab_test import Resampled
from mimctr.evaluate.significance import resample_users

NOTHING = -1
"""In the place of a row: the page is shorter."""


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
    """Impressions of one user, time and query stand together, the topmost first."""

    row: Int[ndarray, "pages places"]
    """Of the log; -1 behind the last item of a page."""
    user: Int[ndarray, "pages"]
    item: Int[ndarray, "pages places"]
    propensity: Float[ndarray, "pages places"]
    """1 where there is nothing."""
    click: Float[ndarray, "pages places"]
    left_out: dict[str, int]
    """Why pages are not among these -> how many."""

    @property
    def there(self) -> Bool[ndarray, "pages places"]:
        """True where there is an item."""
        return self.row != NOTHING


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
    start = np.cumsum(size) - size
    length = int(size[kept].max(initial=0))
    place = start[kept][:, None] + np.arange(length)  # (P, K)
    there = np.arange(length) < size[kept][:, None]
    place = np.where(there, place, 0)

    def take(name: str, fill: float) -> ndarray:
        values = rows[name].to_numpy()
        return np.where(there, values[place], fill) if len(values) else np.full(place.shape, fill)

    return Pages(
        row=take("row", NOTHING).astype(np.int64),
        user=of_page["user"].to_numpy()[kept],
        item=take("item", NOTHING),
        propensity=take("propensity", 1.0),
        click=take("click", 0.0).astype(np.float64),
        left_out=left_out,
    )


def weigh_placements(pages: Pages, scores: Float[ndarray, "rows"] | None) -> Float[ndarray, "pages places"]:
    """Return what each impression counts for a policy: 0 where the policy would have put another item there.

    Args:
        pages: Of the log.
        scores: Of each row of the log; the policy puts the highest of a page first, equal ones in the order of their
            items, which knows nothing of the log's. They must not depend on where the item stood. None: the log's own.
    """
    there = pages.there
    if scores is None:
        return there.astype(np.float64)
    values = np.where(there, scores[pages.row], -np.inf)
    order = np.lexsort((pages.item, -values), axis=1)  # (P, K): what the policy puts at each place
    return np.where(there & (order == np.arange(order.shape[1])), 1 / pages.propensity, 0.0)


class Weighted(NamedTuple):
    """What counts for a policy, summed up by user."""

    weight: Float[ndarray, "users places"]
    clicks: Float[ndarray, "users places"]
    """Each times its weight."""


class Support(NamedTuple):
    """How much a log knows of a policy."""

    mean_weight: Resampled
    """1 where the log supports the policy."""
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
        users, self._user = np.unique(pages.user, return_inverse=True)
        self._counts = resample_users(len(users), num_resamples=num_resamples, seed=seed)
        self._shown = self._by_user(pages.there.astype(np.float64))
        self._resampled_shown = self._resample(self._shown)

    def of(self, weights: Float[ndarray, "pages places"], depths: Sequence[int]) -> list[Resampled]:
        """Return the clicks per impression of a policy in the first places of every page, for each of ``depths``.

        NaN where the log never did at some place what the policy does.
        """
        weight, clicks = self._by_user(weights), self._by_user(weights * self.pages.click)
        drawn = self._resample(weight), self._resample(clicks)
        return [
            Resampled(
                float(_rate(weight.sum(axis=0), clicks.sum(axis=0), self._shown.sum(axis=0), depth)),
                _rate(*drawn, self._resampled_shown, depth),
            )
            for depth in depths
        ]

    def support(self, weights: Float[ndarray, "pages places"]) -> Support:
        """Return how much the log knows of a policy."""
        weight = self._by_user(weights).sum(axis=1)
        shown = self._shown.sum(axis=1)
        drawn = self._resample(weight[:, None])[:, 0] / self._resampled_shown.sum(axis=1)
        squares = float((weights**2).sum())
        return Support(
            mean_weight=Resampled(float(weight.sum() / shown.sum()), drawn),
            matched=int((weights > 0).sum()),
            effective=float(weights.sum()) ** 2 / squares if squares else 0.0,
            largest_weight=float(weights.max()),
        )

    def _by_user(self, values: Float[ndarray, "pages places"]) -> Float[ndarray, "users places"]:
        sums = np.zeros((self._counts.shape[1], values.shape[1]))
        np.add.at(sums, self._user, values)
        return sums

    def _resample(self, values: Float[ndarray, "users columns"]) -> Float[ndarray, "resamples columns"]:
        return np.stack([count.astype(np.float64) @ values for count in self._counts])


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
