"""The vectors of one encoder: who is near whom, and what content makes of behaviors; which of several is meant."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.center.attach import ContentTable
from mimctr.center.record import decode
from mimctr.report.summary import TUNED
from mimctr.ubm.content_interest import cosine

ROWS_AT_ONCE = 65_536
STAGES = (("plain",), ("pretrained", "dma"), TUNED)
"""Encoders in the order of training, as 'mimctr run' and as 'mimctr reproduce' name them: plain, after DMA, C-SFT."""
OF_A_SEED = re.compile(r"(?P<encoder>.+)-seed(?P<seed>[0-9]+)")


def split_seed(name: str) -> tuple[str, int | None]:
    """Return the encoder and the seed of a folder of vectors; no seed where its name has none."""
    found = OF_A_SEED.fullmatch(name)
    return (found["encoder"], int(found["seed"])) if found else (name, None)


def of_stage(names: Iterable[str], stage: Sequence[str]) -> str | None:
    """Return the name that stands for a stage of training: without a seed, else with the smallest; None: there is none.

    >>> of_stage(["mim-seed10", "mim-seed9", "without_tfn-seed0"], TUNED)
    'mim-seed9'
    """
    own = [
        (seed is not None, seed or 0, name)
        for name in names
        for one, seed in [split_seed(name)]
        if one in stage
    ]
    return min(own)[2] if own else None


def preferred_of(names: Sequence[str]) -> str | None:
    """Return the encoder that is meant where none is named: that of C-SFT, else the last; None where there is none."""
    return of_stage(names, TUNED) or next(reversed(names), None)


def in_order(names: Sequence[str]) -> list[str]:
    """Return names in the order of training, one for each stage; then the others, by name and seed."""
    first = [name for stage in STAGES if (name := of_stage(names, stage)) is not None]
    others = sorted(
        set(names) - set(first), key=lambda name: (split_seed(name)[0], split_seed(name)[1] or 0, name)
    )
    return first + others


def decoded(table: ContentTable, items: Int[ndarray, "some"]) -> Float[ndarray, "some content"]:
    """Return the content embeddings of some items, float32; zero where there is none."""
    rows = table.item_rows[items]
    vectors = np.zeros((len(items), table.dim), np.float32)
    held = np.flatnonzero(rows >= 0)
    for start in range(0, len(held), ROWS_AT_ONCE):
        some = held[start : start + ROWS_AT_ONCE]
        vectors[some] = decode(table.snapshot.payload(rows[some]), table.snapshot.manifest.dtype)
    return vectors


def all_decoded(table: ContentTable) -> Float[ndarray, "items content"]:
    """Return the content embeddings of all items, by ``item_index``."""
    return decoded(table, np.arange(len(table.item_rows)))


class Generation:
    """Content embeddings by ``item_index``; in the memory only while many are asked for.

    Args:
        name: Of the encoder's folder.
        table: As the run embedded them.
        centered_on: Categories on whose means the encoder centers vectors, so that the neighbors of an item are of its
            category; empty: all vectors are centered alike.
        decode_all: :func:`all_decoded`, that of several generations may keep some.
    """

    def __init__(
        self,
        name: str,
        table: ContentTable,
        *,
        centered_on: Sequence[str] = (),
        decode_all: Callable[[ContentTable], Float[ndarray, "items content"]] = all_decoded,
    ) -> None:
        self.name = name
        self.known: Bool[ndarray, items] = table.item_rows >= 0
        self.centered_on = centered_on
        self._table = table
        self._decode_all = decode_all

    def vector(self, item: int) -> Float[ndarray, "content"]:
        """Return the content embedding of an item; zero where it has none."""
        return decoded(self._table, np.array([item]))[0]

    def cosines(self, query: Float[ndarray, "content"]) -> Float[ndarray, "items"]:
        """Return the cosine of every item with ``query``; 0 where an item has no vector."""
        vectors = torch.from_numpy(self._decode_all(self._table))
        return cosine(torch.from_numpy(query)[None], vectors[None])[0].numpy()

    def nearest(
        self,
        query: Float[ndarray, "content"],
        *,
        num: int,
        without: int | None = None,
        among: Bool[ndarray, "items"] | None = None,
    ) -> list[tuple[int, float]]:
        """Return up to ``num`` items by cosine, highest first, ties by index.

        Args:
            query: Any length above 0.
            num: Most that are wanted.
            without: ``item_index`` that is left out.
            among: Items that are searched; None: all. Those without a vector never are.
        """
        allowed = self.known if among is None else self.known & among
        if without is not None:
            allowed = allowed & (np.arange(len(allowed)) != without)
        near = np.where(allowed, self.cosines(query), -np.inf)
        num = min(num, int(allowed.sum()))
        if not num:
            return []
        border = np.partition(near, -num)[-num]  # ties at the border are sorted out below
        some = np.flatnonzero(near >= border)
        best = some[np.lexsort((some, -near[some]))][:num]
        return [(int(item), float(near[item])) for item in best]

    def weights(self, target: int, behaviors: Int[ndarray, "length"]) -> list[float | None]:
        """Return ``a_{t,i}^MM`` of Eq. (7) for each behavior; None where it or the target has no vector."""
        if not self.known[target]:
            return [None] * len(behaviors)
        vectors = torch.from_numpy(decoded(self._table, behaviors))
        found = cosine(torch.from_numpy(self.vector(target))[None], vectors[None])[0]
        known = self.known[behaviors]
        return [float(value) if there else None for value, there in zip(found, known, strict=True)]
