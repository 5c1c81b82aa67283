"""The deep part of a CTR model."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, activate, make_activation


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
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([dim, *hidden_dims]))
        self.activations = nn.ModuleList(make_activation(activation, width) for width in hidden_dims)
        self.out = nn.Linear([dim, *hidden_dims][-1], 1)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch"]:
        """Return the logit."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activate(activation, layer(x))
            if self.dropout > 0:
                x = F.dropout(x, self.dropout, training=self.training)
        return self.out(x).squeeze(-1)


class BatchNorm(nn.Module):
    """Batch norm without affine part, that takes a single row too: it is normalized by the running statistics.

    Args:
        dim: Number of inputs.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        """Return ``x`` with each column at mean 0 and variance 1."""
        if self.training and len(x) > 1:
            return self.norm(x)
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
