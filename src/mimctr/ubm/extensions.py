"""MIM+: more ways to show the network what content says. None of this is in the paper; all of it is one row, "MIM+".

* scalars: mean and largest relevance, and how many behaviors have a vector;
* tiers: the histogram of relevances over equal tiers of [-1, 1] (SimTier, arXiv:2407.19467);
* softmax: content and fusion interest weighted by ``softmax(cosine / temperature)`` instead of the cosine;
* query: the query's cosine with the target and with the behaviors;
* target: the target's own content vector, projected.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.ubm.content_interest import cosine
from mimctr.ubm.masking import masked_max, masked_mean, masked_softmax, zero_padding
from mimctr.ubm.products import weighted_sum


class ContentTensors(NamedTuple):
    """What the extensions look at: content vectors with missing ones at zero, ID rows, and what counts."""

    target: Float[Tensor, "batch content"]
    behaviors: Float[Tensor, "#batch length content"]
    query: Float[Tensor, "#batch content"]
    query_known: Bool[Tensor, "#batch"]
    rows: Float[Tensor, "#batch length dim"]
    """``h_i^ID`` of each behavior."""
    relevance: Float[Tensor, "batch length"]
    """``a_{t,i}^MM`` of Eq. (7)."""
    mask: Bool[Tensor, "#batch length"]


class Extensions(nn.Module):
    """Features of MIM+, each behind a switch.

    Args:
        content_dim: Width C of a content vector.
        dim: Width D of an item's row.
        scalars: Give mean and largest relevance and the log of the count.
        num_tiers: Tiers of the histogram; 0 = none.
        tier_dim: Width of a tier's embedding, looked up by the log of its count; 0 = the log of the count itself.
        softmax_temperature: Of the softmax-weighted interests; None = none.
        query: Give the query's cosines.
        target_dim: Width of the target's projected vector; 0 = none.
    """

    def __init__(
        self,
        *,
        content_dim: int,
        dim: int,
        scalars: bool = True,
        num_tiers: int = 20,
        tier_dim: int = 0,
        softmax_temperature: float | None = 0.1,
        query: bool = True,
        target_dim: int = 16,
    ) -> None:
        super().__init__()
        self.scalars = scalars
        self.query = query
        self.softmax_temperature = softmax_temperature
        self.tiers = Tiers(num_tiers, dim=tier_dim) if num_tiers else None
        self.target = nn.Linear(content_dim, target_dim) if target_dim else None
        self.num_scalars = 3 * scalars + 4 * query
        self.width = self.num_scalars + target_dim
        self.width += (content_dim + dim) if softmax_temperature is not None else 0
        self.width += self.tiers.width if self.tiers is not None else 0

    def forward(
        self, content: ContentTensors
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch scalars"]]:
        """Return all features, and those among them that are single numbers with a meaning of their own."""
        scalars = [content.relevance[:, :0]]
        if self.scalars:
            scalars.append(relevance_scalars(content.relevance, content.mask))
        if self.query:
            scalars.append(query_scalars(content))
        features = list(scalars)
        if self.tiers is not None:
            features.append(self.tiers(content.relevance, content.mask))
        if self.softmax_temperature is not None:
            features += softmax_interests(content, temperature=self.softmax_temperature)
        if self.target is not None:
            features.append(self.target(content.target))
        return torch.cat(features, dim=-1), torch.cat(scalars, dim=-1)


def relevance_scalars(
    relevance: Float[Tensor, "batch length"], mask: Bool[Tensor, "#batch length"]
) -> Float[Tensor, "batch 3"]:
    """Return mean and largest relevance and ``log(1 + count)``; all 0 where nothing counts."""
    count = mask.sum(dim=1).to(relevance.dtype).log1p()
    mean = masked_mean(relevance, mask)
    return torch.stack([mean, masked_max(relevance, mask), count.expand_as(mean)], dim=-1)


def query_scalars(content: ContentTensors) -> Float[Tensor, "batch 4"]:
    """Return the query's cosine with the target, mean and largest one with the behaviors, and a flag."""
    with_target = cosine(content.query.expand_as(content.target), content.target.unsqueeze(1)).squeeze(1)
    with_behaviors = cosine(content.query, content.behaviors)  # (B, L)
    mask = content.mask & content.query_known.unsqueeze(-1)
    values = [
        with_target.masked_fill(~content.query_known, 0.0),
        masked_mean(with_behaviors, mask),
        masked_max(with_behaviors, mask),
        content.query_known.to(with_target.dtype),
    ]
    return torch.stack([value.expand_as(with_target) for value in values], dim=-1)


def softmax_interests(
    content: ContentTensors, *, temperature: float
) -> tuple[Float[Tensor, "batch content"], Float[Tensor, "batch dim"]]:
    """Return content and fusion interest with weights ``softmax(cosine / temperature)``; zero where nothing counts."""
    weights = masked_softmax(content.relevance / temperature, content.mask)  # (B, L)
    interest = weighted_sum(weights, content.behaviors)  # (B, C)
    fusion = weighted_sum(weights, zero_padding(content.rows, content.mask))  # (B, D)
    return interest, fusion


class Tiers(nn.Module):
    """SimTier: how many behaviors fall into each tier of relevance (arXiv:2407.19467, Section 4.2).

    Args:
        num_tiers: Equal tiers of [-1, 1]; the last one includes 1.
        dim: Width of a tier's embedding, looked up by ``floor(log2(1 + count))``; 0 = ``log(1 + count)`` itself.
    """

    NUM_COUNTS = 16

    def __init__(self, num_tiers: int, *, dim: int = 0) -> None:
        super().__init__()
        self.num_tiers = num_tiers
        self.width = num_tiers * max(dim, 1)
        self.table = nn.Embedding(num_tiers * self.NUM_COUNTS, dim) if dim else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.01)

    def counts(
        self, relevance: Float[Tensor, "batch length"], mask: Bool[Tensor, "#batch length"]
    ) -> Int[Tensor, "batch tiers"]:
        """Return the histogram of the relevances that count."""
        tier = ((relevance.detach() + 1) * (self.num_tiers / 2)).long().clamp(0, self.num_tiers - 1)
        empty = torch.zeros(relevance.shape[0], self.num_tiers, dtype=torch.long, device=relevance.device)
        return empty.scatter_add(1, tier, mask.long().expand_as(tier))

    def forward(
        self, relevance: Float[Tensor, "batch length"], mask: Bool[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch width"]:
        """Return the histogram as features."""
        counts = self.counts(relevance, mask)
        if self.table is None:
            return counts.to(relevance.dtype).log1p()
        level = (counts + 1).float().log2().long().clamp(max=self.NUM_COUNTS - 1)
        first = torch.arange(self.num_tiers, device=counts.device) * self.NUM_COUNTS
        return self.table(first + level).flatten(1)
