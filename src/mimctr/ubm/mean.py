"""Avg Pooling: the plainest user behavior model of MIM's Table 2."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mimctr.ubm.interface import Interest, UserBehaviorModel
from mimctr.ubm.masking import zero_padding


class AvgPooling(UserBehaviorModel):
    """Every behavior counts the same, whatever the target: Eq. (1) with ``a = 1 / l``.

    Args:
        dim: Width D of an item's row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
        time_gaps: Int[Tensor, "batch length"],
        same_category: Bool[Tensor, "batch length"],
    ) -> Interest:
        """Return the mean of the real behaviors."""
        total = zero_padding(behaviors, mask).sum(dim=1)  # (B, D)
        return Interest(total / mask.sum(dim=1, keepdim=True).clamp(min=1), kept=mask)
