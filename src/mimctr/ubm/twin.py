"""Two-stage Interest Network (Chang et al., KDD 2023, arXiv:2302.02352).

General and exact search unit (GSU, ESU) are twins: the same target attention, with the same parameters, chooses the
behaviors and weights those that were chosen. It is affordable over a whole history because a behavior's features are
split. What is inherent to the item is projected once per item, whoever looked at it. What is between user and item
(when, and what was done) is not projected at all: each such feature is one number per behavior and head.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.batch import PADDING
from mimctr.ubm.attention_mix import AttentionMix
from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.search import keep_in_turn, take_kept
from mimctr.ubm.times import TimeGapEmbedding, time_buckets


class TWIN(UserBehaviorModel):
    """Search and attend with one relevance, per head ``α = (K_h W^h) (q W^q)ᵀ / sqrt(d_k) + (K_c W^c) β``.

    ``K_h`` are the behaviors' items, ``q`` the target's, ``K_c`` the cross features: the bucket of the time gap and the
    kind of behavior. ``W^c`` makes one number of each cross feature, ``β`` weighs them. The GSU keeps the ``k``
    behaviors that the heads name first, taking turns; the ESU returns ``softmax(α)ᵀ [K_h K_c] W^v`` over these, heads
    concatenated. No projection has a bias: one of the keys would be constant over the history, which a softmax does not
    see.

    Args:
        dim: Width D of an item's row.
        num_kinds: Size of the vocabulary of kinds; 0 = the kind is no feature.
        k: Most behaviors kept (paper: 100).
        num_heads: Heads of the attention (paper: 4).
        head_dim: Width d_k of a head's queries, keys and values.
        cross_dim: Width of a cross feature's embedding (paper: 8).
        attention_mix: Whether content takes part in ``α``, of the GSU and of the ESU: an extension.
    """

    takes_kinds_apart = True
    searches = True

    def __init__(
        self,
        dim: int,
        *,
        num_kinds: int = 0,
        k: int = 20,
        num_heads: int = 4,
        head_dim: int = 16,
        cross_dim: int = 8,
        attention_mix: bool = False,
    ) -> None:
        super().__init__()
        self.needs_relevance = attention_mix
        self.mix = AttentionMix(num_heads) if attention_mix else None
        self.k = k
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.width = num_heads * head_dim
        self.queries = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.keys = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.time = TimeGapEmbedding(cross_dim)
        self.kind = nn.Embedding(num_kinds, cross_dim, padding_idx=PADDING) if num_kinds else None
        num_crosses = 1 + (num_kinds > 0)
        features = dim + num_crosses * cross_dim
        self.cross = nn.Parameter(torch.randn(num_heads, num_crosses, cross_dim) * cross_dim**-0.5)
        self.cross_weights = nn.Parameter(torch.ones(num_heads, num_crosses))
        self.values = nn.Parameter(torch.randn(num_heads, features, head_dim) * features**-0.5)

    def item_keys(self, items: Float[Tensor, "*items dim"]) -> Float[Tensor, "*items heads head_dim"]:
        """Return ``K_h W^h``: all that the GSU wants to know of an item. It can be kept per item and looked up."""
        return self.keys(items).unflatten(-1, (self.num_heads, self.head_dim))

    def relevance(
        self,
        target: Float[Tensor, "batch dim"],
        history: History,
        keys: Float[Tensor, "batch length heads head_dim"] | None = None,
    ) -> Float[Tensor, "batch heads length"]:
        """Return ``α``, of the GSU and of the ESU; its value at padding means nothing.

        Args:
            target: ``q``.
            history: Finite at padding.
            keys: :meth:`item_keys` of the behaviors, if they are kept; ``history.behaviors`` is not looked at then.
                None: ``W^h`` is applied to the target's side, which makes no keys.
        """
        queries = self.queries(target).unflatten(-1, (self.num_heads, self.head_dim))  # (B, H, A)
        if keys is None:
            projections = self.keys.weight.unflatten(0, (self.num_heads, self.head_dim))  # (H, A, D)
            directions = torch.einsum("bha,had->bhd", queries, projections)
            products = torch.matmul(directions, history.behaviors.transpose(1, 2))  # (B, H, L)
        else:
            products = torch.einsum("bha,blha->bhl", queries, keys)
        relevance = products / math.sqrt(self.head_dim) + self._cross_relevance(history)
        if self.mix is None:
            return relevance
        return self.mix(relevance, history.given_relevance.cosine, history.mask)

    def search(
        self,
        target: Float[Tensor, "batch dim"],
        history: History,
        keys: Float[Tensor, "batch length heads head_dim"] | None = None,
    ) -> Bool[Tensor, "#batch length"]:
        """Return what the GSU keeps; the arguments are those of :meth:`relevance`."""
        if self.k >= history.mask.shape[1]:
            return history.mask
        return keep_in_turn(self.relevance(target, history, keys).detach(), history.mask, self.k)

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the ESU's heads over what the GSU kept."""
        history = history._replace(
            behaviors=zero_padding(history.behaviors, history.mask),
            kinds=history.kinds.masked_fill(~history.mask, PADDING),
        )
        kept = self.search(target, history)
        found = take_kept(history, kept, self.k)
        weights = masked_softmax(self.relevance(target, found), found.mask.unsqueeze(1))  # (B, H, k)
        pooled = torch.bmm(weights, self._features(found))  # (B, H, features)
        return Interest(torch.einsum("bhf,hfa->bha", pooled, self.values).flatten(1), kept)

    def _cross_relevance(self, history: History) -> Float[Tensor, "batch heads length"]:
        """Return ``(K_c W^c) β``: a number per bucket, kind and head, looked up."""
        scalars = self.cross * self.cross_weights.unsqueeze(-1)  # (H, crosses, cross_dim)
        of_bucket = self.time.table.weight @ scalars[:, 0].T  # (buckets, H)
        relevance = F.embedding(time_buckets(history.time_gaps, len(of_bucket)), of_bucket)
        if self.kind is not None:
            of_kind = self.kind.weight @ scalars[:, 1].T  # (kinds, H)
            relevance = relevance + F.embedding(history.kinds, of_kind)
        return relevance.transpose(1, 2)

    def _features(self, history: History) -> Float[Tensor, "batch length features"]:
        """Return ``K = [K_h K_c]``."""
        parts = [history.behaviors, self.time(history.time_gaps)]
        if self.kind is not None:
            parts.append(self.kind(history.kinds))
        return torch.cat(parts, dim=-1)
