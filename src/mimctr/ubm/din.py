"""Deep Interest Network (Zhou et al., KDD 2018, arXiv:1706.06978), Section 4.3.

The paper pools with unnormalized weights, so that the intensity of an interest is kept; the authors' released code
divides by the square root of the width and takes a softmax. Both are here, the paper's form is the default.
"""

import math

from jaxtyping import Float
from torch import Tensor

from mimctr.ubm.activation_unit import ActivationUnit
from mimctr.ubm.activations import ActivationName
from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.products import weighted_sum


class DIN(UserBehaviorModel):
    """Sum of a user's behaviors, each weighted by its relevance for the target: Eq. (1).

    Args:
        dim: Width D of an item's row.
        hidden_dims: Widths of the hidden layers of the relevance MLP.
        activation: Activation of the relevance MLP.
        softmax: Normalize the weights (authors' code). The paper does not.
        scale: Divide the relevance by ``sqrt(dim)`` (authors' code).
    """

    any_length = True

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
        relevance = self.relevance(target, behaviors, history.mask) * self.factor  # (B, L)
        if self.softmax:
            weights = masked_softmax(relevance, history.mask)
        else:
            weights = relevance.masked_fill(~history.mask, 0.0)
        return Interest(weighted_sum(weights, behaviors), kept=history.mask)
