"""Search-based Interest Model (Pi et al., CIKM 2020, arXiv:2006.05639).

A general search unit (GSU) chooses the behaviors that matter for the target, an exact search unit (ESU) attends to
them.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.ubm.interface import Auxiliary, History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.products import dots, weighted_sum
from mimctr.ubm.search import keep_highest, keep_newest, take_kept
from mimctr.ubm.times import TimeGapEmbedding


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
        self, target: Float[Tensor, "batch dim"], behaviors: Float[Tensor, "batch length dim"]
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
    """

    def __init__(self, dim: int, *, num_heads: int, head_dim: int, time_dim: int) -> None:
        super().__init__()
        self.time = TimeGapEmbedding(time_dim)
        self.queries = nn.Linear(dim, num_heads * head_dim)
        self.keys = nn.Parameter(torch.empty(num_heads, head_dim, dim + time_dim))
        nn.init.normal_(self.keys, std=(dim + time_dim) ** -0.5)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.width = num_heads * (dim + time_dim)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
        time_gaps: Int[Tensor, "batch length"],
    ) -> Float[Tensor, "batch width"]:
        """Return the heads, concatenated; zero where nothing was kept."""
        timed = torch.cat([zero_padding(behaviors, mask), self.time(time_gaps)], dim=-1)  # (B, L, Z)
        queries = self.queries(target).unflatten(-1, (self.num_heads, self.head_dim))  # (B, H, A)
        directions = torch.einsum("bha,haz->bhz", queries, self.keys)  # (B, H, Z)
        scores = torch.bmm(directions, timed.transpose(1, 2)) / math.sqrt(self.head_dim)  # (B, H, L)
        weights = masked_softmax(scores, mask.unsqueeze(1))
        return torch.bmm(weights, timed).flatten(1)  # (B, H * Z)


class SIM(UserBehaviorModel):
    """Search, then attend: MIM's default user behavior model.

    Args:
        dim: Width D of an item's row.
        search: ``hard`` keeps the newest behaviors of the target's category and has no loss of its own; ``soft`` keeps
            those of the highest inner product and returns the auxiliary logit that trains it.
        k: Most behaviors kept.
        num_heads: Heads of the ESU.
        head_dim: Width of the ESU's queries and keys.
        time_dim: Width of the embedding of a time gap.
    """

    def __init__(
        self,
        dim: int,
        *,
        search: Literal["hard", "soft"] = "soft",
        k: int = 20,
        num_heads: int = 2,
        head_dim: int = 16,
        time_dim: int = 8,
    ) -> None:
        super().__init__()
        self.soft = SoftSearch(dim, search_dim=head_dim) if search == "soft" else None
        self.exact = ExactSearch(dim, num_heads=num_heads, head_dim=head_dim, time_dim=time_dim)
        self.k = k
        self.width = self.exact.width

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the ESU's heads over what the GSU kept."""
        behaviors = zero_padding(history.behaviors, history.mask)
        auxiliary = None
        if self.soft is None:
            kept = keep_newest(history.mask & history.same_category, self.k)
        else:
            relevance, click = self.soft(target, behaviors)
            auxiliary = Auxiliary(click.unsqueeze(-1))
            kept = keep_highest(relevance.detach(), history.mask, self.k)
        found = take_kept(history._replace(behaviors=behaviors), kept, self.k)
        return Interest(self.exact(target, found.behaviors, found.mask, found.time_gaps), kept, auxiliary)
