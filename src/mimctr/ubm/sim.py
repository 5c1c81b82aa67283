"""Search-based Interest Model (Pi et al., CIKM 2020, arXiv:2006.05639).

A general search unit (GSU) chooses the behaviors that matter for the target, an exact search unit (ESU) attends to
them.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.ubm.attention_mix import AttentionMix
from mimctr.ubm.interface import Auxiliary, History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.products import dots, weighted_sum
from mimctr.ubm.search import keep_highest, keep_most_relevant, keep_newest, take_kept
from mimctr.ubm.times import TimeGapEmbedding

SearchName = Literal["hard", "soft", "content"]


class SoftSearch(nn.Module):
    """Soft GSU (Section 3.1): inner product of projected rows, trained by its own CTR task.

    Args:
        dim: Width D of an item's row.
        search_dim: Width of the projections.
    """

    def __init__(self, dim: int, *, search_dim: int) -> None:
        super().__init__()
        self.target = nn.Linear(dim, search_dim, bias=False)
        self.behaviors = nn.Linear(dim, search_dim, bias=False)
        self.click = nn.Sequential(nn.Linear(2 * dim, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(
        self, target: Float[Tensor, "batch dim"], behaviors: Float[Tensor, "#batch length dim"]
    ) -> tuple[Float[Tensor, "batch length"], Float[Tensor, "batch"]]:
        """Return the relevance ``r_i = (W_b e_i) . (W_a e_a)`` and the auxiliary logit over ``[sum_i r_i e_i, e_a]``.

        Args:
            target: ``e_a``.
            behaviors: ``e_i``; zero at padding.
        """
        direction = self.target(target) @ self.behaviors.weight  # (B, D)
        relevance = dots(direction, behaviors)  # (B, L)
        pooled = weighted_sum(relevance, behaviors)  # (B, D)
        return relevance, self.click(torch.cat([pooled, target], dim=-1)).squeeze(-1)


class ExactSearch(nn.Module):
    """ESU (Section 3.2): multi-head target attention over ``z_i``, a behavior joined with its time gap.

    ``att = softmax((W_b z_i) . (W_a e_a) / sqrt(head_dim))`` and ``head = sum_i att_i z_i``, heads concatenated.
    The keys are never made: ``W_b`` is applied to the target's side, once per impression instead of once per behavior.

    Args:
        dim: Width D of an item's row.
        num_heads: Attention heads.
        head_dim: Width of queries and keys.
        time_dim: Width of the embedding of a time gap.
        mix: Whether content takes part in the attention (:class:`~mimctr.ubm.attention_mix.AttentionMix`).
    """

    def __init__(self, dim: int, *, num_heads: int, head_dim: int, time_dim: int, mix: bool = False) -> None:
        super().__init__()
        self.time = TimeGapEmbedding(time_dim)
        self.queries = nn.Linear(dim, num_heads * head_dim)
        self.keys = nn.Parameter(torch.empty(num_heads, head_dim, dim + time_dim))
        nn.init.normal_(self.keys, std=(dim + time_dim) ** -0.5)
        self.mix = AttentionMix(num_heads) if mix else None
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.width = num_heads * (dim + time_dim)

    def forward(self, target: Float[Tensor, "batch dim"], found: History) -> Float[Tensor, "batch width"]:
        """Return the heads, concatenated; zero where nothing was kept.

        Args:
            target: ``e_a``.
            found: What the GSU kept.
        """
        mask = found.mask
        timed = torch.cat(
            [zero_padding(found.behaviors, mask), self.time(found.time_gaps)], dim=-1
        )  # (B, L, Z)
        queries = self.queries(target).unflatten(-1, (self.num_heads, self.head_dim))  # (B, H, A)
        directions = torch.einsum("bha,haz->bhz", queries, self.keys)  # (B, H, Z)
        scores = torch.bmm(directions, timed.transpose(1, 2)) / math.sqrt(self.head_dim)  # (B, H, L)
        if self.mix is not None:
            scores = self.mix(scores, found.given_relevance.cosine, mask)
        weights = masked_softmax(scores, mask.unsqueeze(1))
        return torch.bmm(weights, timed).flatten(1)  # (B, H * Z)


class SIM(UserBehaviorModel):
    """Search, then attend: MIM's default user behavior model.

    Args:
        dim: Width D of an item's row.
        search: ``hard`` keeps the newest behaviors of the target's category and has no loss of its own; ``soft`` keeps
            those of the highest inner product and returns the auxiliary logit that trains it; ``content`` (MUSE,
            arXiv:2512.07216, an extension) keeps those of the highest cosine of content vectors and has no loss of its
            own. A behavior without a vector comes after all that have one, newest first; of a target without a
            vector the newest behaviors are kept (:func:`~mimctr.ubm.search.keep_most_relevant`).
        k: Most behaviors kept.
        num_heads: Heads of the ESU.
        head_dim: Width of the ESU's queries and keys.
        time_dim: Width of the embedding of a time gap.
        attention_mix: Whether content takes part in the ESU's attention: an extension.
    """

    searches = True

    def __init__(
        self,
        dim: int,
        *,
        search: SearchName = "soft",
        k: int = 20,
        num_heads: int = 2,
        head_dim: int = 16,
        time_dim: int = 8,
        attention_mix: bool = False,
    ) -> None:
        super().__init__()
        self.search = search
        self.soft = SoftSearch(dim, search_dim=head_dim) if search == "soft" else None
        self.exact = ExactSearch(
            dim, num_heads=num_heads, head_dim=head_dim, time_dim=time_dim, mix=attention_mix
        )
        self.k = k
        self.width = self.exact.width
        self.needs_relevance = search == "content" or attention_mix

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the ESU's heads over what the GSU kept."""
        behaviors = zero_padding(history.behaviors, history.mask)
        auxiliary = None
        if self.soft is not None:
            relevance, click = self.soft(target, behaviors)
            auxiliary = Auxiliary(click.unsqueeze(-1))
            kept = keep_highest(relevance.detach(), history.mask, self.k)
        elif self.search == "content":
            kept = keep_most_relevant(history.given_relevance, history.mask, self.k)
        else:
            kept = keep_newest(history.mask & history.same_category, self.k)
        found = take_kept(history._replace(behaviors=behaviors), kept, self.k)
        return Interest(self.exact(target, found), kept, auxiliary)
