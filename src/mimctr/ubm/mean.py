"""Avg Pooling: the plainest user behavior model of MIM's Table 2."""

from jaxtyping import Float
from torch import Tensor

from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.masking import zero_padding
from mimctr.ubm.products import weighted_sum


class AvgPooling(UserBehaviorModel):
    """Every behavior counts the same, whatever the target: Eq. (1) with ``a = 1 / l``.

    Args:
        dim: Width D of an item's row.
    """

    any_length = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the mean of the real behaviors."""
        behaviors = zero_padding(history.behaviors, history.mask)
        weights = history.mask / history.mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, L)
        return Interest(weighted_sum(weights, behaviors), kept=history.mask)
