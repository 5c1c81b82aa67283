"""Settings of how much of the towers is trained, and at what memory; shared by pre-training and C-SFT."""

from pydantic import BaseModel, ConfigDict, Field

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.tuning import add_adapters, checkpoint_activations, freeze_layers, merge_adapters


class TuningConfig(BaseModel):
    """How the towers are trained where they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frozen_image_layers: int = Field(
        0,
        ge=0,
        description="First layers of the image encoder (a ConvNet's or Swin's stages) that are not trained, nor the "
        "embeddings before them; 0 trains all.",
    )
    frozen_text_layers: int = Field(0, ge=0, description="Likewise of the text encoder.")
    lora_rank: int = Field(
        0,
        ge=0,
        description="Train a change of this rank of all matrices that are not frozen, in place of the weights (LoRA, "
        "needs mimctr[peft]); it is in the weights when done. 0 trains the weights.",
    )
    lora_alpha: float = Field(
        16.0, gt=0, description="LoRA's change is multiplied by lora_alpha / lora_rank."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Keep only what enters each layer for the backward pass: less memory, about a third more time.",
    )


def prepare_towers(image: ImageEncoder, text: TextEncoder, config: TuningConfig) -> None:
    """Make both encoders train as ``config`` says; what they say of an input stays the same.

    Raises:
        EncoderError: an encoder has too few layers; or LoRA is wanted and all are frozen, or peft is not installed.
    """
    frozen = (config.frozen_image_layers, config.frozen_text_layers)
    for encoder, count in zip((image, text), frozen, strict=True):
        freeze_layers(encoder.network, count)
        if config.lora_rank:
            add_adapters(encoder.network, rank=config.lora_rank, alpha=config.lora_alpha)
        if config.activation_checkpointing:
            checkpoint_activations(encoder.network)


def finish_towers(image: ImageEncoder, text: TextEncoder, config: TuningConfig) -> None:
    """Make both encoders ordinary ones again, with what LoRA trained in their weights."""
    if config.lora_rank:
        for encoder in (image, text):
            merge_adapters(encoder.network)
