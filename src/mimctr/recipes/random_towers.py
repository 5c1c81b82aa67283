"""Encoders with random weights: what architecture, tokenizer and preprocessing give before anything is learned.

The lowest rung of the encoder tables; not a foundation model.
"""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from mimctr.encoders.architecture import architecture, build_network
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder


class Config(BaseModel):
    """Settings of random towers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, description="Of the weights.")


def main(encoders: Path, out: Path, config: Config) -> None:
    """Write encoders to ``out/image`` and ``out/text`` that differ from those in ``encoders`` in their weights only.

    Args:
        encoders: Folder with image/ and text/.
        out: Stage folder.
        config: Settings.
    """
    torch.manual_seed(config.seed)
    image, text = ImageEncoder.load(encoders / "image"), TextEncoder.load(encoders / "text")
    for encoder in (image, text):
        network = encoder.network
        fresh = build_network(architecture(network), modality=network.main_input_name)
        network.load_state_dict(fresh.state_dict())
    image.save(out / "image")
    text.save(out / "text")
