"""DDA for titles: causal language modelling as in GPT-2, for networks that look back only."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.distributed import mean_share
from mimctr.encoders.text import TextEncoder
from mimctr.errors import EncoderError


class CausalLanguageModel(nn.Module):
    """A text encoder that predicts each next token; its output embeddings are the input embeddings, as in GPT-2.

    Args:
        encoder: Trained along.

    Raises:
        EncoderError: the encoder's vectors are not as wide as its embeddings.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.network.get_input_embeddings().weight.shape[1]
        if width != encoder.dim:
            raise EncoderError(
                f"causal language modelling: {type(encoder.network).__name__} has embeddings of {width} dimensions and "
                f"vectors of {encoder.dim}; they must agree. Switch language modelling off, or take another network."
            )

    def head_state(self) -> dict[str, Tensor]:
        """Return the tensors behind the encoder: there are none."""
        return {}

    def forward(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, ""]:
        """Return the share of the mean cross-entropy over the real tokens that follow another one, in nats.

        Args:
            ids: The tokens.
            mask: True at a real token; texts are padded on the right.
        """
        follows = mask[:, 1:]  # (texts, tokens - 1)
        vectors = self.encoder.token_vectors(ids, mask)[:, :-1][follows]
        logits = F.linear(vectors, self.encoder.network.get_input_embeddings().weight).float()
        return mean_share(F.cross_entropy(logits, ids[:, 1:][follows], reduction="sum"), follows.sum())
