"""An image encoder of one's own: mean colors on a grid and one linear map (docs/how-to/add-an-encoder.md)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mimctr.encoders.image import ImageEncoder


class ColorGridConfig(PretrainedConfig):
    """What config.json says of the network.

    Args:
        cells: Cells of the grid, a side.
        hidden_size: Channels of the feature map.
    """

    model_type = "color_grid"

    def __init__(self, cells: int = 4, hidden_size: int = 32, **more: Any) -> None:
        super().__init__(**more)
        self.cells = cells
        self.hidden_size = hidden_size


class ColorGrid(PreTrainedModel):
    """A network as transformers knows it: from normalized pixels to a feature map and a pooled vector."""

    config_class = ColorGridConfig
    base_model_prefix = "color_grid"
    main_input_name = "pixel_values"

    def __init__(self, config: ColorGridConfig) -> None:
        super().__init__(config)
        self.mix = nn.Conv2d(3, config.hidden_size, kernel_size=1)
        self.post_init()

    def forward(
        self, pixel_values: Float[Tensor, "images 3 height width"], **_: Any
    ) -> BaseModelOutputWithPooling:
        """Return ``last_hidden_state`` (images, channels, rows, columns) and ``pooler_output`` (images, channels)."""
        features = self.mix(F.adaptive_avg_pool2d(pixel_values, self.config.cells))
        return BaseModelOutputWithPooling(
            last_hidden_state=features, pooler_output=features.relu().mean((2, 3))
        )


AutoConfig.register(ColorGridConfig.model_type, ColorGridConfig, exist_ok=True)
AutoModel.register(ColorGridConfig, ColorGrid, exist_ok=True)


def write_encoder(folder: Path, *, size: int = 32) -> ImageEncoder:
    """Write an untrained encoder into ``folder`` as ``foundation.image_weights`` takes it; return it."""
    torch.manual_seed(0)
    encoder = ImageEncoder.from_config({"model_type": "color_grid", "cells": 4, "hidden_size": 32}, size=size)
    encoder.save(folder)
    return encoder
