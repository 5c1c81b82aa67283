"""What a step of C-SFT trains on: interest pairs and drawn negatives, by step number."""

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.data.dataset import CtrDataset
from mimctr.data.pairs import HardNegatives
from mimctr.distributed import own_rows
from mimctr.recipes.content import epoch_batch, step_size
from mimctr.recipes.csft_config import Config
from mimctr.recipes.visual_search import Pairs, item_times, pair_table


class Batch(NamedTuple):
    """What a step trains on."""

    pictures: Int[ndarray, "batch"]
    """Rows in the decoded pictures of the query images; -1 where a text asks."""
    texts: Int[ndarray, "batch"]
    """Rows in the titles of the query texts that ask; -1 where a picture does."""
    query_items: Int[ndarray, "batch"]
    """``item_index`` whose picture is the query; 0 = none."""
    items: Int[ndarray, "candidates"]
    """``item_index``: the positives in the order of the queries, then as many of each sort of drawn negatives."""
    item_keys: Int[Tensor, "candidates"]
    users: Int[ndarray, "batch"]
    """Who bought the positives."""
    category: Int[Tensor, "candidates"]
    """Index of the item's category; 0 where it has none."""

    def share(self) -> "Batch":
        """Return this process's pairs with their drawn negatives."""
        count = len(self.pictures)
        own = own_rows(count)
        candidates = np.arange(len(self.items)).reshape(-1, count)[:, own].reshape(-1)
        return Batch(
            self.pictures[own],
            self.texts[own],
            self.query_items[own],
            self.items[candidates],
            self.item_keys[candidates],
            self.users[own],
            self.category[candidates],
        )


class Examples:
    """Training pairs by step, each with its drawn negatives: one of the positive's category, one of any.

    Drawn are items first seen before the validation part: later ones would be negatives only, and held-out
    search would count that against them. Nor are items without picture and title, which say nothing.

    Args:
        data: Says categories and keys.
        pairs: Of the training part.
        has_content: By ``item_index``: whether it has picture or title.
        config: Settings.

    Raises:
        ConfigError: there are fewer pairs than processes, or a batch does not divide over them; or fewer than two
            items that can be drawn.
    """

    def __init__(
        self, data: CtrDataset, pairs: Pairs, has_content: Bool[ndarray, "items"], config: Config
    ) -> None:
        self._pairs = pairs
        self._config = config
        self._keys = data.item_keys
        self.batch_size = step_size(len(pairs), config.batch_size)
        first_seen = item_times(data, has_content)
        self._category = data.item_fields[:, 0].astype(np.int64)
        groups = {"category": self._category, "any": np.ones_like(self._category)}
        self._negatives = [
            HardNegatives(groups[name], first_seen, before=data.manifest.validation_start)
            for name in config.drawn_negatives
        ]
        self._cumulative = cumulative_weights(pairs.user, balance=config.user_balance)
        self._bought = None
        if config.mask_bought:
            self._bought = bought_by_user(pair_table(data, "train", config.pair_kinds), len(self._keys))

    @property
    def num_candidates(self) -> int:
        """Items of a batch over all processes: 2 N P with hard negatives, as in the paper."""
        return self.batch_size * (1 + len(self._negatives))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step over all processes; the same in every run of the same seed."""
        seed = self._config.seed
        if self._config.user_balance:
            rows = weighted_batch(self._cumulative, self.batch_size, np.random.default_rng([seed, 2, step]))
        else:
            rows = epoch_batch(len(self._pairs), batch_size=self.batch_size, seed=seed, step=step)
        positives = self._pairs.item[rows]
        candidates = [positives]
        for sort, negatives in enumerate(self._negatives):
            drawn, _ = negatives.draw(positives, np.random.default_rng([seed, 1, step, sort]))
            candidates.append(drawn)
        items = np.concatenate(candidates)
        return Batch(
            self._pairs.picture[rows],
            self._pairs.text[rows],
            self._pairs.query_item[rows],
            items,
            torch.from_numpy(self._keys[items]),
            self._pairs.user[rows],
            torch.from_numpy(self._category[items]),
        )

    def no_negatives(
        self, batch: Batch, pool_keys: Int[Tensor, "candidates"]
    ) -> tuple[Int[Tensor, "known"], Int[Tensor, "known"]] | None:
        """Return rows of queries and the keys of what their users bought, as far as they are in the pool.

        Args:
            batch: This process's.
            pool_keys: Item keys of all candidates.

        Returns:
            On the device of ``pool_keys``; None with ``mask_bought = false``.
        """
        if self._bought is None:
            return None
        buyers, items = self._bought
        users, place = np.unique(batch.users, return_inverse=True)
        starts = np.searchsorted(buyers, users)
        owner, bought = _spread(starts, np.searchsorted(buyers, users, side="right") - starts)
        keys = self._keys[items[bought]]
        there = np.isin(keys, pool_keys.numpy(force=True))
        owner, keys = (
            owner[there],
            keys[there],
        )  # only then once a row: a user may have many rows and purchases
        counts = np.bincount(owner, minlength=len(users))
        row, entry = _spread((counts.cumsum() - counts)[place], counts[place])
        return torch.from_numpy(row).to(pool_keys.device), torch.from_numpy(keys[entry]).to(pool_keys.device)


def bought_by_user(
    table: pl.DataFrame, num_items: int
) -> tuple[Int[ndarray, "bought"], Int[ndarray, "bought"]]:
    """Return users, ascending, and the ``item_index`` of what each bought or asked with, every item once.

    Args:
        table: Interest pairs, whether or not they can be trained on.
        num_items: One above the largest ``item_index``.
    """
    user, item, asking = (table[name].to_numpy() for name in ("user", "item", "query_item"))
    asks = asking > 0
    users, items = np.concatenate([user, user[asks]]), np.concatenate([item, asking[asks]])
    return np.divmod(np.unique(users * num_items + items), num_items)


def _spread(
    starts: Int[ndarray, "owners"], counts: Int[ndarray, "owners"]
) -> tuple[Int[ndarray, "places"], Int[ndarray, "places"]]:
    """Return ``counts`` places in a row from each start on, and before them whose they are."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, starts[owner] + np.arange(len(owner)) - np.repeat(counts.cumsum() - counts, counts)


def cumulative_weights(users: Int[ndarray, "pairs"], *, balance: float) -> Float[ndarray, "pairs"]:
    """Return the running sum, ending in 1, of weights (pairs of the pair's user) to the power of ``-balance``."""
    _, place, counts = np.unique(users, return_inverse=True, return_counts=True)
    cumulative = np.cumsum(counts[place] ** -float(balance))
    return cumulative / cumulative[-1]


def weighted_batch(
    cumulative: Float[ndarray, "pairs"], size: int, generator: np.random.Generator
) -> Int[ndarray, "batch"]:
    """Draw ``size`` rows by weight, one from each of ``size`` equal shares of the total, in random order."""
    shares = (np.arange(size) + generator.random(size)) / size
    rows = np.searchsorted(cumulative, shares, side="right").clip(max=len(cumulative) - 1)
    return generator.permutation(rows)
