"""The typed bundles of tensors that travel between data and models. Padding and masks are made here, nowhere else.

Behaviors stand oldest to newest, padded on the left: the newest behavior is always at the last position, and
truncation keeps the newest.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.errors import DataError

PADDING = 0
"""Index of "nothing here" in every vocabulary."""
UNKNOWN = 1
"""Index of "something never seen in training" in every vocabulary."""
FIRST_INDEX = 2
"""Index of a vocabulary's first real entry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Vectors that have been found but not fetched: which rows of a table."""

    table: Float[Tensor, "vectors content"] | Int[Tensor, "vectors content"]
    """On the CPU, finite; a snapshot's is memory-mapped, in float16 or int8."""
    rows: Int[Tensor, "*shape"]
    """-1 where there is no vector."""
    steps: Float[Tensor, "vectors"] | None = None
    """What one unit of a row of ``table`` is; None: 1."""

    def fetch(self) -> Float[Tensor, "*shape content"]:
        """Return the vectors as float32, on the CPU; zero where there is none."""
        return self._real(self._stored())

    def fetch_any(self) -> Float[Tensor, "*shape content"]:
        """Return the same, faster: where there is no vector, a finite one whose weight the caller makes 0."""
        return self._real(self._any_stored())

    def to(self, device: torch.device | str) -> "Lookup | Float[Tensor, '*shape content']":
        """Return the same on the CPU; the vectors themselves, as float32, on another device."""
        if torch.device(device).type == "cpu":
            return self
        return self._real(self._stored().to(device))

    def only(self, mask: Bool[Tensor, "*shape"]) -> "Lookup":
        """Return the same without the vectors where ``mask`` is False."""
        return replace(self, rows=self.rows.masked_fill(~mask, -1))

    def __getitem__(self, part: slice | Int[Tensor, "chosen"]) -> "Lookup":
        return replace(self, rows=self.rows[part])

    def _real(self, stored: Tensor) -> Float[Tensor, "*shape content"]:
        """Return stored vectors as float32, where they are."""
        if self.steps is None or len(self.table) == 0:
            return stored.float()
        return stored * self.steps[self.rows.clamp(min=0)].unsqueeze(-1).to(stored.device)

    def _stored(self) -> Tensor:
        vectors = self._any_stored()
        missing = (self.rows.flatten() < 0).nonzero().squeeze(1)
        vectors.view(-1, self.table.shape[1]).index_fill_(0, missing, 0)
        return vectors

    def _any_stored(self) -> Tensor:
        size = (*self.rows.shape, self.table.shape[1])
        if len(self.table) == 0:
            return self.table.new_zeros(size)
        return self.table.index_select(0, self.rows.flatten().clamp(min=0)).view(size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Content embeddings ``h^MM`` of a batch, looked up in the representation center.

    A vector that is not there is zero and its ``known`` is False. Of several candidates of one user, the vectors of
    behaviors and query may stand here once; those of behaviors are then no lookup.
    """

    target: Float[Tensor, "batch content"]
    target_known: Bool[Tensor, "batch"]
    behaviors: Float[Tensor, "#batch length content"] | Lookup
    """Where they are a lookup, whoever reads them fetches some at a time: all at once they are the largest tensor of a
    batch by far. :meth:`behavior_vectors` fetches all."""
    behaviors_known: Bool[Tensor, "#batch length"]
    query: Float[Tensor, "#batch content"]
    """``h_q^img`` of the query image, ``h_q^txt`` of a query that is only a text; zero where there is none."""
    query_known: Bool[Tensor, "#batch"]

    def behavior_vectors(self) -> Float[Tensor, "#batch length content"]:
        """Return the vectors of the behaviors."""
        return self.behaviors.fetch() if isinstance(self.behaviors, Lookup) else self.behaviors

    def fetched(self) -> "Content":
        """Return the same with the behaviors' vectors themselves."""
        return replace(self, behaviors=self.behavior_vectors())

    def to(self, device: torch.device | str) -> "Content":
        """Return a copy on ``device``."""
        return Content(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class CtrBatch:
    """Impressions with the behaviors that each may see. All indices are int64, 0 = padding, 1 = unknown."""

    user_fields: Int[Tensor, "batch user_fields"]
    """Column 0 is the user index."""
    query_fields: Int[Tensor, "batch query_fields"]
    """Column 0 is the index of the query text."""
    context_fields: Int[Tensor, "batch context_fields"]
    query: Int[Tensor, "batch"]
    """Index of the query (text and image together) in the dataset's query store; 0 = no query."""
    target: Int[Tensor, "batch"]
    """``item_index`` of the item that is scored."""
    behaviors: Int[Tensor, "batch length"]
    """``item_index`` of each behavior, oldest first, newest at the last position."""
    kinds: Int[Tensor, "batch length"]
    """What the user did (click, purchase ...): index in the vocabulary of kinds."""
    time_gaps: Int[Tensor, "batch length"]
    """Seconds from the behavior to the impression, at least 1; 0 at padding."""
    mask: Bool[Tensor, "batch length"]
    """True at a real behavior."""
    clicks: Float[Tensor, "batch"]
    content: Content | None = None
    """None until ``mimctr.center.attach`` puts it there."""

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device | str) -> "CtrBatch":
        """Return a copy on ``device``."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if getattr(self, field.name) is not None
        }
        return CtrBatch(**moved)

    def with_content(self, content: Content) -> "CtrBatch":
        """Return the same batch with ``content`` attached."""
        return replace(self, content=content)


def pad_positions(
    start: Int[ndarray, "batch"], end: Int[ndarray, "batch"], max_length: int
) -> tuple[Int[ndarray, "batch length"], Bool[ndarray, "batch length"]]:
    """Return where each padded position reads in a flat store, and which positions are real.

    Row ``b`` of the flat store's behaviors is ``start[b]:end[b]``, oldest first. The newest ``max_length`` are kept
    and right-aligned; ``length`` is the longest kept row, at least 1 so that no tensor is empty.

    Args:
        start: First position of each row, int64.
        end: One past the last position of each row, int64; not below ``start``.
        max_length: Most behaviors kept per row, at least 1.

    Returns:
        positions: int64; 0 where ``mask`` is False, so a gather never leaves the store.
        mask: True at a real behavior.

    Raises:
        DataError: an ``end`` lies before its ``start``, or ``max_length`` is below 1.
    """
    if max_length < 1:
        raise DataError(f"max_length must be at least 1, got {max_length}.")
    lengths = end - start
    if len(lengths) and lengths.min() < 0:
        row = int(lengths.argmin())
        raise DataError(f"history {row}: ends at {end[row]}, before its start {start[row]}.")
    kept = np.minimum(lengths, max_length)
    width = max(int(kept.max(initial=0)), 1)
    offsets = np.arange(-width, 0)  # newest is -1
    mask = offsets >= -kept[:, None]  # (B, L)
    positions = np.where(mask, end[:, None] + offsets, 0)  # (B, L)
    return positions, mask
