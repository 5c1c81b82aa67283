"""Space-time negatives (ST-NSG, MIM Section 3.3): candidates of all processes, and of the last k batches."""

import torch
from torch import Tensor, nn

from mimctr.csft.loss import Candidates, Pool
from mimctr.distributed import gather_rows, size
from mimctr.errors import ConfigError, DataError


def gather_candidates(own: Candidates, num_queries: int) -> Candidates:
    """Return the candidates of all processes, with gradient: the *space* of ST-NSG.

    Positives of all processes come first, then their drawn negatives sort by sort: the order of one process with
    the whole batch.

    Args:
        own: This process's positives, then as many of each sort of drawn negatives.
        num_queries: Positives of this process, N.
    """
    if size() == 1:
        return own
    dim = own.fused.shape[1]
    numbers = torch.stack([own.item_keys, own.has_image.long(), own.has_text.long()], dim=1)
    views = torch.cat([own.fused, own.image, own.text], dim=1)
    gathered = (
        gather_rows(rows).unflatten(0, (size(), -1, num_queries)).transpose(0, 1).flatten(0, 2)
        for rows in (numbers, views)
    )  # (sorts * processes * N, width)
    (keys, has_image, has_text), (fused, image, text) = (
        next(gathered).unbind(1),
        next(gathered).split(dim, dim=1),
    )
    return Candidates(keys, fused, image, text, has_image.bool(), has_text.bool())


class NegativeMemory(nn.Module):
    """Candidates of the last k batches, detached: the *time* of ST-NSG.

    A ring of k batches in buffers, so that a checkpoint of the module holds rows, pointer and fill. Use it as
    ``candidates = memory.extend(batch)``, loss, step, and only then ``memory.enqueue(batch)``: enqueued before the
    loss, every item of the batch would be its own, detached competitor.

    Args:
        num_batches: ``k``; 0 remembers nothing. Paper: 10.
        rows: Candidates of a batch, 2N with hard negatives.
        dim: Content dimension.
    """

    def __init__(self, num_batches: int, rows: int, dim: int) -> None:
        super().__init__()
        if num_batches < 0:
            raise ConfigError(f"num_memory_batches must be at least 0, got {num_batches}.")
        self.num_batches = num_batches
        self.rows = rows
        self.pointer: Tensor
        self.filled: Tensor
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        capacity = num_batches * rows
        self.register_buffer("item_keys", torch.zeros(capacity, dtype=torch.int64))
        for view in ("fused", "image", "text"):
            self.register_buffer(view, torch.zeros(capacity, dim))
        for flag in ("has_image", "has_text"):
            self.register_buffer(flag, torch.zeros(capacity, dtype=torch.bool))

    def extend(self, batch: Candidates) -> Pool:
        """Return ``batch``, followed by everything remembered."""
        count = int(self.filled) * self.rows
        if count == 0:
            return Pool(batch)
        return Pool(batch, Candidates(*(getattr(self, name)[:count] for name in Candidates._fields)))

    def enqueue(self, batch: Candidates) -> None:
        """Remember ``batch``, detached; the oldest batch leaves when the memory is full.

        Raises:
            DataError: the batch has another number of rows than the memory was made for.
        """
        if len(batch.item_keys) != self.rows:
            raise DataError(f"negative memory: a batch of {len(batch.item_keys)} rows, made for {self.rows}.")
        if self.num_batches == 0:
            return
        start = int(self.pointer) * self.rows
        for name in Candidates._fields:
            getattr(self, name)[start : start + self.rows] = getattr(batch, name).detach()
        self.pointer.copy_(torch.remainder(self.pointer + 1, self.num_batches))
        self.filled.copy_((self.filled + 1).clamp(max=self.num_batches))
