"""The foundation models that a recipe can name: ``F_V`` and ``F_L`` of the paper's Figure 5, and other common ones.

A row knows where its weights are on the hub, how its outputs become one vector, and its architecture: at full size,
which says parameters and width without any weights, and minuscule, with which every row is tested.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache

from mimctr.encoders.architecture import TIMM, WEIGHTS, build_network, require_timm
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.image import Pooling as ImagePooling
from mimctr.encoders.text import Pooling as TextPooling
from mimctr.errors import EncoderError


class Sizes(NamedTuple):
    """What is known of a network without its weights."""

    parameters: int
    """Number of weights, unused poolers left out."""
    width: int
    """Length of a vector."""


class Foundation(NamedTuple):
    """One foundation model."""

    name: str
    modality: Literal["image", "text"]
    hub: str | None
    """Name of its weights on the hub; None where they have to be converted once (docs/encoders.md)."""
    pooling: ImagePooling | TextPooling
    network: dict[str, Any]
    """``model_type`` and what differs from transformers' defaults, at full size."""
    small: dict[str, Any]
    """Fields that make the same architecture minuscule."""
    size: int = 0
    """Height and width in pixels; 0 for text."""

    recorded: Sizes | None = None
    """At full size, where timm is needed to compute them."""

    @property
    def needs_timm(self) -> bool:
        """Whether the network comes from timm, an extra."""
        return self.network["model_type"] == TIMM

    def sizes(self) -> Sizes:
        """Return parameters and width at full size."""
        return self.recorded or self.computed_sizes()

    def computed_sizes(self) -> Sizes:
        """Return parameters and width of the architecture at full size; no weight is allocated.

        Raises:
            EncoderError: it needs timm, which is not installed.
        """
        reads = "pixel_values" if self.modality == "image" else "input_ids"
        with torch.device("meta"):
            network = build_network(self.network, modality=reads)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            if self.modality == "text":
                return Sizes(parameters, network.config.hidden_size)
            return Sizes(parameters, ImageEncoder(network, size=self.size, pooling=self.pooling).dim)  # type: ignore[arg-type]

    def weights(self) -> str:
        """Return the name of its weights on the hub.

        Raises:
            EncoderError: they are on no hub, or need timm, which is not installed.
        """
        if self.needs_timm:
            require_timm(self.name)
        if self.hub is None:
            raise EncoderError(
                f"{self.name}: its weights are published as a pickle. Convert them once (docs/encoders.md) and "
                "give the folder."
            )
        return self.hub

    def is_here(self) -> bool:
        """Return whether the hub's cache on this machine holds its weights."""
        return self.hub is not None and all(
            isinstance(try_to_load_from_cache(self.hub, name), str) for name in ("config.json", WEIGHTS)
        )


_CONVNEXT_BASE = {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]}
_CONVNEXT_LARGE = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}
_SMALL_CONVNEXT = {"hidden_sizes": [4, 8], "depths": [1, 1], "patch_size": 2, "num_stages": 2}
_SMALL_TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_SMALL_VIT = {**_SMALL_TRANSFORMER, "image_size": 16, "patch_size": 4}
_SMALL_TEXT = {**_SMALL_TRANSFORMER, "max_position_embeddings": 16}
_EVA02 = {"model_type": TIMM, "architecture": "eva02_base_patch14_448"}
_MINI_LM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
_BEIT3_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

FOUNDATIONS = (
    Foundation(
        "resnet-50",
        "image",
        "microsoft/resnet-50",
        "own",
        {"model_type": "resnet"},
        {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"},
        224,
    ),
    Foundation(
        "swin-base",
        "image",
        "microsoft/swin-base-patch4-window7-224",
        "mean",
        {
            "model_type": "swin",
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 7,
        },
        {
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 1],
            "window_size": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        224,
    ),
    Foundation(
        "convnext-base",
        "image",
        "facebook/convnext-base-224-22k",
        "own",
        {"model_type": "convnext", **_CONVNEXT_BASE},
        _SMALL_CONVNEXT,
        224,
    ),
    Foundation(
        "convnextv2-base",
        "image",
        "facebook/convnextv2-base-22k-224",
        "own",
        {"model_type": "convnextv2", **_CONVNEXT_BASE},
        _SMALL_CONVNEXT,
        224,
    ),
    Foundation(
        "convnextv2-large",
        "image",
        "facebook/convnextv2-large-22k-224",
        "own",
        {"model_type": "convnextv2", **_CONVNEXT_LARGE},
        _SMALL_CONVNEXT,
        224,
    ),
    Foundation(
        "eva02-base",
        "image",
        "timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
        "own",
        _EVA02,
        {
            **_EVA02,
            "model_args": {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
        },
        448,
        Sizes(86_348_544, 768),
    ),
    Foundation(
        "vit-base",
        "image",
        "google/vit-base-patch16-224-in21k",
        "cls",
        {"model_type": "vit"},
        _SMALL_VIT,
        224,
    ),
    Foundation(
        "dinov2-base",
        "image",
        "facebook/dinov2-base",
        "cls",
        {"model_type": "dinov2", "image_size": 518, "patch_size": 14},
        _SMALL_VIT,
        224,
    ),
    Foundation(
        "clip-vit-base",
        "image",
        "openai/clip-vit-base-patch32",
        "own",
        {"model_type": "clip_vision_model"},
        _SMALL_VIT,
        224,
    ),
    Foundation(
        "siglip-base",
        "image",
        "google/siglip-base-patch16-224",
        "own",
        {"model_type": "siglip_vision_model"},
        _SMALL_VIT,
        224,
    ),
    Foundation(
        "bert-base",
        "text",
        "google-bert/bert-base-uncased",
        "mean",
        {"model_type": "bert"},
        _SMALL_TEXT,
    ),
    Foundation("bge-base", "text", "BAAI/bge-base-en-v1.5", "cls", {"model_type": "bert"}, _SMALL_TEXT),
    Foundation(
        "minilm",
        "text",
        "sentence-transformers/all-MiniLM-L6-v2",
        "mean",
        {"model_type": "bert", **_MINI_LM},
        _SMALL_TEXT,
    ),
    Foundation(
        "gpt2",
        "text",
        "openai-community/gpt2",
        "last",
        {"model_type": "gpt2"},
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": 16, "n_positions": 16},
    ),
    Foundation("beit3-base", "text", None, "cls", {"model_type": "beit3"}, _SMALL_TEXT),
    Foundation("beit3-large", "text", None, "cls", {"model_type": "beit3", **_BEIT3_LARGE}, _SMALL_TEXT),
    Foundation(
        "clip-text-base",
        "text",
        "openai/clip-vit-base-patch32",
        "last",
        {"model_type": "clip_text_model"},
        {**_SMALL_TEXT, "eos_token_id": 3},
    ),
)


def find(weights: Path | str) -> Foundation | None:
    """Return the row of that name; None where a recipe gives a folder or a hub name of its own."""
    return next((row for row in FOUNDATIONS if row.name == str(weights)), None)
