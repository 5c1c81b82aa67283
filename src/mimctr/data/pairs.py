"""Interest pairs <query, positive> for C-SFT (MIM Section 3.3), and their same-category hard negatives."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from numpy import ndarray

from mimctr.data.histories import Histories, history_ends
from mimctr.data.split import DAY, PARTS, Split
from mimctr.errors import ConfigError

CHUNK_ROWS = 2**21
"""Combinations of a positive with an earlier behavior that are in memory at a time."""
REACH = 8
"""How many times ``max_pairs`` of the newest queries are looked at first, and how much further each time."""
SCHEMA = {
    "query": pl.Int64,
    "query_item": pl.Int64,
    "item": pl.Int64,
    "user": pl.Int64,
    "time": pl.Int64,
    "kind": pl.String,
    "part": pl.String,
}
"""Columns of pairs.parquet: index in the queries (0 = none), ``item_index`` whose image is the query (0 = none),
positive, user, time of the positive, its kind, and the part of the split that the time lies in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRule:
    """Pairs from behaviors, for logs without visual search: an earlier item of the user queries a later one."""

    kinds: tuple[str, ...] = ("purchase",)
    """Kinds of behavior that may be a positive."""
    query_kinds: tuple[str, ...] = ("purchase",)
    """Kinds of behavior whose image may be the query."""
    window_days: float = 30.0
    """Most days between the query's behavior and the positive."""
    max_pairs: int = 5
    """Most pairs per positive; the newest queries are taken."""
    same_field: str | None = None
    """Item field in which query and positive agree, such as ``category``; None asks for nothing."""

    def __post_init__(self) -> None:
        if self.window_days <= 0:
            raise ConfigError(f"pairs.window_days: must be above 0, got {self.window_days}.")
        if self.max_pairs < 1:
            raise ConfigError(f"pairs.max_pairs: must be at least 1, got {self.max_pairs}.")

    def __str__(self) -> str:
        same = f" with the same {self.same_field}" if self.same_field else ""
        return (
            f"behaviors: query = image of an earlier {' or '.join(self.query_kinds)} of the same user, at most "
            f"{self.window_days:g} days before; positive = another item{same}, a later {' or '.join(self.kinds)}; "
            f"at most {self.max_pairs} pairs per positive, newest queries first"
        )


def pairs_from_behaviors(
    histories: Histories,
    *,
    kinds: list[str],
    has_image: Bool[ndarray, "items"],
    group: Int[ndarray, "items"] | None,
    rule: PairRule,
    split: Split,
) -> pl.DataFrame:
    """Return pairs by ``rule``, in the order of the positives.

    Args:
        histories: Behaviors by user and time.
        kinds: Vocabulary of kinds, without padding and unknown: kind 2 is ``kinds[0]``.
        has_image: By ``item_index``: whether the item can be a query.
        group: By ``item_index``: the value of ``rule.same_field`` (0 = none, which agrees with nothing).
        rule: What makes a pair.
        split: Decides the part.
    """
    number = {kind: index for index, kind in enumerate(kinds, start=2)}
    is_query = np.isin(histories.kind, [number[kind] for kind in rule.query_kinds if kind in number])
    queries = _select(histories, is_query & has_image[histories.item])
    positives = np.flatnonzero(
        np.isin(histories.kind, [number[kind] for kind in rule.kinds if kind in number])
    )
    user, time = histories.user[positives], histories.time[positives]
    ends = history_ends(queries, user=user, time=time)
    starts = history_ends(queries, user=user, time=time - round(rule.window_days * DAY))
    pairs = _look_back(histories, queries, positives, starts, ends, group=group, max_pairs=rule.max_pairs)
    kind_names = pl.Series(kinds, dtype=pl.String).gather(pairs["kind"].to_numpy() - 2)
    return finish_pairs(pairs.with_columns(query=pl.lit(0), kind=kind_names), split)


def _look_back(
    histories: Histories,
    queries: Histories,
    positives: Int[ndarray, "positives"],
    starts: Int[ndarray, "positives"],
    ends: Int[ndarray, "positives"],
    *,
    group: Int[ndarray, "items"] | None,
    max_pairs: int,
) -> pl.DataFrame:
    """Return the newest pairs of each positive: of few queries first, of ever more where those do not give enough."""
    frames = [_expand(histories, queries, positives[:0], starts[:0], ends[:0])]
    can_agree = np.full(len(positives), True) if group is None else group[histories.item[positives]] != 0
    waiting, reach = np.flatnonzero(can_agree), REACH * max_pairs
    while len(waiting):
        newest = np.maximum(starts[waiting], ends[waiting] - reach)
        unfinished = []
        for chunk in _chunks(ends[waiting] - newest):
            rows = waiting[chunk]
            frame = _expand(histories, queries, positives[rows], newest[chunk], ends[rows])
            if group is not None:
                frame = frame.filter(pl.Series(group[frame["query_item"]] == group[frame["item"]]))
            frame = _newest(frame, max_pairs)
            place = np.searchsorted(positives[rows], frame["positive"].to_numpy())
            full = np.bincount(place, minlength=len(rows)) == max_pairs
            done = full | (newest[chunk] == starts[rows])
            frames.append(frame.filter(pl.Series(done[place], dtype=pl.Boolean)))
            unfinished.append(rows[~done])
        waiting, reach = np.concatenate(unfinished), REACH * reach
    return pl.concat(frames).sort("positive", maintain_order=True).drop("positive")


def finish_pairs(pairs: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Return ``pairs`` with their part, in the columns of ``SCHEMA``."""
    parts = pl.Series(list(PARTS), dtype=pl.String).gather(split.part_of(pairs["time"].to_numpy()))
    return pairs.with_columns(part=parts).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def _chunks(lengths: Int[ndarray, "positives"]) -> Iterator[slice]:
    """Yield positives that have :data:`CHUNK_ROWS` queries together, or one that has more."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        done = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK_ROWS, side="right")))
        yield slice(first, last)
        first = last


def _select(histories: Histories, chosen: Bool[ndarray, "behaviors"]) -> Histories:
    before = np.concatenate([[0], np.cumsum(chosen)])
    arrays = (array[chosen] for array in histories[1:])
    return Histories(before[histories.offsets], *arrays)


def _expand(
    histories: Histories,
    queries: Histories,
    positives: Int[ndarray, "positives"],
    starts: Int[ndarray, "positives"],
    ends: Int[ndarray, "positives"],
) -> pl.DataFrame:
    """Return every (positive, query in its window) with different items, newest query first."""
    lengths = ends - starts
    row = np.repeat(np.arange(len(positives)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    query = ends[row] - 1 - within
    positive = positives[row]
    frame = pl.DataFrame(
        {
            "positive": positive,
            "query_item": queries.item[query],
            "item": histories.item[positive],
            "user": histories.user[positive],
            "time": histories.time[positive],
            "kind": histories.kind[positive],
        }
    )
    return frame.filter(pl.col("query_item") != pl.col("item"))


def _newest(frame: pl.DataFrame, max_pairs: int) -> pl.DataFrame:
    """Return at most ``max_pairs`` different queries per positive, the first ones."""
    distinct = frame.unique(["positive", "query_item"], keep="first", maintain_order=True)
    rank = pl.int_range(pl.len()).over("positive")
    return distinct.filter(rank < max_pairs)


class HardNegatives:
    """Draws hard negatives: another item of the positive's category (ST-NSG, MIM Section 3.3).

    Args:
        category: By ``item_index``: index of the category, 0 where the item has none.
        first_seen_time: By ``item_index``, seconds UTC; entries 0 and 1 are not looked at.
        before: Only items first seen before this time are drawn, so that no future item trains a model.
    """

    def __init__(
        self, category: Int[ndarray, "items"], first_seen_time: Int[ndarray, "items"], *, before: int
    ) -> None:
        known = np.flatnonzero(first_seen_time[2:] < before) + 2
        if len(known) < 2:
            raise ConfigError(
                f"hard negatives: {len(known)} items were seen before {before}; at least 2 are needed."
            )
        order = known[np.argsort(category[known], kind="stable")]
        counts = np.bincount(category[order], minlength=int(category.max()) + 1)
        self._category = category
        self._items = order
        self._starts = np.cumsum(counts) - counts
        self._counts = counts
        self._place = np.full(len(category), -1, dtype=np.int64)
        self._place[order] = np.arange(len(order))

    def draw(
        self, positives: Int[ndarray, "pairs"], generator: np.random.Generator
    ) -> tuple[Int[ndarray, "pairs"], Bool[ndarray, "pairs"]]:
        """Draw one hard negative for every positive, uniformly.

        Returns:
            items: ``item_index``, never the positive itself.
            hard: False where the positive is alone in its category (or has none): any other item then.
        """
        category = self._category[positives]
        place = self._place[positives]
        others = np.where(category > 0, self._counts[category] - (place >= 0), 0)
        hard = others > 0
        start = np.where(hard, self._starts[category], 0)
        size = np.where(hard, others, len(self._items) - (place >= 0))
        drawn = start + (generator.random(len(positives)) * size).astype(np.int64)
        drawn += (place >= start) & (drawn >= place)  # step over the positive's own place
        return self._items[drawn], hard
