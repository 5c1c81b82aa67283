"""Content and fusion interest: MIM Section 3.4, Eq. (7) to (9).

Nothing here is learned. A behavior's relevance is the cosine of its content embedding with the target's: not
normalized by a softmax, and possibly negative. It weights the content embeddings (content interest) and, once more,
the ID embeddings (fusion interest). A vector that is not there drops out of both sums.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mimctr.batch import Lookup
from mimctr.ubm.masking import zero_padding
from mimctr.ubm.parts import parts
from mimctr.ubm.products import dots, is_shared, weighted_sum

InterestName = Literal["id", "content", "fusion"]
ContentScope = Literal["all", "retrieved"]
FETCHED = 16_384
"""Vectors that are fetched together."""
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
    one: Float[Tensor, "#batch content"], many: Float[Tensor, "#batch length content"]
) -> Float[Tensor, "#batch length"]:
    """Return the cosine of each row of ``one`` with its rows of ``many``; 0 where either vector is zero."""
    products = dots(one, many)  # (B, L)
    lengths = many.norm(dim=-1) * one.norm(dim=-1, keepdim=True)
    return products / lengths.clamp(min=EPSILON)


def content_interest(
    *,
    target_content: Float[Tensor, "batch content"],
    behaviors_content: Float[Tensor, "#batch length content"] | Lookup,
    behaviors: Float[Tensor, "#batch length dim"],
    mask: Bool[Tensor, "#batch length"],
    real: Bool[Tensor, "#batch length"] | None = None,
    learned: Bool[Tensor, "batch"] | None = None,
    relevance: Float[Tensor, "batch length"] | None = None,
) -> ContentInterest:
    """Return the content interest, Eq. (7), and the fusion interest, Eq. (8): sums, not means.

    Args:
        target_content: ``h_t^MM``; a zero vector gives zero interests.
        behaviors_content: ``h_i^MM`` of each behavior; anything where ``mask`` is False. A lookup is fetched some
            impressions at a time, and nothing of it is kept for a backward pass.
        behaviors: ``h_i^ID`` of each behavior; anything where ``real`` is False.
        mask: True at a behavior that counts: real, with a content embedding, and within the scope.
        real: True at a real behavior, whose row is finite; None: ``mask``.
        learned: True at a target whose vector is learned: of a lookup, no other's has a gradient; None: none has.
        relevance: The cosines, if they are known already; finite, and not looked at where ``mask`` is False.
    """
    trained = None
    if isinstance(behaviors_content, Lookup) and relevance is None:
        trained = None if learned is None else learned.nonzero().squeeze(1)
        target = target_content.detach() if trained is None else target_content
        relevance, content = _FetchedInterest.apply(target, behaviors_content.only(mask), trained)
    else:
        if isinstance(behaviors_content, Lookup):
            vectors = behaviors_content.only(mask).fetch()
        else:
            vectors = zero_padding(behaviors_content, mask)
        if relevance is None and is_shared(vectors, mask):
            relevance = cosine(target_content, vectors)
        known = None if relevance is None else relevance.masked_fill(~mask, 0.0)
        relevance, content = _relevance_and_interest(target_content, vectors, known)
    finite = zero_padding(behaviors, mask if real is None else real)
    fusion = weighted_sum(relevance, finite, trained)  # (B, D)
    return ContentInterest(content, fusion, relevance)


def _relevance_and_interest(
    target: Float[Tensor, "batch content"],
    behaviors: Float[Tensor, "#batch length content"],
    relevance: Float[Tensor, "batch length"] | None = None,
) -> tuple[Float[Tensor, "batch length"], Float[Tensor, "batch content"]]:
    """Return both of Eq. (7); ``behaviors`` are zero where they do not count."""
    if relevance is None:
        relevance = cosine(target, behaviors)
    return relevance, weighted_sum(relevance, behaviors)


class _FetchedInterest(torch.autograd.Function):
    """Both of Eq. (7), the vectors fetched some impressions at a time; the gradient written out.

    With ``s_i = dL/da_i + dL/dh . b_i``, that of the target is
    ``sum_i s_i b_i / (|t| |b_i|) - (sum_i s_i a_i) t / |t|^2``.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, behaviors: Lookup, trained: Tensor | None) -> tuple[Tensor, Tensor]:
        size, length = behaviors.rows.shape
        missing = behaviors.rows < 0
        found = []
        for part in parts(size, length, target.device, rows=FETCHED):
            vectors = behaviors[part].fetch_any()
            relevance = cosine(target[part], vectors).masked_fill_(missing[part], 0.0)
            found.append((relevance, weighted_sum(relevance, vectors)))
        relevance, content = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        ctx.save_for_backward(target, relevance, trained)
        ctx.behaviors = behaviors
        return relevance, content

    @staticmethod
    def backward(ctx: Any, of_relevance: Tensor, of_content: Tensor) -> tuple[Tensor | None, ...]:
        whole, relevance, trained = ctx.saved_tensors
        target, vectors = whole[trained], ctx.behaviors[trained].fetch()
        slopes = of_relevance[trained] + dots(of_content[trained], vectors)
        length = target.norm(dim=-1, keepdim=True).clamp(min=EPSILON)
        lengths = vectors.norm(dim=-1) * length
        along = (slopes * relevance[trained]).masked_fill(lengths < EPSILON, 0.0).sum(dim=1, keepdim=True)
        of_target = (
            weighted_sum(slopes / lengths.clamp(min=EPSILON), vectors) - along * target / length.square()
        )
        return torch.zeros_like(whole).index_copy_(0, trained, of_target), None, None


def concatenate_interests(
    id_interest: Float[Tensor, "batch width"], added: ContentInterest, *, interests: tuple[InterestName, ...]
) -> Float[Tensor, "batch interest"]:
    """Return ``h_B = Concat(h_B^ID, h_B^MM, h_B^Fusion)``, Eq. (9), or the parts of it that an ablation leaves."""
    parts = {"id": id_interest, "content": added.content, "fusion": added.fusion}
    return torch.cat([part for name, part in parts.items() if name in interests], dim=-1)
