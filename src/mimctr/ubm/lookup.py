"""Rows of many behaviors, each different one looked up once.

The behaviors of a batch repeat: the same items, again and again. So a batch looks up its different items, and copies
their rows to where they stand. The gradient of a row is then the sum of its copies', taken in the order of one sort:
several times faster than adding each copy to a table as it comes.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Distinct(NamedTuple):
    """The different values of an index, and where each stands."""

    values: Int[Tensor, "distinct"]
    """In ascending order."""
    places: Int[Tensor, "*shape"]
    """Which of ``values`` stands there."""
    order: Int[Tensor, "entries"]
    """The places of the first value, one after another, then those of the second, and so on, in a flat index."""
    starts: Int[Tensor, "distinct"]
    """Where in ``order`` each value begins."""


def distinct(index: Int[Tensor, "*shape"]) -> Distinct:
    """Return the different values of ``index``."""
    ordered, order = index.flatten().sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = new.nonzero().squeeze(1)
    places = torch.empty_like(order).scatter_(0, order, new.cumsum(0) - 1)
    return Distinct(ordered[starts], places.view(index.shape), order, starts)


def spread(rows: Float[Tensor, "distinct dim"], where: Distinct) -> Float[Tensor, "*shape dim"]:
    """Return a row of each of ``where.values`` wherever that stands."""
    return _Spread.apply(rows, *where[1:])


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(order, starts)
        return F.embedding(places, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        order, starts = ctx.saved_tensors
        copies = gradient.reshape(-1, gradient.shape[-1])
        return F.embedding_bag(order, copies, starts, mode="sum"), None, None, None
