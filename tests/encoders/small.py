"""Minuscule encoders from configurations, and pictures and titles to feed them."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.encoders.vectors import QueryVectors

SIZE = 16
TITLES = [
    "red shoe of leather",
    "blue shoe",
    "green hat with a feather",
    "red hat",
    "blue leather bag",
    "bag",
]
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": SIZE,
    "patch_size": 4,
}
RESNET = {
    "model_type": "resnet",
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
    "layer_type": "basic",
}
CONVNEXT = {
    "model_type": "convnext",
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
    "patch_size": 2,
    "num_stages": 2,
}
SWIN = {
    "model_type": "swin",
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 1],
    "window_size": 2,
    "image_size": SIZE,
    "patch_size": 4,
}
REGISTERS = {
    "model_type": "dinov2_with_registers",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 4,
}
NETWORKS = {"vit": VIT, "resnet": RESNET, "convnext": CONVNEXT, "swin": SWIN, "registers": REGISTERS}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": 16, "n_positions": 16}
LANGUAGE_NETWORKS = {"bert": BERT, "gpt2": GPT2}


def picture(seed: int, *, width: int = SIZE, height: int = SIZE) -> bytes:
    """Return a PNG of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image_encoder(network: str = "vit", *, seed: int = 0) -> ImageEncoder:
    torch.manual_seed(seed)
    return ImageEncoder.from_config(NETWORKS[network], size=SIZE)


def text_encoder(network: str = "bert", *, seed: int = 0, texts: list[str] = TITLES) -> TextEncoder:
    torch.manual_seed(seed)
    config = LANGUAGE_NETWORKS[network]
    return TextEncoder.from_config(config, train_tokenizer(texts, vocab_size=80), max_length=12)


def item_encoder(
    *, dim: int = 6, hidden: int = 5, categories: tuple[str, ...] = ("bags", "hats"), **settings: Any
) -> ItemEncoder:
    return ItemEncoder(
        image_encoder(), text_encoder(), dim=dim, hidden=hidden, categories=categories, **settings
    )


def asking(images: torch.Tensor, texts: torch.Tensor | None = None) -> QueryVectors:
    """Return queries that are pictures, followed by some that are texts."""
    texts = images.new_zeros(0, 16) if texts is None else texts
    return QueryVectors(images, texts, torch.arange(len(images) + len(texts)))


def shake(module: torch.nn.Module, *, scale: float = 0.3) -> None:
    """Move every parameter away from where it starts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)
