"""DMA, different-modal alignment: symmetric image-title InfoNCE as in CLIP (arXiv:2103.00020), MIM Section 3.2."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mimctr.distributed import gather_rows, mean_share, rank
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.search import search_metrics, search_ranks
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
    content: Int[Tensor, "batch 2"],
    *,
    scale: Float[Tensor, ""] | float,
) -> Float[Tensor, ""]:
    """Return the share of the mean of the image-to-title and the title-to-image loss, in nats.

    Every row is compared with those of all processes.

    Args:
        images: L2-normalized; row n belongs to row n of ``texts``.
        texts: L2-normalized.
        content: Numbers of each row's title and picture: rows alike in either are no negatives of one another.
        scale: Inverse temperature.
    """
    count = len(images)
    rows = torch.arange(count, device=images.device)
    own = rank() * count + rows
    accidental = _alike(content, gather_rows(content))  # (N, N P)
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


def retrieval_metrics(
    images: Float[Tensor, "items dim"], texts: Float[Tensor, "items dim"], content: Int[Tensor, "items 2"]
) -> dict[str, float]:
    """Return recall@{1, 10, 100} and MRR of the search for each picture's title, and for each title's picture.

    Counted is how many *wrong* titles (pictures) of the given items are nearer than the item's own, ties one half. An
    item with an equal title or picture is no wrong answer: it does not compete.

    Args:
        images: Row n belongs to row n of ``texts``.
        texts: Titles.
        content: Numbers of each row's title and picture.
    """
    own = torch.arange(len(images), device=images.device)
    ways = {"image_to_title": (images, texts), "title_to_image": (texts, images)}
    return {
        f"{way}_{name}": value
        for way, (queries, items) in ways.items()
        for name, value in search_metrics(
            search_ranks(queries, items, own, excluded=_alike(content, content))
        ).items()
    }


def _alike(rows: Int[Tensor, "rows 2"], others: Int[Tensor, "others 2"]) -> Bool[Tensor, "rows others"]:
    return (rows.unsqueeze(1) == others).any(dim=2)


def _projection(width: int, dim: int) -> nn.Module:
    return nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
