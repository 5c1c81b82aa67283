"""Count a dataset for Table 1: how much there is of each category, how old and how popular what is shown is."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import DAY
from mimctr.evaluate.paper.data import CategoryFacts, DataFacts, Profile

AGE_DAYS = (1.0, 7.0, 28.0, 90.0)
POPULARITY = (0.01, 0.1, 0.5)
NO_CATEGORY = "(none)"


def count_dataset(dataset: CtrDataset) -> DataFacts:
    """Return what Table 1 says, over all parts."""
    impressions = dataset.impressions
    target = np.asarray(impressions.target)
    categories = [NO_CATEGORY if name is None else str(name) for name in dataset.items["category"].to_list()]
    names, code = np.unique(categories, return_inverse=True)
    counted = [
        _count(dataset, str(name), of_items=code == number, of_rows=code[target - FIRST_INDEX] == number)
        for number, name in enumerate(names)
    ]
    whole = _count(
        dataset, "All", of_items=np.ones(len(code), dtype=bool), of_rows=np.ones(len(target), dtype=bool)
    )
    return DataFacts(
        all=whole,
        categories=sorted(counted, key=lambda one: -one.num_impressions),
        profile=_profile(dataset, target),
    )


def _count(
    dataset: CtrDataset, name: str, *, of_items: Bool[ndarray, "items"], of_rows: Bool[ndarray, "rows"]
) -> CategoryFacts:
    impressions = dataset.impressions
    pictured = np.asarray(dataset.item_images.numbers >= 0)
    titled = dataset.items["title"].is_not_null().to_numpy()
    queries = np.unique(impressions.query[of_rows])
    return CategoryFacts(
        name=name,
        num_impressions=int(of_rows.sum()),
        num_clicks=int(impressions.click[of_rows].sum()),
        num_users=len(np.unique(impressions.user[of_rows])),
        num_queries=int((queries > 0).sum()),
        num_items=int(of_items.sum()),
        num_shown=len(np.unique(impressions.target[of_rows])),
        image_share=float(pictured[of_items].mean()) if of_items.any() else 0.0,
        title_share=float(titled[of_items].mean()) if of_items.any() else 0.0,
    )


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
