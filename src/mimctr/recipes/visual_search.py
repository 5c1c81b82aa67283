"""Held-out visual search: does a query image find what its user bought? Judges an encoder before any CTR model."""

import logging
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import Part
from mimctr.encoders.search import search_metrics, search_ranks
from mimctr.evaluate.cohorts import ALL, SEEN_ITEMS, UNSEEN_ITEMS, category_slices, whole
from mimctr.recipes.content import Pictures, Titles, chunks

MAX_IMPRESSIONS, IMPRESSIONS_AT_ONCE, MAX_BEHAVIORS = 20_000, 1024, 50
IMAGE_QUERIES, TEXT_QUERIES = "query:image", "query:text"
"""Slices of pairs of which both kinds occur."""
NEVER = np.iinfo(np.int64).max
SEARCH = "search.json"
"""Visual-search metrics by part and slice, beside an item encoder."""
Searches = dict[str, dict[str, dict[str, float]]]
"""Part (``_before``: before C-SFT) -> slice -> metric -> value."""

logger = logging.getLogger(__name__)


class Pairs(NamedTuple):
    """Interest pairs whose query is a picture (or a text) and whose item has picture or title."""

    picture: Int[ndarray, "pairs"]
    """Row in the decoded pictures of the query image; -1 where a text asks."""
    text: Int[ndarray, "pairs"]
    """Row in the titles of the query text that asks; -1 where a picture does."""
    query_item: Int[ndarray, "pairs"]
    """``item_index`` whose picture is the query; 0 = none."""
    item: Int[ndarray, "pairs"]
    """``item_index`` of what was bought."""
    user: Int[ndarray, "pairs"]
    time: Int[ndarray, "pairs"]
    """Of the purchase, seconds."""

    def __len__(self) -> int:
        return len(self.item)

    def sample(self, count: int, seed: int) -> "Pairs":
        """Return at most ``count`` of the pairs, drawn by ``seed``, in order."""
        if len(self.item) <= count:
            return self
        rows = np.sort(np.random.default_rng([seed, len(self.item)]).permutation(len(self.item))[:count])
        return Pairs(*(column[rows] for column in self))


def pair_table(data: CtrDataset, part: Part, kinds: Collection[str]) -> pl.DataFrame:
    """Return the dataset's pairs of a part and of some kinds; all kinds where ``kinds`` is empty."""
    table = data.pairs.filter(pl.col("part") == part)
    return table.filter(pl.col("kind").is_in(list(kinds))) if kinds else table


def usable_pairs(table: pl.DataFrame, pictures: Pictures, titles: Titles, has_content: ndarray) -> Pairs:
    """Return the pairs of ``table`` that can be trained on or searched.

    Args:
        table: From :func:`pair_table`.
        pictures: Decoded.
        titles: Tokenized; the texts in it are of queries that have no picture.
        has_content: By ``item_index``: whether it has picture or title.
    """
    query, query_item, item = (table[name].to_numpy() for name in ("query", "query_item", "item"))
    picture = np.where(query > 0, pictures.of_query[query], pictures.of_item[query_item])
    text = titles.of_query[query]
    asks = (picture >= 0) | (text >= 0)
    usable = asks & has_content[item] & ((query > 0) | (query_item > 0))
    if num_texts := int(((query > 0) & ~asks).sum()):
        logger.info(
            "%d of %d interest pairs are left out: their query is a text. text_queries = true takes them.",
            num_texts,
            len(table),
        )
    columns = (picture, text, query_item, item, table["user"].to_numpy(), table["time"].to_numpy())
    return Pairs(*(column[usable] for column in columns))


def visual_search(
    queries: Float[Tensor, "pairs content"],
    items: Float[Tensor, "items content"],
    data: CtrDataset,
    pairs: Pairs,
    has_content: ndarray,
) -> dict[str, dict[str, float]]:
    """Return, by slice, recall@{1, 10, 100} and MRR of bought items among all items known by the purchase.

    Beside them ``chance_recall@10``, what a random order would reach, and ``num_pairs``.

    Args:
        queries: ``h_q`` of the pairs.
        items: ``h^MM`` by ``item_index``.
        data: Says when each item was first seen.
        pairs: What was bought.
        has_content: By ``item_index``: items without a vector do not compete.
    """
    return search_slices(pair_ranks(queries, items, data, pairs, has_content), data, pairs, has_content)


def pair_ranks(
    queries: Float[Tensor, "pairs content"],
    items: Float[Tensor, "items content"],
    data: CtrDataset,
    pairs: Pairs,
    has_content: ndarray,
) -> Float[Tensor, "pairs"]:
    """Return the rank of each bought item among all items known by the purchase; arguments as :func:`visual_search`."""
    shown = torch.from_numpy(np.where(pairs.query_item > 0, pairs.query_item, -1))
    return search_ranks(
        queries,
        items,
        torch.from_numpy(pairs.item),
        query_times=torch.from_numpy(pairs.time),
        item_times=torch.from_numpy(item_times(data, has_content)),
        shown=shown,
    )


def search_slices(
    ranks: Float[Tensor, "pairs"], data: CtrDataset, pairs: Pairs, has_content: ndarray
) -> dict[str, dict[str, float]]:
    """Return what :func:`visual_search` returns, from the ranks.

    Slices are ``all``, ``item:unseen`` and ``item:seen`` (is the bought item in no training pair, or in one?), and one
    for each category of bought items; ``query:image`` and ``query:text`` where both ask.
    """
    competing = np.searchsorted(np.sort(item_times(data, has_content)), pairs.time, side="right")
    by_chance = np.minimum(10 / np.maximum(competing, 1), 1)
    return {
        name: {
            **search_metrics(ranks[torch.from_numpy(mask)]),
            "chance_recall@10": float(by_chance[mask].mean()),
            "num_pairs": int(mask.sum()),
        }
        for name, mask in pair_slices(data, pairs).items()
        if mask.any()
    }


def item_times(data: CtrDataset, has_content: ndarray) -> Int[ndarray, "items"]:
    """Return by ``item_index`` since when each item can be compared; ``NEVER`` without content."""
    first_seen = np.concatenate([np.full(FIRST_INDEX, NEVER), data.items["first_seen_time"].to_numpy()])
    return np.where(has_content, first_seen, NEVER)


def log_search(found: Searches) -> None:
    """Say in a line per part how well held-out search went, on all pairs and on items that training has not seen."""
    for part, slices in found.items():
        said = [
            f"{label} {slices[name]['recall@10']:.4f}"
            for name, label in ((ALL, "recall@10"), (UNSEEN_ITEMS, "on unseen items"))
            if name in slices
        ]
        chance = slices[ALL]["chance_recall@10"]
        logger.info("visual search, %s: %s, chance %.4f", part.replace("_", " "), ", ".join(said), chance)


def pair_slices(data: CtrDataset, pairs: Pairs) -> dict[str, Bool[ndarray, "pairs"]]:
    """Return the slices of :func:`search_slices`."""
    trained = data.pairs.filter(pl.col("part") == "train")["item"].unique().to_numpy()
    seen = np.isin(pairs.item, trained)
    by_text = pairs.text >= 0
    both = by_text.any() and not by_text.all()
    categories = [None] * FIRST_INDEX + data.items["category"].to_list()
    return (
        whole(len(pairs))
        | {UNSEEN_ITEMS: ~seen, SEEN_ITEMS: seen}
        | ({IMAGE_QUERIES: ~by_text, TEXT_QUERIES: by_text} if both else {})
        | category_slices(pairs.item, categories)
    )


class MeanCosines(NamedTuple):
    """Mean cosine of target and behaviors, on some impressions."""

    row: Int[ndarray, "impressions"]
    """Of the dataset's impressions."""
    score: Float[ndarray, "impressions"]
    click: Float[ndarray, "impressions"]


def mean_cosines(
    data: CtrDataset, items: Float[Tensor, "items content"], has_content: ndarray, part: Part
) -> MeanCosines:
    """Return the mean cosine of target and behaviors on the newest ``MAX_IMPRESSIONS`` impressions of a part.

    As in Eq. (7), a behavior without a vector is left out; a target without one has 0.

    Args:
        data: Where they are.
        items: ``h^MM`` by ``item_index``.
        has_content: By ``item_index``: whether there is a vector.
        part: Of the split.
    """
    there = torch.from_numpy(has_content)
    unit = F.normalize(items, dim=-1).masked_fill(~there.unsqueeze(-1), 0.0)
    rows = np.array(data.rows(part))[-MAX_IMPRESSIONS:]
    scores, clicks = [], []
    for chosen in chunks(rows, IMPRESSIONS_AT_ONCE):
        batch = data.batch(chosen, max_length=MAX_BEHAVIORS)
        counted = batch.mask & there[batch.behaviors]
        total = (unit[batch.behaviors] * counted.unsqueeze(-1)).sum(1)  # (B, C)
        scores.append((total * unit[batch.target]).sum(-1) / counted.sum(1).clamp(min=1))
        clicks.append(batch.clicks)
    return MeanCosines(rows, torch.cat(scores).numpy(), torch.cat(clicks).numpy())
