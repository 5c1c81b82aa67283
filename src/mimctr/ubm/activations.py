"""Activations of the CTR networks, Dice among them (Zhou et al., KDD 2018, arXiv:1706.06978, Eq. 8 and 9)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

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
        mean, variance = self.statistics(x.flatten(0, -2), None if mask is None else mask.flatten())
        gate = torch.sigmoid((x - mean) * torch.rsqrt(variance + self.epsilon))
        return x * (self.alpha + (1 - self.alpha) * gate)


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
