"""Rows of items and users, those of a request only: from the bundle, memory-mapped, or from a parameter store."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.center.stores.interface import ParameterStore, Space
from mimctr.center.stores.local import LocalStore
from mimctr.serve.bundle import Bundle, Table
from mimctr.ubm.embeddings import EmbeddingHalf


def trained_rows(
    embedding: EmbeddingHalf, table: Table, index: Int[Tensor, "entries"]
) -> Float[Tensor, "entries width"]:
    """Return what a table holds of some entries."""
    if table is Table.USERS:
        return embedding.user_vectors(index)
    categories = embedding.item_fields[index, :1]
    return torch.cat([embedding.item_vectors(index), categories.to(torch.float32)], dim=1)


class BoundTable(NamedTuple):
    """A table of one bundle on one store."""

    space: Space
    store: ParameterStore

    def rows(
        self, keys: Int[ndarray, "keys"], *, unknown: Float[ndarray, "width"]
    ) -> Float[ndarray, "keys width"]:
        """Return the rows of ``keys``; ``unknown`` where there is none, or a damaged one.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        found = self.store.fetch(self.space, keys)
        return np.where(found.known[:, None], found.vectors, unknown)


Tables = Mapping[Table, BoundTable]


def embedded_tables(bundle: Bundle) -> Tables:
    """Return the tables in the bundle's own files."""
    return {table: BoundTable(bundle.manifest.space(table), _embedded(bundle, table)) for table in Table}


def remote_tables(bundle: Bundle, open_store: Callable[[str], ParameterStore]) -> Tables:
    """Return the tables that :func:`publish_tables` put on a parameter store.

    Args:
        bundle: Whose tables.
        open_store: Opens the store of the rows that have a name of their own.
    """
    return {
        table: BoundTable(bundle.manifest.space(table), open_store(table_name(bundle, table)))
        for table in Table
    }


def publish_tables(bundle: Bundle, open_store: Callable[[str], ParameterStore]) -> None:
    """Put the tables of a bundle on a parameter store, whole; what is there already stays.

    Raises:
        StoreUnavailable: the store cannot be reached; call again.
    """
    for table, bound in remote_tables(bundle, open_store).items():
        if None in bound.store.watermarks(bound.space):
            bound.store.load(bound.space, bundle.open_table(table))


def table_name(bundle: Bundle, table: Table) -> str:
    """Return the name of a table on a parameter store: no other model has rows under it."""
    return f"{bundle.manifest.weights_hash[:16]}:{table}"


def _embedded(bundle: Bundle, table: Table) -> LocalStore:
    store, snapshot = LocalStore(), bundle.open_table(table)
    snapshot.expect_random_reads()
    store.load(bundle.manifest.space(table), snapshot)
    return store
