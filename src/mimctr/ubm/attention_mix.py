"""Attention that looks at IDs and at content: SA-TA of MUSE (Wu et al., 2025, arXiv:2512.07216). An extension."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class AttentionMix(nn.Module):
    """Logits of an attention over behaviors, per head ``γ₁ α + γ₂ R + γ₃ (α ∘ R)``.

    ``α`` are the logits of the IDs and ``R`` the cosines of content. A behavior that cannot be compared has ``R = 0``:
    of it, IDs decide alone. The fusion interest, Eq. (8), is the case of ``γ₂`` alone, without a softmax.

    Training starts at ``γ = (1, 0, 0)``, the attention without the mix. The authors' code starts at ``(1, 1, 1)`` and
    divides ``R`` by a learned number that starts at 0.1; ``γ₂`` and ``γ₃`` can learn it.

    Args:
        num_heads: Heads of the attention.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]).unsqueeze(1).repeat(1, num_heads))

    def forward(
        self,
        logits: Float[Tensor, "batch heads length"],
        cosine: Float[Tensor, "batch length"],
        mask: Bool[Tensor, "#batch length"],
    ) -> Float[Tensor, "batch heads length"]:
        """Return the mixed logits; their value at padding means nothing.

        Args:
            logits: ``α``; finite at padding.
            cosine: ``R``, 0 where it is not known; anything at padding.
            mask: True at a real behavior.
        """
        of_ids, of_content, of_both = self.weights.unsqueeze(-1)  # (H, 1) each
        cosine = cosine.masked_fill(~mask, 0.0).unsqueeze(1)  # (B, 1, L)
        return of_ids * logits + of_content * cosine + of_both * logits * cosine
