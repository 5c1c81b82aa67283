"""A prepared dataset on disk: memory-mapped, read in batches whose order depends on seed and epoch alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX, CtrBatch, pad_positions
from mimctr.data.arrays import open_array
from mimctr.data.blobs import BlobStore
from mimctr.data.manifest import Fields, Manifest
from mimctr.data.split import Part
from mimctr.errors import DataError

IMPRESSION_ARRAYS = (
    "target",
    "time",
    "click",
    "query",
    "end",
    "user_fields",
    "query_fields",
    "context_fields",
)
OPTIONAL_ARRAYS = ("true_probability", "bid", "position", "propensity")
BEHAVIOR_ARRAYS = ("offsets", "item", "time", "kind")


@dataclass(frozen=True, kw_only=True, slots=True)
class Impressions:
    """All impressions, sorted by time; memory-mapped. Indices are int32 on disk."""

    target: Int[ndarray, "impressions"]
    """``item_index`` of the shown item."""
    time: Int[ndarray, "impressions"]
    """Seconds UTC, int64, ascending."""
    click: Int[ndarray, "impressions"]
    """0 or 1, uint8."""
    query: Int[ndarray, "impressions"]
    """Index of the query; 0 = none."""
    end: Int[ndarray, "impressions"]
    """Position in the behaviors behind the last one this impression may see, int64."""
    user_fields: Int[ndarray, "impressions user_fields"]
    query_fields: Int[ndarray, "impressions query_fields"]
    context_fields: Int[ndarray, "impressions context_fields"]
    true_probability: Float[ndarray, "impressions"] | None
    """Known click probability of generated data, float64: a ceiling for metrics, never a feature."""
    bid: Float[ndarray, "impressions"] | None
    position: Int[ndarray, "impressions"] | None
    """Place on the page, smaller is further up; -1 where it is not known. Never a feature."""
    propensity: Float[ndarray, "impressions"] | None
    """Probability with which the item stood at its place of the page, float64; NaN where it is not known."""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def user(self) -> Int[ndarray, "impressions"]:
        """User index of each impression: column 0 of ``user_fields``."""
        return self.user_fields[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviors:
    """Every user's behaviors once, memory-mapped; user ``u`` owns ``offsets[u]:offsets[u + 1]``, oldest first."""

    offsets: Int[ndarray, "users_plus_3"]
    item: Int[ndarray, "behaviors"]
    """``item_index``."""
    time: Int[ndarray, "behaviors"]
    """Seconds UTC, int64."""
    kind: Int[ndarray, "behaviors"]
    """Index in the vocabulary of kinds."""

    def __len__(self) -> int:
        return len(self.time)


class Queries:
    """Every different query, text and image together. Query index ``q`` is row ``q - 1``; 0 is no query."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.images = BlobStore.open(folder / "images")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def texts(self) -> list[str | None]:
        """Text by row; None for a query that is only an image."""
        return pl.read_parquet(self._folder / "queries.parquet")["text"].to_list()


class CtrDataset:
    """What ``prepare_tables`` wrote, opened for reading.

    Row ``r`` of ``items`` and of ``item_images`` is ``item_index`` ``r + 2``; arrays named ``item_*`` and ``user_*``
    are by index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.impressions = _open_impressions(folder / "impressions")
        behaviors = {name: open_array(folder / "behaviors" / f"{name}.npy") for name in BEHAVIOR_ARRAYS}
        self.behaviors = Behaviors(**behaviors)
        self.queries = Queries(folder / "queries")
        self.item_images = BlobStore.open(folder / "items" / "images")
        self.item_keys: Int[ndarray, items] = open_array(folder / "items" / "keys.npy")
        self.item_fields: Int[ndarray, "items fields"] = open_array(folder / "items" / "fields.npy")
        self.item_train_counts: Int[ndarray, items] = open_array(folder / "items" / "train_counts.npy")
        self.user_train_counts: Int[ndarray, users] = open_array(folder / "users" / "train_counts.npy")

    @classmethod
    def open(cls, folder: Path) -> "CtrDataset":
        """Open a dataset; arrays and images are mapped, not read.

        Raises:
            RunError: the folder is no dataset, is incomplete, or is of another schema version.
        """
        return cls(folder)

    @property
    def fields(self) -> Fields:
        """Vocabulary sizes of the categorical fields, in column order."""
        return self.manifest.fields

    @property
    def num_items(self) -> int:
        """Items in the catalogue; the last ``item_index`` is this plus 1."""
        return len(self.item_keys) - FIRST_INDEX

    @property
    def num_users(self) -> int:
        """Users in the log; the last user index is this plus 1."""
        return len(self.user_train_counts) - FIRST_INDEX

    @cached_property
    def items(self) -> pl.DataFrame:
        """The catalogue, one row an item, in the order of ``item_index``."""
        return pl.read_parquet(self.folder / "items.parquet")

    @cached_property
    def users(self) -> pl.DataFrame:
        """``user_index`` and ``user_id``, in the order of ``user_index``."""
        return pl.read_parquet(self.folder / "users.parquet")

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Interest pairs of C-SFT: query, query_item, item, user, time, kind, part."""
        return pl.read_parquet(self.folder / "pairs.parquet")

    def vocabulary(self, group: Literal["item", "user", "query", "context"], field: str) -> pl.DataFrame:
        """Return ``index``, ``value`` and ``count`` of a categorical field; items count in the catalogue, others in
        the training part.
        """
        table = pl.read_parquet(self.folder / "vocabularies" / f"{group}.parquet")
        return table.filter(pl.col("field") == field).drop("field")

    def rows(self, part: Part) -> range:
        """Return the impressions of a part: consecutive rows, as all are sorted by time."""
        return self.manifest.split.rows(self.impressions.time, part)

    def impression_table(self, rows: Int[ndarray, "rows"] | range) -> pl.DataFrame:
        """Return row, user_id and item_id (as in the raw tables), time and click of some impressions."""
        rows = np.asarray(rows)
        impressions = self.impressions
        return pl.DataFrame(
            {
                "row": rows,
                "user_id": self.users["user_id"].gather(impressions.user[rows] - FIRST_INDEX),
                "item_id": self.items["item_id"].gather(impressions.target[rows] - FIRST_INDEX),
                "time": impressions.time[rows],
                "click": impressions.click[rows],
            }
        )

    def batch(self, rows: Int[ndarray, "batch"], *, max_length: int) -> CtrBatch:
        """Return the impressions ``rows`` with what each of them may know.

        Args:
            rows: Rows of ``impressions``, any order, repeats allowed.
            max_length: Most behaviors per impression, the newest are kept.
        """
        impressions, behaviors, rows = self.impressions, self.behaviors, np.asarray(rows)
        user_fields = impressions.user_fields[rows].astype(np.int64)
        start = behaviors.offsets[user_fields[:, 0]]
        positions, mask = pad_positions(start, impressions.end[rows], max_length)  # (B, L)
        gaps = impressions.time[rows][:, None] - _take(behaviors.time, positions, mask)  # (B, L)
        return CtrBatch(
            user_fields=torch.from_numpy(user_fields),
            query_fields=torch.from_numpy(impressions.query_fields[rows].astype(np.int64)),
            context_fields=torch.from_numpy(impressions.context_fields[rows].astype(np.int64)),
            query=torch.from_numpy(impressions.query[rows].astype(np.int64)),
            target=torch.from_numpy(impressions.target[rows].astype(np.int64)),
            behaviors=torch.from_numpy(_take(behaviors.item, positions, mask)),
            kinds=torch.from_numpy(_take(behaviors.kind, positions, mask)),
            time_gaps=torch.from_numpy(np.where(mask, gaps, 0)),
            mask=torch.from_numpy(mask),
            clicks=torch.from_numpy(impressions.click[rows].astype(np.float32)),
        )

    def batches(
        self,
        rows: range | Int[ndarray, "rows"],
        *,
        batch_size: int,
        max_length: int,
        seed: int | None,
        epoch: int = 0,
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[CtrBatch]:
        """Yield ``rows`` in batches; the last one may be smaller.

        Args:
            rows: Rows of ``impressions``.
            batch_size: Impressions per batch. Paper: 1024.
            max_length: Most behaviors per impression.
            seed: With ``epoch`` it decides the order; None keeps the order of ``rows``.
            epoch: Every epoch has its own order.
            start: First batch to yield: a resumed run gets exactly the batches that are left.
            part: Which of how many parts of every batch, as equal as can be and maybe empty.

        Raises:
            DataError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}.")
        order = np.asarray(rows, dtype=np.int64)
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(order)
        for first in range(start * batch_size, len(order), batch_size):
            which, count = part
            yield self.batch(
                np.array_split(order[first : first + batch_size], count)[which], max_length=max_length
            )


def _take(
    values: Int[ndarray, "behaviors"],
    positions: Int[ndarray, "batch length"],
    mask: Bool[ndarray, "batch length"],
) -> Int[ndarray, "batch length"]:
    """Return ``values`` at ``positions`` as int64; 0 where ``mask`` is False."""
    if not len(values):
        return np.zeros(positions.shape, dtype=np.int64)
    return np.where(mask, values[positions], 0).astype(np.int64, copy=False)


def _open_impressions(folder: Path) -> Impressions:
    arrays: dict[str, Any] = {name: open_array(folder / f"{name}.npy") for name in IMPRESSION_ARRAYS}
    optional: dict[str, Any] = {
        name: open_array(folder / f"{name}.npy") if (folder / f"{name}.npy").exists() else None
        for name in OPTIONAL_ARRAYS
    }
    return Impressions(**arrays, **optional)
