"""Multi-level InfoNCE: MIM Section 3.3, Eq. (5) and (6). Where the negatives come from is not the loss's business."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOBODY = -1
"""In place of a user index: nobody of the batch bought the item."""


class Candidates(NamedTuple):
    """Items that every query is compared with. Row n is the positive of query n, any other row a negative."""

    item_keys: Int[Tensor, "candidates"]
    users: Int[Tensor, "candidates"]
    """Who bought the item; ``NOBODY`` at a hard negative that its query's user did not buy."""
    fused: Float[Tensor, "candidates content"]
    """``h^MM``."""
    image: Float[Tensor, "candidates content"]
    """``h^img``."""
    text: Float[Tensor, "candidates content"]
    """``h^txt``."""
    has_image: Bool[Tensor, "candidates"]
    has_text: Bool[Tensor, "candidates"]


def accidental_negatives(
    candidates: Candidates, num_queries: int, *, mask_same_user: bool = True
) -> Bool[Tensor, "batch candidates"]:
    """Return which candidates are no negatives of a query although they are not its positive's row.

    Those are other rows with the positive's item (bought by two users of the batch, drawn as a hard negative, or
    still in the negative memory) and, as an option, other items that the same user bought.

    Args:
        candidates: The first ``num_queries`` rows are the positives.
        num_queries: Size of the batch N.
        mask_same_user: Leave out what the same user bought, too. The paper is silent.
    """
    keys, users = candidates.item_keys, candidates.users
    accidental = keys[:num_queries, None] == keys[None, :]  # (N, C)
    if mask_same_user:
        accidental |= users[:num_queries, None] == users[None, :]
    own = torch.arange(num_queries, device=keys.device)
    accidental[own, own] = False
    return accidental


def info_nce(
    query: Float[Tensor, "batch content"],
    items: Float[Tensor, "candidates content"],
    excluded: Bool[Tensor, "batch candidates"],
    *,
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Mean of Eq. (5) over the batch, in nats; cosine similarity. 0 for an empty batch.

    Args:
        query: ``h_q^img``; query n belongs to row n of ``items``.
        items: One view of the candidates.
        excluded: Candidates that leave the denominator. A query whose own positive is excluded leaves the mean.
        temperature: Divides the cosine. Eq. (5) prints none, which is 1.0; 0.07 is our choice (docs/departures.md).
    """
    labels = torch.arange(len(query), device=query.device)
    logits = F.normalize(query, dim=-1) @ F.normalize(items, dim=-1).T / temperature  # (N, C)
    usable = ~excluded[labels, labels]
    losses = F.cross_entropy(
        logits.masked_fill(excluded, -torch.inf)[usable], labels[usable], reduction="sum"
    )
    return losses / usable.sum().clamp(min=1)


def multi_level_info_nce(
    query: Float[Tensor, "batch content"],
    candidates: Candidates,
    excluded: Bool[Tensor, "batch candidates"],
    *,
    text_weight: float = 0.5,
    image_weight: float = 0.5,
    temperature: float | Float[Tensor, ""] = 0.07,
) -> Float[Tensor, ""]:
    """Eq. (6): match the query image with the fused, the title and the image view of its item.

    A candidate without title (image) takes no part in the title (image) level.

    Args:
        query: ``h_q^img``.
        candidates: Gradients reach the rows that carry them; remembered rows come detached.
        excluded: From :func:`accidental_negatives`.
        text_weight: ``alpha``; the paper's grid search chose 0.5.
        image_weight: ``beta``; the paper's grid search chose 0.5.
        temperature: As in :func:`info_nce`.
    """
    loss = info_nce(query, candidates.fused, excluded, temperature=temperature)
    if text_weight:
        without = excluded | ~candidates.has_text
        loss = loss + text_weight * info_nce(query, candidates.text, without, temperature=temperature)
    if image_weight:
        without = excluded | ~candidates.has_image
        loss = loss + image_weight * info_nce(query, candidates.image, without, temperature=temperature)
    return loss
