"""A user behavior model of one's own: newer behaviors count more, by a learned half-life (docs/how-to/add-a-ubm.md)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.products import dots, weighted_sum

DAY = 86_400.0


class RecencyAttention(UserBehaviorModel):
    """Attention over behaviors that fades with their age: ``a_i ~ exp(<target, h_i> / sqrt(D)) * 2 ** (-age_i / T)``.

    Args:
        dim: Width D of an item's row.
        half_life_days: T at the start.
    """

    any_length = True  # the same operators at every length: one export does for all

    def __init__(self, dim: int, *, half_life_days: float = 30.0) -> None:
        super().__init__()
        self.width = dim
        self.log_half_life = nn.Parameter(torch.tensor(math.log(half_life_days)))

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the weighted sum of the real behaviors."""
        behaviors = zero_padding(history.behaviors, history.mask)
        ages = history.time_gaps.masked_fill(~history.mask, 0) / DAY  # (B, L), days
        fading = math.log(2.0) * ages / self.log_half_life.exp()
        scores = dots(target, behaviors) / math.sqrt(self.width) - fading
        return Interest(weighted_sum(masked_softmax(scores, history.mask), behaviors), kept=history.mask)
