"""The two products that every attention over behaviors is made of, with gradients that cost one pass each.

Autograd would write the gradient of ``many`` as a product of a column and a row per impression, which a CPU does four
times slower than the same multiplication element by element, and that of a transposed factor in an order that the next
sum reads badly.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def is_shared(many: Tensor, others: Tensor) -> bool:
    """Return whether ``many`` is one history that all of several targets look at."""
    return many.shape[0] == 1 and others.shape[0] != 1


def dots(
    one: Float[Tensor, "batch dim"], many: Float[Tensor, "#batch length dim"]
) -> Float[Tensor, "batch length"]:
    """Return the inner product of each row of ``one`` with its rows of ``many``, or with those that all share."""
    if is_shared(many, one):
        return one @ many[0].T
    if torch.compiler.is_compiling():
        return _dots(one, many)
    return _Dots.apply(one, many)


def weighted_sum(
    weights: Float[Tensor, "batch length"],
    many: Float[Tensor, "#batch length dim"],
    trained: Int[Tensor, "trained"] | None = None,
) -> Float[Tensor, "batch dim"]:
    """Return the sum of the rows of ``many``, each times its weight.

    Args:
        weights: Of the rows.
        many: The rows; or those that all share, and ``trained`` is not looked at.
        trained: Where in the batch ``weights`` have a gradient that is wanted; None: everywhere.
    """
    if is_shared(many, weights):
        return weights @ many[0]
    if torch.compiler.is_compiling():
        return _weighted_sum(weights, many)
    return _WeightedSum.apply(weights, many, trained)


def _dots(one: Tensor, many: Tensor) -> Tensor:
    return torch.bmm(one.unsqueeze(1), many.transpose(1, 2)).squeeze(1)


def _weighted_sum(weights: Tensor, many: Tensor) -> Tensor:
    return torch.bmm(weights.unsqueeze(1), many).squeeze(1)


def full_precision(x: Tensor) -> Tensor:
    """Return ``x`` as float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, one: Tensor, many: Tensor) -> Tensor:
        ctx.dtypes = one.dtype, many.dtype
        with torch.autocast(one.device.type, enabled=False):
            one, many = full_precision(one), full_precision(many)
            ctx.save_for_backward(one, many)
            return _dots(one, many)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        one, many = ctx.saved_tensors
        return (
            _weighted_sum(gradient, many).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None,
            (gradient.unsqueeze(-1) * one.unsqueeze(1)).to(ctx.dtypes[1])
            if ctx.needs_input_grad[1]
            else None,
        )


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, many: Tensor, trained: Tensor | None) -> Tensor:
        ctx.dtypes = weights.dtype, many.dtype
        with torch.autocast(many.device.type, enabled=False):
            weights, many = full_precision(weights), full_precision(many)
            ctx.save_for_backward(weights, many, trained)
            return _weighted_sum(weights, many)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, many, trained = ctx.saved_tensors
        of_weights = of_many = None
        if ctx.needs_input_grad[0] and trained is None:
            of_weights = _dots(gradient, many).to(ctx.dtypes[0])
        elif ctx.needs_input_grad[0]:
            of_some = _dots(gradient[trained], many[trained])
            of_weights = torch.zeros_like(weights).index_copy_(0, trained, of_some).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            of_many = (weights.unsqueeze(-1) * gradient.unsqueeze(1)).to(ctx.dtypes[1])
        return of_weights, of_many, None
