"""DDA for images: masked image modelling in the manner of SimMIM (arXiv:2111.09886), for any network.

Patches are hidden in the input, where every network has the same interface, and the hidden pixels are predicted from
the last feature map by one linear layer.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mimctr.distributed import mean_share
from mimctr.encoders.image import ImageEncoder
from mimctr.errors import EncoderError


class MaskedImageModel(nn.Module):
    """An image encoder with a decoder that fills in hidden patches.

    Args:
        encoder: Trained along.
        patch: Height and width in pixels of what is hidden at once.
        ratio: Share of the patches that is hidden. SimMIM: 0.6.
    """

    def __init__(self, encoder: ImageEncoder, *, patch: int, ratio: float = 0.6) -> None:
        super().__init__()
        if encoder.size % patch:
            raise EncoderError(
                f"masked patch of {patch} pixels does not divide the image size {encoder.size}."
            )
        self.encoder = encoder
        self.patch = patch
        self.ratio = ratio
        self.patches_per_side = encoder.size // patch
        stride = encoder.size // encoder.map_size
        self.decoder = nn.Sequential(nn.Conv2d(encoder.map_dim, 3 * stride**2, 1), nn.PixelShuffle(stride))

    def draw_mask(self, count: int) -> Bool[Tensor, "images patches patches"]:
        """Draw which patches of ``count`` images are hidden (True): the same number in each."""
        total = self.patches_per_side**2
        order = torch.rand(count, total).argsort(1)
        return (order < round(self.ratio * total)).view(count, self.patches_per_side, self.patches_per_side)

    def forward(
        self, pixels: UInt8[Tensor, "images 3 height width"], mask: Bool[Tensor, "images patches patches"]
    ) -> Float[Tensor, ""]:
        """Return the share of the mean absolute error over the hidden pixels, in units of normalized pixels."""
        inputs = self.encoder.normalize(pixels)
        hidden = (
            mask.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2).unsqueeze(1)
        )  # (B, 1, H, W)
        predicted = self.decoder(
            self.encoder.feature_map(inputs.masked_fill(hidden, 0.0))
        ).float()  # (B, 3, H, W)
        error = (predicted - inputs).abs() * hidden
        return mean_share(error.sum(), 3 * hidden.sum())
