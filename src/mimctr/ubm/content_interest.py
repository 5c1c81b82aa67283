"""Content and fusion interest: MIM Section 3.4, Eq. (7) to (9).

Nothing here is learned. A behavior's relevance is the cosine of its content embedding with the target's: not
normalized by a softmax, and possibly negative. It weights the content embeddings (content interest) and, once more,
the ID embeddings (fusion interest). A vector that is not there drops out of both sums.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mimctr.ubm.masking import zero_padding

InterestName = Literal["id", "content", "fusion"]
ContentScope = Literal["all", "retrieved"]
EPSILON = 1e-12
"""A vector shorter than this has no direction: its cosine with anything is 0."""


class ContentInterest(NamedTuple):
    """The two interests that content adds, and the relevance they are weighted with."""

    content: Float[Tensor, "batch content"]
    """``h_B^MM`` of Eq. (7)."""
    fusion: Float[Tensor, "batch dim"]
    """``h_B^Fusion`` of Eq. (8)."""
    relevance: Float[Tensor, "batch length"]
    """``a_{t,i}^MM``; 0 at padding and where a vector is missing."""


def cosine(
    one: Float[Tensor, "batch content"], many: Float[Tensor, "batch length content"]
) -> Float[Tensor, "batch length"]:
    """Return the cosine of each row of ``one`` with its rows of ``many``; 0 where either vector is zero."""
    products = torch.bmm(one.unsqueeze(1), many.transpose(1, 2)).squeeze(1)  # (B, L)
    lengths = many.norm(dim=-1) * one.norm(dim=-1, keepdim=True)
    return products / lengths.clamp(min=EPSILON)


def content_interest(
    *,
    target_content: Float[Tensor, "batch content"],
    behaviors_content: Float[Tensor, "batch length content"],
    behaviors: Float[Tensor, "batch length dim"],
    mask: Bool[Tensor, "batch length"],
    relevance: Float[Tensor, "batch length"] | None = None,
) -> ContentInterest:
    """Return the content interest, Eq. (7), and the fusion interest, Eq. (8): sums, not means.

    Args:
        target_content: ``h_t^MM``; a zero vector gives zero interests.
        behaviors_content: ``h_i^MM`` of each behavior; anything where ``mask`` is False.
        behaviors: ``h_i^ID`` of each behavior; anything where ``mask`` is False.
        mask: True at a behavior that counts: real, with a content embedding, and within the scope.
        relevance: The cosines, if they are known already; finite, and not looked at where ``mask`` is False.
    """
    behaviors_content = zero_padding(behaviors_content, mask)
    if relevance is None:
        relevance = cosine(target_content, behaviors_content)  # (B, L)
    else:
        relevance = relevance.masked_fill(~mask, 0.0)
    weights = relevance.unsqueeze(1)  # (B, 1, L)
    content = torch.bmm(weights, behaviors_content).squeeze(1)  # (B, C)
    fusion = torch.bmm(weights, zero_padding(behaviors, mask)).squeeze(1)  # (B, D)
    return ContentInterest(content, fusion, relevance)


def concatenate_interests(
    id_interest: Float[Tensor, "batch width"], added: ContentInterest, *, interests: tuple[InterestName, ...]
) -> Float[Tensor, "batch interest"]:
    """Return ``h_B = Concat(h_B^ID, h_B^MM, h_B^Fusion)``, Eq. (9), or the parts of it that an ablation leaves."""
    parts = {"id": id_interest, "content": added.content, "fusion": added.fusion}
    return torch.cat([part for name, part in parts.items() if name in interests], dim=-1)
