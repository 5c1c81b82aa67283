"""What every user behavior model (UBM) takes and returns: the slot of MIM Section 3.4."""

import abc
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Interest(NamedTuple):
    """What a user behavior model found out about a batch of impressions."""

    vector: Float[Tensor, "batch width"]
    """``h_B^ID`` of Eq. (1); exactly zero for an empty history."""
    kept: Bool[Tensor, "batch length"]
    """True at the behaviors that were used: all real ones, or those that a search kept."""
    auxiliary_logit: Float[Tensor, "batch"] | None = None
    """Logit of a click from the model's own auxiliary task, trained with its own CTR loss; None without one."""


class UserBehaviorModel(nn.Module, abc.ABC):
    """Turns a target and the behaviors of its user into an ID interest.

    A row of ``target`` and a row of ``behaviors`` is an item with all its fields, from shared tables, so both are as
    wide. Padding may hold anything, NaN included.
    """

    width: int
    """Width of the interest vector."""

    @abc.abstractmethod
    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
        time_gaps: Int[Tensor, "batch length"],
        same_category: Bool[Tensor, "batch length"],
    ) -> Interest:
        """Return the interest.

        Args:
            target: Embedding row of the item that is scored.
            behaviors: Embedding rows, oldest first, the newest at the last position.
            mask: True at a real behavior.
            time_gaps: Seconds from the behavior to the impression, at least 1; anything at padding.
            same_category: True where the behavior's item has the target's category; anything at padding.
        """
