"""Choosing some of a user's behaviors: exact masks for the general search units of SIM and its successors.

Every real behavior comes before any padding, and exactly ``min(k, number of real behaviors)`` are kept.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mimctr.ubm.interface import History, Relevance
from mimctr.ubm.products import is_shared


def keep_newest(mask: Bool[Tensor, "batch length"], k: int) -> Bool[Tensor, "batch length"]:
    """Return ``mask`` with only its ``k`` newest (rightmost) True positions."""
    newer = mask.flip(1).cumsum(dim=1).flip(1)  # (B, L): True positions from here to the newest
    return mask & (newer <= k)


def keep_highest(
    scores: Float[Tensor, "batch length"], mask: Bool[Tensor, "#batch length"], k: int
) -> Bool[Tensor, "#batch length"]:
    """Return ``mask`` with only its ``k`` highest scores; of equal ones the newest, whatever runs this."""
    if k >= scores.shape[1]:
        return mask
    scores = scores.masked_fill(~mask, float("-inf"))
    last = scores.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)  # (B, 1)
    kept = (scores >= last) & mask
    looks = scores.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and bool((kept.sum(dim=1) <= k).all()):  # no ties, which most batches have none of
        return kept
    higher = (scores > last) & mask
    tied = kept & ~higher
    newer = tied.flip(1).cumsum(dim=1).flip(1)  # (B, L): tied positions from here to the newest
    return higher | (tied & (newer <= k - higher.sum(dim=1, keepdim=True)))


def keep_most_relevant(
    relevance: Relevance, mask: Bool[Tensor, "#batch length"], k: int
) -> Bool[Tensor, "#batch length"]:
    """Return ``mask`` with only its ``k`` highest cosines.

    A behavior that cannot be compared comes after all that can, also after those of a negative cosine; among such
    behaviors the newest come first. So a target without a vector keeps its user's ``k`` newest behaviors.
    """
    length = mask.shape[1]
    beyond_cosines = torch.arange(-length, 0, device=mask.device) - 1.0  # the newest at -2, older ones below
    scores = torch.where(relevance.known, relevance.cosine.float(), beyond_cosines)  # (B, L)
    return keep_highest(scores, mask, k)


def keep_in_turn(
    scores: Float[Tensor, "batch heads length"], mask: Bool[Tensor, "#batch length"], k: int
) -> Bool[Tensor, "#batch length"]:
    """Return ``mask`` with only the ``k`` positions that the heads name first.

    The heads take turns: the best of each head, then the second best of each head, and so on. A position that was
    named before does not count again.
    """
    batch, num_heads, length = scores.shape
    if k >= length:
        return mask
    best = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).topk(k, dim=2).indices  # (B, H, k)
    turns = torch.arange(k * num_heads, device=mask.device).view(k, num_heads).T  # (H, k)
    last = torch.full_like(scores[:, 0], k * num_heads, dtype=torch.long)
    first_named = last.scatter_reduce(1, best.flatten(1), turns.flatten().expand(batch, -1), "amin")  # (B, L)
    return keep_highest(-first_named.float(), mask, k)


def take_kept(history: History, kept: Bool[Tensor, "#batch length"], k: int) -> History:
    """Return the kept behaviors as a history of their own, with nothing beside them, none of it shared by targets.

    Args:
        history: Of which some are kept.
        kept: At most ``k`` True positions a row.
        k: Length of the new history, where the old one is longer.
    """
    size, length = history.same_category.shape
    if k >= length:
        return history._replace(mask=kept, negatives=None).expanded()
    relevance = history.relevance
    positions, real = kept_positions(kept, k)  # (B, k)
    shared = is_shared(history.behaviors, kept)
    first = 0 if shared else torch.arange(size, device=kept.device).unsqueeze(1) * length
    # By row: gather() goes by element, and takes over ten times as long.
    rows = history.behaviors.flatten(0, 1).index_select(0, (first + positions).flatten())
    return History(
        behaviors=rows.unflatten(0, positions.shape),
        mask=real,
        time_gaps=history.time_gaps.expand(size, -1).gather(1, positions),
        same_category=history.same_category.gather(1, positions),
        kinds=history.kinds.expand(size, -1).gather(1, positions),
        relevance=None
        if relevance is None
        else Relevance(*(part.gather(1, positions) for part in relevance)),
    )


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
