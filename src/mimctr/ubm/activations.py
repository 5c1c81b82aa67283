"""Activations of the CTR networks, Dice among them (Zhou et al., KDD 2018, arXiv:1706.06978, Eq. 8 and 9)."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.distributed import total
from mimctr.ubm.parts import ROWS
from mimctr.ubm.products import full_precision
from mimctr.ubm.statistics import RunningStatistics

ActivationName = Literal["relu", "prelu", "sigmoid", "dice"]


class Dice(nn.Module):
    """``f(s) = p s + (1 - p) alpha s`` with ``p = sigmoid((s - E[s]) / sqrt(Var[s] + epsilon))``.

    The statistics are those of a batch norm without affine part: of the batch in training, running ones in
    evaluation. They are taken over *real* rows only; padding is no evidence of how an input is distributed.

    Args:
        dim: Number of inputs D, each with its own ``alpha``, which starts at 0 as in the authors' code.
        momentum: Weight of the batch in the running statistics (PyTorch's convention; the authors' code: 0.01).
        epsilon: Keeps the square root from 0.
    """

    def __init__(self, dim: int, *, momentum: float = 0.01, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(dim))
        self.statistics = RunningStatistics(dim, momentum=momentum)
        self.epsilon = epsilon

    def forward(
        self, x: Float[Tensor, "*rows dim"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows dim"]:
        """Return ``f(x)``.

        Args:
            x: Any number of leading axes. Finite at padding too.
            mask: True at a real row; None = every row is real.
        """
        rows = full_precision(x.flatten(0, -2))
        real = None if mask is None else mask.flatten()
        with torch.no_grad():
            mean, variance = self.statistics(rows, real)
            scale = torch.rsqrt(variance + self.epsilon)
        if self.training and torch.is_grad_enabled():
            return _DiceOfBatch.apply(rows, real, self.alpha, mean, scale).view(x.shape)
        gate = torch.sigmoid((x - mean) * scale)
        return x * (self.alpha + (1 - self.alpha) * gate)


class _DiceOfBatch(torch.autograd.Function):
    """Dice whose mean and scale are those of the batch, and so have a gradient themselves; some rows at a time.

    With ``g`` the gradient of ``f``, ``z = (s - E[s]) scale`` and ``q = g s (1 - alpha) p (1 - p)`` that of ``z``, the
    gradient of a real ``s`` is, as for any batch norm,

        g (alpha + (1 - alpha) p) + scale (q - mean(q) - z mean(q z)),

    with means over the real rows of all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, real: Tensor | None, alpha: Tensor, mean: Tensor, scale: Tensor
    ) -> Tensor:
        gate, out = torch.empty_like(x), torch.empty_like(x)
        for rows, p, gated in _parts(x, gate, out):
            torch.addcmul(-mean * scale, rows, scale, out=p).sigmoid_()
            torch.addcmul(alpha, p, 1 - alpha, out=gated).mul_(rows)
        ctx.save_for_backward(x, real, alpha, mean, scale, gate)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, real, alpha, mean, scale, gate = ctx.saved_tensors
        of_alpha, summed, moment = (torch.zeros_like(alpha) for _ in range(3))
        slope, of_x = torch.empty_like(x), torch.empty_like(x)  # q = slope (1 - alpha)
        for g, rows, p, slopes, direct in _parts(gradient, x, gate, slope, of_x):
            of_gate = g * rows
            of_alpha += of_gate.sum(dim=0) - (of_gate * p).sum(dim=0)
            torch.ops.aten.sigmoid_backward.grad_input(of_gate, p, grad_input=slopes)
            summed += slopes.sum(dim=0)
            moment += (rows - mean).mul_(slopes).sum(dim=0)
            torch.addcmul(alpha, p, 1 - alpha, out=direct).mul_(g)
        count = torch.tensor(float(len(x)), device=x.device) if real is None else real.sum()
        factor = scale * (1 - alpha)
        share = factor / total(count).clamp(min=1)
        of_row = total(moment) * scale.square() * share
        constant = total(summed) * share - mean * of_row
        for rows, slopes, direct in _parts(x, slope, of_x):
            direct.addcmul_(slopes, factor).sub_(torch.addcmul(constant, rows, of_row))
        if real is not None:
            padding = (~real).nonzero().squeeze(1)  # not part of the means
            of_x.index_add_(0, padding, torch.addcmul(constant, x[padding], of_row))
        return of_x, None, of_alpha, None, None


def _parts(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(matrix.split(ROWS) for matrix in matrices), strict=True)


def make_activation(name: ActivationName, dim: int) -> nn.Module:
    """Return a fresh activation for ``dim`` inputs."""
    if name == "dice":
        return Dice(dim)
    if name == "prelu":
        return nn.PReLU(dim)
    return nn.Sigmoid() if name == "sigmoid" else nn.ReLU()


def activate(
    activation: nn.Module, x: Float[Tensor, "*rows dim"], mask: Bool[Tensor, "*rows"] | None = None
) -> Float[Tensor, "*rows dim"]:
    """Apply ``activation``; the mask goes to the one activation that needs it."""
    if isinstance(activation, Dice):
        return activation(x, mask)
    if isinstance(activation, nn.PReLU):
        return torch.where(x > 0, x, x * activation.weight)  # nn.PReLU expects its channels on axis 1
    return activation(x)
