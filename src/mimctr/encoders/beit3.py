"""Text branch of BEiT-3 (arXiv:2208.10442), one of the paper's ``F_L`` (Figure 5), as a network of transformers.

BEiT-3 is a multiway Magneto transformer (arXiv:2210.06423): each layer normalizes before attention and feed-forward,
and once more inside each; every module exists twice, branch A for image patches and branch B for text. Texts alone
pass through B only. Parameters bear the names of the published checkpoints (``encoder.layers.0.self_attn.q_proj.B``),
so those load as they are; what belongs to branch A, or to a head, stays out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

FIRST_POSITION = 2
"""Row of the position table that the first token gets, as in fairseq."""


class Beit3TextConfig(PretrainedConfig):
    """Sizes of the text branch; the defaults are those of the published base model.

    Args:
        max_position_embeddings: Most tokens of a text; the table of positions has ``FIRST_POSITION`` rows more.
        others: Fields that every configuration of transformers has.
    """

    model_type = "beit3"

    def __init__(
        self,
        *,
        vocab_size: int = 64010,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 1022,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        super().__init__(**others)


class Beit3TextModel(PreTrainedModel):
    """Turn token indices into one vector a token."""

    config_class = Beit3TextConfig
    base_model_prefix = "beit3"
    main_input_name = "input_ids"

    def __init__(self, config: Beit3TextConfig) -> None:
        super().__init__(config)
        self.text_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = _Encoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings."""
        return self.text_embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embeddings."""
        self.text_embed = value

    def forward(
        self, input_ids: Int[Tensor, "texts tokens"], attention_mask: Int[Tensor, "texts tokens"]
    ) -> BaseModelOutput:
        """Return ``last_hidden_state`` (texts, tokens, dim).

        Args:
            input_ids: Padded on the right.
            attention_mask: 1 at a real token, of which each text has at least one.
        """
        return BaseModelOutput(
            last_hidden_state=self.encoder(self.text_embed(input_ids), attention_mask.bool())
        )


class _Encoder(nn.Module):
    def __init__(self, config: Beit3TextConfig) -> None:
        super().__init__()
        positions = nn.Embedding(config.max_position_embeddings + FIRST_POSITION, config.hidden_size)
        self.embed_positions = _text(positions)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = _text(_norm(config.hidden_size, config))

    def forward(
        self, hidden: Float[Tensor, "texts tokens dim"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens dim"]:
        positions = torch.arange(FIRST_POSITION, hidden.shape[1] + FIRST_POSITION, device=hidden.device)
        hidden = hidden + self.embed_positions["B"](positions)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.layer_norm["B"](hidden)


class _Layer(nn.Module):
    def __init__(self, config: Beit3TextConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = _text(_norm(config.hidden_size, config))
        self.self_attn = _Attention(config)
        self.final_layer_norm = _text(_norm(config.hidden_size, config))
        self.ffn = _text(_FeedForward(config))

    def forward(
        self, hidden: Float[Tensor, "texts tokens dim"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens dim"]:
        hidden = hidden + self.self_attn(self.self_attn_layer_norm["B"](hidden), mask)
        return hidden + self.ffn["B"](self.final_layer_norm["B"](hidden))


class _Attention(nn.Module):
    """Multi-head self-attention with a layer norm before the output projection."""

    def __init__(self, config: Beit3TextConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj = _text(nn.Linear(dim, dim))
        self.k_proj = _text(nn.Linear(dim, dim))
        self.v_proj = _text(nn.Linear(dim, dim))
        self.inner_attn_ln = _text(_norm(dim, config))
        self.out_proj = _text(nn.Linear(dim, dim))

    def forward(
        self, hidden: Float[Tensor, "texts tokens dim"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens dim"]:
        query, key, value = (
            projection["B"](hidden)
            .unflatten(2, (self.num_heads, -1))
            .transpose(1, 2)  # (B, heads, tokens, D / heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.out_proj["B"](
            self.inner_attn_ln["B"](attended.transpose(1, 2).flatten(2))
        )  # (B, tokens, D)


class _FeedForward(nn.Module):
    """Two linear layers with a layer norm before the second."""

    def __init__(self, config: Beit3TextConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_layernorm = _norm(config.intermediate_size, config)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Float[Tensor, "texts tokens dim"]) -> Float[Tensor, "texts tokens dim"]:
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(hidden))))


def _text(module: nn.Module) -> nn.ModuleDict:
    """Return the module as branch B of a multiway one."""
    return nn.ModuleDict({"B": module})


def _norm(dim: int, config: Beit3TextConfig) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=config.layer_norm_eps)


AutoConfig.register(Beit3TextConfig.model_type, Beit3TextConfig, exist_ok=True)
AutoModel.register(Beit3TextConfig, Beit3TextModel, exist_ok=True)
