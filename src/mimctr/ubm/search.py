"""Choosing some of a user's behaviors: exact masks for the general search units of SIM and its successors.

Every real behavior comes before any padding, and exactly ``min(k, number of real behaviors)`` are kept.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def keep_newest(mask: Bool[Tensor, "batch length"], k: int) -> Bool[Tensor, "batch length"]:
    """Return ``mask`` with only its ``k`` newest (rightmost) True positions."""
    newer = mask.flip(1).cumsum(dim=1).flip(1)  # (B, L): True positions from here to the newest
    return mask & (newer <= k)


def keep_highest(
    scores: Float[Tensor, "batch length"], mask: Bool[Tensor, "batch length"], k: int
) -> Bool[Tensor, "batch length"]:
    """Return ``mask`` with only its ``k`` highest scores; equal scores never make it more than ``k``."""
    if k >= scores.shape[1]:
        return mask
    best = scores.masked_fill(~mask, float("-inf")).topk(k, dim=1).indices  # (B, k)
    return torch.zeros_like(mask).scatter(1, best, True) & mask


def kept_positions(
    kept: Bool[Tensor, "batch length"], k: int
) -> tuple[Int[Tensor, "batch k"], Bool[Tensor, "batch k"]]:
    """Return where the kept behaviors stand, oldest first, right-aligned, and which of these are real.

    Args:
        kept: At most ``k`` True positions a row.
        k: Not above the length.
    """
    order = torch.arange(1, kept.shape[1] + 1, device=kept.device)
    newest_first = (order * kept).topk(k, dim=1).values  # (B, k): 1 + position, 0 = nothing
    oldest_first = newest_first.flip(1)
    return (oldest_first - 1).clamp(min=0), oldest_first > 0
