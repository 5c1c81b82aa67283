"""Behavior Sequence Transformer (Chen et al., DLP-KDD 2019, arXiv:1905.06874).

The target is one more token behind the behaviors, and every token attends to every other. A behavior's position is its
time gap to the impression, ``pos(v_i) = t(v_t) - t(v_i)``, not its index.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.ubm.interface import History, Interest, UserBehaviorModel
from mimctr.ubm.linear import Linear
from mimctr.ubm.masking import zero_padding
from mimctr.ubm.times import TimeGapEmbedding

TokenPooling = Literal["concatenation", "mean", "target"]


class TransformerBlock(nn.Module):
    """Multi-head self-attention and a feed-forward layer:

        S  = LayerNorm(E + Dropout(Concat(heads) W^H)),    head = softmax(Q Kᵀ / sqrt(head_dim)) V
        F  = LayerNorm(S + Dropout(LeakyReLU(S W1 + b1) W2 + b2))

    Args:
        dim: Width of a token, a multiple of ``num_heads``.
        num_heads: Attention heads.
        dropout: Share of what is added to a token that is left out in training.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.projections = Linear(dim, 3 * dim, bias=False)
        self.heads = Linear(dim, dim, bias=False)
        self.hidden = Linear(dim, 4 * dim)
        self.out = Linear(4 * dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens, each having seen the real ones; the values at padding are finite and mean nothing.

        Args:
            tokens: Finite at padding.
            mask: True at a real token; at least one a row.
        """
        projected = self.projections(tokens).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, A)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # (B * H, T, A) each
        padding = torch.zeros_like(mask, dtype=queries.dtype).masked_fill(~mask, float("-inf"))
        padding = padding.repeat_interleave(self.num_heads, dim=0).unsqueeze(1)  # (B * H, 1, T)
        # Heads this small take PyTorch's fused attention twice as long.
        scores = torch.baddbmm(padding, queries, keys.transpose(1, 2), alpha=queries.shape[-1] ** -0.5)
        attended = torch.bmm(scores.softmax(dim=-1), values)  # (B * H, T, A)
        joined = attended.unflatten(0, (-1, self.num_heads)).transpose(1, 2).flatten(2)  # (B, T, D)
        tokens = self.attention_norm(tokens + self._drop(self.heads(joined)))
        return self.feed_forward_norm(tokens + self._drop(self.out(F.leaky_relu(self.hidden(tokens)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, training=self.training)


class BST(UserBehaviorModel):
    """One transformer block over the newest behaviors and the target.

    A token is an item's row and, beside it, the embedding of its position; the target's own position has an embedding
    that no behavior has. For a user without history the target's token says nothing of an interest: all is zero.

    Args:
        dim: Width D of an item's row.
        length: Newest behaviors that become tokens (paper: 20).
        num_heads: Attention heads (paper: 8).
        time_dim: Least width of a position's embedding; it is as much wider as it takes for the heads to divide a
            token.
        dropout: Of the block (paper: 0.2).
        pooling: What the deep network reads of the block: the ``concatenation`` of all tokens (paper), each in its
            place, the newest behavior next to the target, and zero where there is none; their ``mean``; or the
            ``target``'s token alone.
    """

    def __init__(
        self,
        dim: int,
        *,
        length: int = 20,
        num_heads: int = 8,
        time_dim: int = 8,
        dropout: float = 0.0,
        pooling: TokenPooling = "concatenation",
    ) -> None:
        super().__init__()
        time_dim += -(dim + time_dim) % num_heads
        self.length = length
        self.pooling = pooling
        self.time = TimeGapEmbedding(time_dim)
        self.target_time = nn.Parameter(torch.randn(time_dim) * 0.01)
        self.block = TransformerBlock(dim + time_dim, num_heads=num_heads, dropout=dropout)
        self.width = (dim + time_dim) * (length + 1 if pooling == "concatenation" else 1)

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return what the block says of its tokens."""
        history = history.expanded()
        mask = history.mask[:, -self.length :]
        behaviors = zero_padding(history.behaviors[:, -self.length :], mask)
        of_behaviors = torch.cat([behaviors, self.time(history.time_gaps[:, -self.length :])], dim=-1)
        of_target = torch.cat([target, self.target_time.expand(target.shape[0], -1)], dim=-1)  # (B, T)
        tokens = self.block(
            torch.cat([of_behaviors, of_target.unsqueeze(1)], dim=1),
            torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1),
        )
        counted = torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)
        kept = F.pad(mask, (history.mask.shape[1] - mask.shape[1], 0))
        return Interest(self._pool(zero_padding(tokens, counted), counted), kept)

    def _pool(
        self, tokens: Float[Tensor, "batch tokens width"], counted: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch pooled"]:
        if self.pooling == "target":
            return tokens[:, -1]
        if self.pooling == "mean":
            return tokens.sum(dim=1) / counted.sum(dim=1, keepdim=True).clamp(min=1)
        return F.pad(tokens, (0, 0, self.length + 1 - tokens.shape[1], 0)).flatten(1)
