"""The deep part of a CTR model."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, activate, make_activation
from mimctr.ubm.linear import Linear
from mimctr.ubm.products import full_precision
from mimctr.ubm.statistics import RunningStatistics


class Mlp(nn.Module):
    """Hidden layers with an activation and dropout each, and one output: a logit.

    Args:
        dim: Width of the input.
        hidden_dims: Widths of the hidden layers.
        activation: After each hidden layer.
        dropout: Share of hidden units left out in training.
    """

    def __init__(
        self, dim: int, *, hidden_dims: tuple[int, ...], activation: ActivationName, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise([dim, *hidden_dims]))
        self.activations = nn.ModuleList(make_activation(activation, width) for width in hidden_dims)
        self.out = nn.Linear([dim, *hidden_dims][-1], 1)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch"]:
        """Return the logit."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activate(activation, layer(x))
            if self.dropout > 0:
                x = F.dropout(x, self.dropout, training=self.training)
        with torch.autocast(x.device.type, enabled=False):  # logits in bfloat16 would tie
            return self.out(full_precision(x)).squeeze(-1)


class BatchNorm(nn.Module):
    """Batch norm without affine part; a single row, which has no variance, is normalized by the running statistics.

    Args:
        dim: Number of inputs.
        epsilon: Keeps the square root from 0.
    """

    def __init__(self, dim: int, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.statistics = RunningStatistics(dim, momentum=0.1, fewest=2)
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        """Return ``x`` with each column at mean 0 and variance 1."""
        mean, variance = self.statistics(x)
        return (x - mean) * torch.rsqrt(variance + self.epsilon)
