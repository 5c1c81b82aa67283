"""The plain geometry: ``h^MM`` before any fine-tuning on interest (docs/departures.md, "Plain geometry").

The concatenation of the L2-normalized image and title vectors, both brought to one total variance, reduced by PCA to
the content dimension. PCA is linear, so it splits into an image part and a title part that add up; a query image goes
through the image part.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.errors import EncoderError

SMALLEST_SHARE = 1e-7
"""An axis with a smaller share of the largest variance is rounding noise."""
SMALLEST_SPREAD = 1e-8
"""Vectors of length one that lie no farther apart are alike."""


class PlainGeometry(NamedTuple):
    """Principal axes of ``[image; title]``, by modality: both parts' coordinates add up to the PCA, up to one scale.

    The first C coordinates are the plain geometry; fine-tuning may draw on the others.
    """

    image_mean: Float[Tensor, "image"]
    image_axes: Float[Tensor, "axes image"]
    text_mean: Float[Tensor, "text"]
    text_axes: Float[Tensor, "axes text"]


class Coordinates(nn.Module):
    """Fixed coordinates of a tower's vectors: centered, along given axes.

    Heads that are trained on raw vectors start badly: those share a large mean, so that every step moves all vectors
    alike and the cosines lose their meaning (docs/log.md).

    Args:
        width: Of the tower's vectors.
        num_axes: Coordinates K.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, width: int, num_axes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", nn.init.orthogonal_(torch.empty(num_axes, width)))

    def forward(self, vectors: Float[Tensor, "items width"]) -> Float[Tensor, "items axes"]:
        """Return the coordinates."""
        return (vectors - self.mean) @ self.axes.T


def fit_plain_geometry(
    images: Float[Tensor, "items image"],
    texts: Float[Tensor, "items text"],
    *,
    dim: int,
    num_axes: int | None = None,
    whitening: float = 0.0,
) -> PlainGeometry:
    """Return the principal axes of ``[images; texts]``, both brought to one total variance, largest variance first.

    Without that the modality whose vectors lie farther apart decides alone what is similar; after DMA these are the
    titles. Computed exactly, in float64, from the covariance. Each axis points so that its largest component is
    positive. All are scaled such that the first ``dim`` coordinates have mean squared length one, which no cosine
    notices. Axes without variance are zero.

    Args:
        images: L2-normalized image vectors of catalogue items, all known before the test starts.
        texts: L2-normalized title vectors of the same items.
        dim: Content dimension.
        num_axes: How many axes; None for ``dim``.
        whitening: 0 keeps the variances v (PCA), 1 makes them equal; in general each becomes v^(1 - whitening).

    Raises:
        EncoderError: fewer than two items, all of them alike, or fewer input dimensions than ``dim``.
    """
    joint = torch.cat([images, texts], dim=1).double()  # (items, D)
    if joint.shape[1] < dim:
        raise EncoderError(
            f"content dimension {dim}: image ({images.shape[1]}) and title vectors ({texts.shape[1]}) have only "
            f"{joint.shape[1]} dimensions together. Lower it."
        )
    if len(joint) < 2:
        raise EncoderError(
            f"plain geometry: {len(joint)} items have both image and title; PCA needs at least 2. Add what is "
            "missing."
        )
    width = images.shape[1]
    mean = joint.mean(0)
    centered = joint - mean
    balance = torch.cat(
        [
            _spread(part).reciprocal().expand(part.shape[1])
            for part in centered.split([width, texts.shape[1]], 1)
        ]
    )
    centered = centered * balance
    variances, axes = torch.linalg.eigh(centered.T @ centered / len(joint))
    count = num_axes or dim
    variances, axes = variances.flip(0)[:count], axes.flip(1)[:, :count]  # (K,), (D, K), largest first
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    spread = variances > variances[0] * SMALLEST_SHARE
    axes = torch.where(spread, axes * variances.clamp(min=1e-30) ** (-whitening / 2), 0.0)
    length = (centered @ axes[:, :dim]).square().sum(1).mean().sqrt()
    if length < SMALLEST_SPREAD:
        raise EncoderError(
            f"plain geometry: the vectors of all {len(joint)} items are alike. Look at the encoders."
        )
    scaled = (balance.unsqueeze(1) * axes / length).T.float()  # (K, D)
    return PlainGeometry(
        image_mean=mean[:width].float(),
        image_axes=scaled[:, :width],
        text_mean=mean[width:].float(),
        text_axes=scaled[:, width:],
    )


def _spread(centered: Float[Tensor, "items width"]) -> Float[Tensor, ""]:
    """Return the root of the total variance; 1 where all vectors are alike."""
    spread = centered.square().sum(1).mean().sqrt()
    return torch.where(spread > SMALLEST_SPREAD, spread, torch.ones_like(spread))
