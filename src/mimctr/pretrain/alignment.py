"""DMA, different-modal alignment: symmetric image-title InfoNCE as in CLIP (arXiv:2103.00020), MIM Section 3.2."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mimctr.distributed import gather_rows, mean_share, rank
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder

MAX_SCALE = 100.0
"""CLIP's clamp: the inverse temperature never exceeds it."""


class AlignmentModel(nn.Module):
    """Image and text encoder in a common space, and a learned temperature.

    The common space is that of the narrower encoder; the wider one gets a linear projection into it, and of encoders
    of one width neither does. So the vectors that leave this stage are the aligned ones, as far as widths allow.

    Args:
        image_encoder: Trained along.
        text_encoder: Trained along.
        temperature: At the start. CLIP: 0.07.
    """

    def __init__(
        self, image_encoder: ImageEncoder, text_encoder: TextEncoder, *, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        dim = min(image_encoder.dim, text_encoder.dim)
        self.image_projection = _projection(image_encoder.dim, dim)
        self.text_projection = _projection(text_encoder.dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Inverse temperature."""
        return self.log_scale.exp()

    def clamp_scale(self) -> None:
        """Bring the inverse temperature back to at most 100; call it before every step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))

    def encode_images(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Return L2-normalized projections of images."""
        return F.normalize(self.image_projection(self.image_encoder(pixels)).float(), dim=-1)

    def encode_texts(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts dim"]:
        """Return L2-normalized projections of titles."""
        return F.normalize(self.text_projection(self.text_encoder(ids, mask)).float(), dim=-1)


def symmetric_info_nce(
    images: Float[Tensor, "batch dim"],
    texts: Float[Tensor, "batch dim"],
    titles: Int[Tensor, "batch"],
    *,
    scale: Float[Tensor, ""] | float,
) -> Float[Tensor, ""]:
    """Return the share of the mean of the image-to-title and the title-to-image loss, in nats.

    Every row is compared with those of all processes.

    Args:
        images: L2-normalized; row n belongs to row n of ``texts``.
        texts: L2-normalized.
        titles: A number for each title: rows of one number are no negatives of one another.
        scale: Inverse temperature.
    """
    count = len(images)
    rows = torch.arange(count, device=images.device)
    own = rank() * count + rows
    accidental = titles.unsqueeze(1) == gather_rows(titles)  # (N, N P)
    accidental[rows, own] = False
    losses = [
        F.cross_entropy(
            (scale * queries @ gather_rows(others).T).masked_fill(accidental, -torch.inf),
            own,
            reduction="sum",
        )
        for queries, others in ((images, texts), (texts, images))
    ]
    return mean_share(losses[0] + losses[1], torch.tensor(2 * count, device=images.device))


def _projection(width: int, dim: int) -> nn.Module:
    return nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
