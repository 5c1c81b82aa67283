"""Put looked-up content embeddings into a batch. Keys are resolved to rows once, then every batch is a gather."""

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX, Content, CtrBatch, Lookup
from mimctr.center.snapshot import Snapshot
from mimctr.errors import CenterError


class ContentTable:
    """Content embeddings by ``item_index`` and by query index.

    Args:
        snapshot: Vectors of the items.
        item_rows: Row in ``snapshot`` of each ``item_index``; -1 where there is no vector.
        queries: Vectors of the queries, pictures or texts; None where nothing has been embedded.
        query_rows: Row in ``queries`` of each query index; -1 where there is no vector.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        item_rows: Int[ndarray, "items"],
        queries: Snapshot | None,
        query_rows: Int[ndarray, "queries"],
    ) -> None:
        self.snapshot = snapshot
        self.item_rows = item_rows
        self.queries = queries
        self.query_rows = query_rows

    @classmethod
    def from_snapshots(
        cls,
        item_keys: Int[ndarray, "items"],
        items: Snapshot,
        *,
        num_queries: int = 0,
        queries: Snapshot | None = None,
    ) -> "ContentTable":
        """Resolve a dataset's item keys and query indices against snapshots.

        Args:
            item_keys: By ``item_index``; -1 at padding and unknown (``CtrDataset.item_keys``).
            items: Snapshot of the items.
            num_queries: Queries in the dataset; their keys in ``queries`` are 1 ... ``num_queries``.
            queries: Snapshot of the queries.

        Raises:
            CenterError: the vectors of the queries have another width than those of the items.
        """
        if queries is not None and queries.dim != items.dim:
            raise CenterError(
                f"the vectors of the queries have {queries.dim} dimensions, those of the items {items.dim}. "
                "Run 'mimctr embed' again."
            )
        item_rows = items.rows(item_keys)
        item_rows[:FIRST_INDEX] = -1
        query_rows = np.full(num_queries + 1, -1)
        if queries is not None:
            query_rows[1:] = queries.rows(np.arange(1, num_queries + 1))
        return cls(items, item_rows, queries, query_rows)

    @property
    def dim(self) -> int:
        """Content dimension C."""
        return self.snapshot.dim

    def attach(self, batch: CtrBatch) -> CtrBatch:
        """Return ``batch`` with its ``content``; a vector that is not there is zero and not ``known``."""
        target = _look_up(self.snapshot, self.item_rows, batch.target)
        behaviors = _look_up(self.snapshot, self.item_rows, batch.behaviors)
        query = _look_up(self.queries or self.snapshot, self.query_rows, batch.query)
        return batch.with_content(
            Content(
                target=target.fetch(),
                target_known=target.rows >= 0,
                behaviors=behaviors,
                behaviors_known=(behaviors.rows >= 0) & batch.mask,
                query=query.fetch(),
                query_known=query.rows >= 0,
            )
        )

    def permuted(self, groups: Int[ndarray, "items"], *, seed: int) -> "ContentTable":
        """Return the leak control: vectors permuted among the items of each group (category).

        Args:
            groups: By ``item_index``; an item keeps its group's vectors, not its own.
            seed: Of the permutation.
        """
        rng = np.random.default_rng(seed)
        rows = self.item_rows.copy()
        held = np.flatnonzero(rows >= 0)
        shuffled = rng.permutation(held)
        # Two stable sorts by group line up each group's items with the same items in random order.
        into = held[np.argsort(groups[held], kind="stable")]
        come_from = shuffled[np.argsort(groups[shuffled], kind="stable")]
        rows[into] = self.item_rows[come_from]
        return ContentTable(self.snapshot, rows, self.queries, self.query_rows)


def _look_up(snapshot: Snapshot, rows: Int[ndarray, "indices"], index: Int[Tensor, "*shape"]) -> Lookup:
    return Lookup(
        table=torch.from_numpy(snapshot.vectors),
        rows=torch.from_numpy(rows)[index],
        steps=None if snapshot.steps is None else torch.from_numpy(snapshot.steps),
    )
