"""Deep Interest Network (Zhou et al., KDD 2018, arXiv:1706.06978), Section 4.3.

The paper pools with unnormalized weights, so that the intensity of an interest is kept; the authors' released code
divides by the square root of the width and takes a softmax. Both are here, the paper's form is the default.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, Dice, activate, make_activation
from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.parts import impressions_at_once
from mimctr.ubm.products import weighted_sum


class ActivationUnit(nn.Module):
    """The relevance of a behavior for the target: an MLP over ``[q, k, q - k, q ∘ k]``.

    The first layer is never applied to that concatenation. With its weight split as ``[W1 W2 W3 W4]``,

        [q, k, q - k, q ∘ k] W = q (W1 + W3) + k (W2 - W3 + diag(q) W4),

    which is one product per impression instead of one with inputs four times as wide per behavior.

    Args:
        dim: Width D of target and behavior.
        hidden_dims: Widths of the hidden layers (authors' code: 80 and 40).
        activation: Between the layers (authors' code: sigmoid; paper: Dice).
    """

    def __init__(self, dim: int, *, hidden_dims: tuple[int, ...], activation: ActivationName) -> None:
        super().__init__()
        widths = [4 * dim, *hidden_dims]
        self.first = nn.Linear(widths[0], widths[1])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[1:]))
        self.activations = nn.ModuleList(make_activation(activation, width) for width in hidden_dims)
        self.out = nn.Linear(hidden_dims[-1], 1)

    @property
    def reads_whole_batch(self) -> bool:
        """Whether the relevance of one impression depends on the others, as Dice's statistics in training do."""
        return self.training and any(isinstance(activation, Dice) for activation in self.activations)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length"]:
        """Return the relevance; its value at padding is finite and means nothing."""
        x = self._first_layer(target, behaviors)  # (B, L, hidden)
        x = activate(self.activations[0], x, mask)
        for layer, activation in zip(self.hidden, self.activations[1:], strict=True):
            x = activate(activation, layer(x), mask)
        return self.out(x).squeeze(-1)

    def _first_layer(self, target: Tensor, behaviors: Tensor) -> Tensor:
        w1, w2, w3, w4 = self.first.weight.T.chunk(4)  # (D, hidden) each
        constant = torch.addmm(self.first.bias, target, w1 + w3)  # (B, hidden)
        factor = w2 - w3 + target.unsqueeze(-1) * w4  # (B, D, hidden)
        return torch.baddbmm(constant.unsqueeze(1), behaviors, factor)  # (B, L, hidden)


class DIN(UserBehaviorModel):
    """Sum of a user's behaviors, each weighted by its relevance for the target: Eq. (1).

    Args:
        dim: Width D of an item's row.
        hidden_dims: Widths of the hidden layers of the relevance MLP.
        activation: Activation of the relevance MLP.
        softmax: Normalize the weights (authors' code). The paper does not.
        scale: Divide the relevance by ``sqrt(dim)`` (authors' code).
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dims: tuple[int, ...] = (80, 40),
        activation: ActivationName = "sigmoid",
        softmax: bool = False,
        scale: bool = False,
    ) -> None:
        super().__init__()
        self.width = dim
        self.relevance = ActivationUnit(dim, hidden_dims=hidden_dims, activation=activation)
        self.softmax = softmax
        self.factor = 1 / math.sqrt(dim) if scale else 1.0

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return ``sum_i a_i h_i``."""
        behaviors = zero_padding(history.behaviors, history.mask)
        whole = target, behaviors, history.mask
        if self.relevance.reads_whole_batch:
            return Interest(self._pool(*whole), kept=history.mask)
        count = impressions_at_once(target.shape[0], target.device)
        parts = zip(*(tensor.split(count) for tensor in whole), strict=True)
        return Interest(torch.cat([self._pool(*part) for part in parts]), kept=history.mask)

    def _pool(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch dim"]:
        relevance = self.relevance(target, behaviors, mask) * self.factor  # (B, L)
        weights = masked_softmax(relevance, mask) if self.softmax else relevance.masked_fill(~mask, 0.0)
        return weighted_sum(weights, behaviors)
