"""Mini-batch aware regularization (Zhou et al., KDD 2018, arXiv:1706.06978, Section 5.2).

An L2 penalty of whole tables shrinks a row that no impression names as often as one that all do. Here a step penalizes
the rows that its batch names:

    gradient of w_j += λ α_mj / n_j * w_j,    α_mj = 1 where an impression of batch m names row j, else 0,

with ``n_j`` the number of training impressions that name it.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mimctr.batch import PADDING, CtrBatch
from mimctr.distributed import gather_padded, size
from mimctr.ubm.embeddings import EmbeddingHalf
from mimctr.ubm.sharded import held_rows


def count_impressions(
    embedding: EmbeddingHalf, batches: Iterable[CtrBatch]
) -> dict[str, Int[Tensor, "rows"]]:
    """Return ``n_j`` of every row that this process holds: one pass over the training impressions, without a model.

    Args:
        embedding: Whose tables.
        batches: Every training impression once, on the device of ``embedding``.
    """
    counts = {
        name: torch.zeros_like(_weight(embedding, name)[:, 0], dtype=torch.long) for name in embedding.tables
    }
    for batch in batches:
        for name, rows in embedding.named_rows(batch).items():
            ordered = rows.sort(dim=1).values
            first = torch.ones_like(ordered, dtype=torch.bool)
            first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
            named = held_rows(embedding.tables[name], ordered[first])
            counts[name] += named.bincount(minlength=len(counts[name]))
    return counts


def add_penalty(
    embedding: EmbeddingHalf, batch: CtrBatch, counts: dict[str, Int[Tensor, "rows"]], *, l2: float
) -> None:
    """Add the penalty's gradient to those of the tables, after those of all processes were summed.

    A table that the model makes nothing of, the kinds where content interest is all it reads, has none, and gets none.

    Args:
        embedding: Whose tables.
        batch: This process's part of the step's batch.
        counts: From :func:`count_impressions`, this batch's impressions among them.
        l2: λ; the paper sets it to 0.01.
    """
    for name, rows in embedding.named_rows(batch).items():
        weight = _weight(embedding, name)
        if weight.grad is None:
            continue
        named = _of_all(rows.unique())
        named = held_rows(embedding.tables[name], named[named != PADDING])
        penalty = l2 / counts[name][named].unsqueeze(1) * weight.detach()[named]
        if weight.grad.is_sparse:
            weight.grad = weight.grad + torch.sparse_coo_tensor(
                named.unsqueeze(0), penalty, weight.shape, check_invariants=False
            )
        else:
            weight.grad[named] += penalty


def _of_all(rows: Int[Tensor, "rows"]) -> Int[Tensor, "all_rows"]:
    """Return what any process names, once; PADDING may have joined it."""
    return rows if size() == 1 else gather_padded(rows).unique()


def _weight(embedding: EmbeddingHalf, name: str) -> nn.Parameter:
    return embedding.get_parameter(f"tables.{name}.weight")
