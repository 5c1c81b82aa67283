"""Measure a bazaar against its own truth: is there something to learn, and where? (docs/bazaar.md)"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.sources.bazaar.responses import PARTS
from mimctr.sources.bazaar.world import ATTRIBUTES, CATEGORIES, DAY, NUM_DAYS, START_TIME

TEST_SHARE = 0.2
"""The audit looks at the last part of the time, as a time split would."""


class Logs(NamedTuple):
    """Impressions of the test part, in time order, with what the truth knows of them."""

    impressions: pl.DataFrame
    is_new: Bool[ndarray, " impressions"]  # no impression before the test part
    history: Float[ndarray, " impressions"]  # history oracle; 0 without behaviors
    num_behaviors: Int[ndarray, " impressions"]


def audit_bazaar(folder: Path) -> dict[str, float]:
    """Return figures that say whether a bazaar can answer its questions.

    ``ceiling`` is the AUC of ``true_probability`` on the last fifth of the time, ``auc_*`` that of each part of its
    logit. The history oracle scores a target by the mean similarity of its true style (share of equal
    attribute values, weighted by how much tastes weigh them) to what the user clicked strictly earlier: what perfect
    content embeddings could tell without learning anything.

    Args:
        folder: Written by :func:`~mimctr.sources.bazaar.bazaar.write_bazaar`.
    """
    test_start = START_TIME + int((1 - TEST_SHARE) * NUM_DAYS * DAY)
    everything = pl.read_parquet(folder / "impressions").hstack(
        pl.read_parquet(folder / "truth" / "impressions")
    )
    logs = _test_part(folder, everything, test_start)
    test, click = logs.impressions, logs.impressions["click"].to_numpy() == 1
    known = logs.num_behaviors > 0
    figures = {
        "impressions": float(len(everything)),
        "click_rate": float(everything["click"].to_numpy().mean()),
        "test_impressions": float(len(test)),
        "share_on_new_items": float(logs.is_new.mean()),
        "median_behaviors_at_test": float(np.median(logs.num_behaviors)),
        "ceiling": area_under_curve(test["true_probability"].to_numpy(), click),
    }
    figures |= {f"auc_{part}": area_under_curve(test[part].to_numpy(), click) for part in PARTS}
    for name, rows in {"all": known, "new": known & logs.is_new, "old": known & ~logs.is_new}.items():
        figures[f"auc_history_{name}"] = area_under_curve(logs.history[rows], click[rows])
    category = test["category"].to_numpy()
    for value in CATEGORIES:
        rows = known & (category == value.name)
        figures[f"auc_history_{value.name.lower().replace(' ', '_')}"] = area_under_curve(
            logs.history[rows], click[rows]
        )
    return figures | _search_figures(folder, test_start)


def area_under_curve(score: Float[ndarray, " rows"], label: Bool[ndarray, " rows"]) -> float:
    """Return the exact AUC, ties counted one half; NaN where a class is missing."""
    rank = pl.Series(score).rank("average").to_numpy()
    num_positive = int(label.sum())
    num_pairs = num_positive * (len(label) - num_positive)
    if not num_pairs:
        return float("nan")
    return float((rank[label].sum() - num_positive * (num_positive + 1) / 2) / num_pairs)


def _test_part(folder: Path, everything: pl.DataFrame, test_start: int) -> Logs:
    truth = pl.read_parquet(folder / "truth" / "items.parquet")
    style = _one_hot(truth)
    rows = pl.DataFrame(
        {"item_id": truth["item_id"], "category": truth["category"], "row": np.arange(len(truth))}
    )
    test = everything.filter(pl.col("time") >= test_start).join(
        rows, on="item_id", how="left", maintain_order="left"
    )
    seen = everything.filter(pl.col("time") < test_start)["item_id"].unique()
    is_new = ~test["item_id"].is_in(seen.implode()).to_numpy()
    behaviors = (
        pl.read_parquet(folder / "behaviors").sort("user_id", "time").join(rows, on="item_id", how="left")
    )
    history, num_behaviors = _history_scores(test, behaviors, style)
    return Logs(test, is_new, history, num_behaviors)


def _one_hot(truth: pl.DataFrame) -> Float[ndarray, "items values"]:
    columns = [
        np.sqrt(attribute.weight) * (truth[attribute.name].to_numpy() == value)
        for attribute in ATTRIBUTES
        for value in attribute.values
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _history_scores(
    test: pl.DataFrame, behaviors: pl.DataFrame, style: Float[ndarray, "items values"]
) -> tuple[Float[ndarray, " impressions"], Int[ndarray, " impressions"]]:
    score, count = np.zeros(len(test), np.float32), np.zeros(len(test), np.int64)
    of_user = {key[0]: part for key, part in behaviors.group_by("user_id", maintain_order=True)}
    for (user,), part in test.with_row_index().group_by("user_id"):
        if user not in of_user:
            continue
        own = of_user[user].sort("time")
        sums = np.concatenate(
            [np.zeros((1, style.shape[1]), np.float32), style[own["row"].to_numpy()].cumsum(axis=0)]
        )
        end = np.searchsorted(own["time"].to_numpy(), part["time"].to_numpy(), side="left")
        mean = sums[end] / np.maximum(end, 1)[:, None]
        index = part["index"].to_numpy()
        score[index] = (mean * style[part["row"].to_numpy()]).sum(axis=1)
        count[index] = end
    return score, count


def _search_figures(folder: Path, test_start: int) -> dict[str, float]:
    searches = pl.read_parquet(folder / "searches.parquet")
    bought = searches.filter(pl.col("kind") == "purchase")
    behaviors = pl.read_parquet(folder / "behaviors")
    truth = pl.read_parquet(folder / "truth" / "items.parquet")
    photos = pl.read_parquet(folder / "truth" / "photos.parquet")
    pairs = bought.join(truth, on="item_id", how="left").join(
        photos, on="query_image", how="left", suffix="_query"
    )
    figures = {
        "purchases_per_click": float((behaviors["kind"] == "purchase").to_numpy().mean()),
        "image_query_purchases": float(len(bought)),
        "image_query_purchases_before_test": float((bought["time"] < test_start).sum()),
    }
    for attribute in ATTRIBUTES:
        same = pairs[attribute.name] == pairs[f"{attribute.name}_query"]
        figures[f"bought_as_asked_{attribute.name}"] = float(same.to_numpy().mean())
    return figures
