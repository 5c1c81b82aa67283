"""DDA for titles: masked language modelling as in BERT (arXiv:1810.04805)."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.distributed import mean_share
from mimctr.encoders.architecture import read_published
from mimctr.encoders.text import TextEncoder, mask_token_index, special_token_indices
from mimctr.errors import EncoderError
from mimctr.weights import load_tensors

HEAD = "masked_language_head.safetensors"
"""File of :meth:`MaskedLanguageModel.head_state` beside a text encoder, so that DDA continues with the head it had."""
_PUBLISHED = (
    {  # BERT's
        "transform.0.weight": "cls.predictions.transform.dense.weight",
        "transform.0.bias": "cls.predictions.transform.dense.bias",
        "transform.2.weight": "cls.predictions.transform.LayerNorm.weight",
        "transform.2.bias": "cls.predictions.transform.LayerNorm.bias",
        "bias": "cls.predictions.bias",
    },
    {  # RoBERTa's
        "transform.0.weight": "lm_head.dense.weight",
        "transform.0.bias": "lm_head.dense.bias",
        "transform.2.weight": "lm_head.layer_norm.weight",
        "transform.2.bias": "lm_head.layer_norm.bias",
        "bias": "lm_head.bias",
    },
)
"""Names that published checkpoints give to the tensors of :meth:`MaskedLanguageModel.head_state`."""


class MaskedLanguageModel(nn.Module):
    """A text encoder with BERT's head, whose output embeddings are the input embeddings.

    Args:
        encoder: Trained along.
        ratio: Share of the real, not special tokens to predict. BERT: 0.15.
    """

    def __init__(self, encoder: TextEncoder, *, ratio: float = 0.15) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.encoder = encoder
        self.ratio = ratio
        self.mask_index = mask_token_index(encoder.tokenizer)
        self.special: Tensor
        self.register_buffer(
            "special",
            torch.tensor(special_token_indices(encoder.tokenizer), dtype=torch.int64),
            persistent=False,
        )
        embeddings = encoder.network.get_input_embeddings().weight
        width = embeddings.shape[1]
        config = encoder.network.config
        self.transform = nn.Sequential(
            nn.Linear(encoder.dim, width),
            ACT2FN[getattr(config, "hidden_act", "gelu")],
            nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-5)),
        )
        self.bias = nn.Parameter(torch.zeros(embeddings.shape[0]))

    def head_state(self) -> dict[str, Tensor]:
        """Return the tensors behind the encoder, by name."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}

    def load_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what :meth:`head_state` returned.

        Raises:
            EncoderError: names or shapes differ.
        """
        own = {name: tensor.shape for name, tensor in self.head_state().items()}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if own != given:
            raise EncoderError(f"masked language head: {given} does not fit the text encoder's {own}.")
        self.load_state_dict(dict(tensors), strict=False)

    def hide(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> tuple[Int[Tensor, "texts tokens"], Bool[Tensor, "texts tokens"]]:
        """Draw what is to be predicted: of the chosen tokens 80 % become the mask token, 10 % a random one.

        Returns:
            hidden: The changed token indices.
            chosen: True at a token to predict; never padding, never a special token.
        """
        candidates = mask & ~torch.isin(ids, self.special)
        chosen = candidates & (torch.rand(ids.shape, device=ids.device) < self.ratio)
        kind = torch.rand(ids.shape, device=ids.device)
        hidden = ids.masked_fill(chosen & (kind < 0.8), self.mask_index)
        anything = torch.randint(len(self.bias), ids.shape, device=ids.device)
        return torch.where(chosen & (kind >= 0.9), anything, hidden), chosen

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        mask: Bool[Tensor, "texts tokens"],
        hidden: Int[Tensor, "texts tokens"],
        chosen: Bool[Tensor, "texts tokens"],
    ) -> Float[Tensor, ""]:
        """Return the share of the mean cross-entropy over the chosen tokens, in nats; 0 where none was chosen.

        Args:
            ids: The true tokens.
            mask: True at a real token.
            hidden: What the encoder sees instead, from :meth:`hide`.
            chosen: What it must predict, from :meth:`hide`.
        """
        vectors = self.transform(self.encoder.token_vectors(hidden, mask)[chosen])
        logits = F.linear(vectors, self.encoder.network.get_input_embeddings().weight, self.bias).float()
        return mean_share(F.cross_entropy(logits, ids[chosen], reduction="sum"), chosen.sum())


def read_head(source: Path | str) -> dict[str, Tensor]:
    """Return the head that belongs to a text encoder's weights; empty where they have none, as BGE's and GPT-2's.

    Args:
        source: What ``TextEncoder.load`` was given: a folder with our file or with a published model's
            model.safetensors, or a model's name on the hub.

    Raises:
        RunError: our file is damaged.
    """
    if (Path(source) / HEAD).is_file():
        return load_tensors(Path(source) / HEAD)[0]
    for names in _PUBLISHED:
        found = read_published(source, set(names.values()))
        if len(found) == len(names):
            return {own: found[published] for own, published in names.items()}
    return {}
