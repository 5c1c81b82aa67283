"""Count a dataset for Table 1: how much there is of each category, how old and how popular what is shown is."""

from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import DAY
from mimctr.evaluate.paper.data import CategoryFacts, DataFacts, Profile

AGE_DAYS = (1.0, 7.0, 28.0, 90.0)
POPULARITY = (0.01, 0.1, 0.5)
NO_CATEGORY = "(none)"
OF_ROWS = {
    "num_impressions": pl.len(),
    "num_clicks": pl.col("click").cast(pl.Int64).sum(),
    "num_users": pl.col("user").n_unique(),
    "num_queries": pl.col("query").filter(pl.col("query") > 0).n_unique(),
    "num_shown": pl.col("target").n_unique(),
}
"""What is counted of impressions, of all or of a category."""
OF_ITEMS = {
    "num_items": pl.len(),
    "image_share": pl.col("pictured").mean().fill_null(0.0),
    "title_share": pl.col("titled").mean().fill_null(0.0),
}
"""Likewise of the catalogue."""


def count_dataset(dataset: CtrDataset) -> DataFacts:
    """Return what Table 1 says, over all parts."""
    impressions = dataset.impressions
    target = np.asarray(impressions.target)
    categories = [NO_CATEGORY if name is None else str(name) for name in dataset.items["category"].to_list()]
    names, number = np.unique(categories, return_inverse=True)
    items = dataset.items.select(
        number=pl.Series(number),
        pictured=pl.Series(np.asarray(dataset.item_images.numbers >= 0)),
        titled=pl.col("title").is_not_null(),
    )
    rows = pl.DataFrame(
        {
            "number": number[target - FIRST_INDEX],
            "click": np.asarray(impressions.click),
            "user": np.asarray(impressions.user),
            "query": np.asarray(impressions.query),
            "target": target,
        }
    )
    of_rows = rows.group_by("number").agg(**OF_ROWS)
    counted = items.group_by("number").agg(**OF_ITEMS).join(of_rows, on="number", how="left").fill_null(0)
    counted = counted.sort("num_impressions", "number", descending=[True, False])
    return DataFacts(
        all=CategoryFacts(name="All", **_only(rows.select(**OF_ROWS)), **_only(items.select(**OF_ITEMS))),
        categories=[
            CategoryFacts(name=str(names[facts.pop("number")]), **facts)
            for facts in counted.iter_rows(named=True)
        ],
        profile=_profile(dataset, target),
    )


def _only(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the one row."""
    return frame.row(0, named=True)


def _profile(dataset: CtrDataset, target: Int[ndarray, "rows"]) -> Profile:
    first_seen = dataset.items["first_seen_time"].to_numpy()[target - FIRST_INDEX]
    days = (np.asarray(dataset.impressions.time) - first_seen) / DAY
    ranges = np.bincount(np.searchsorted(AGE_DAYS, days, side="left"), minlength=len(AGE_DAYS) + 1)
    shown = np.sort(np.unique(target, return_counts=True)[1])[::-1]
    return Profile(
        age_days=list(AGE_DAYS),
        age_shares=(ranges / max(len(target), 1)).tolist(),
        popularity=list(POPULARITY),
        popularity_shares=[_head(shown, share) for share in POPULARITY],
    )


def _head(counts: Int[ndarray, "items"], share: float) -> float:
    """Return the share of the impressions on the first items; at least one item is looked at."""
    head: Float[ndarray, items] = counts[: max(round(share * len(counts)), 1)]
    return float(head.sum() / max(counts.sum(), 1))
