"""The plain geometry: ``h^MM`` before any fine-tuning on interest (docs/departures.md, "h^MM before C-SFT").

The concatenation of the L2-normalized image and title vectors, reduced by PCA to the content dimension. PCA is linear,
so it splits into an image part and a title part that add up; a query image goes through the image part.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mimctr.errors import EncoderError


class PlainGeometry(NamedTuple):
    """Linear maps of image and title vectors whose sum is the PCA of their concatenation, up to one scale."""

    image_weight: Float[Tensor, "content image"]
    image_bias: Float[Tensor, "content"]
    text_weight: Float[Tensor, "content text"]
    text_bias: Float[Tensor, "content"]


def fit_plain_geometry(
    images: Float[Tensor, "items image"], texts: Float[Tensor, "items text"], *, dim: int
) -> PlainGeometry:
    """Return the PCA of ``[images; texts]``, as two maps.

    Computed exactly, in float64, from the covariance. Each axis points so that its largest component is positive.
    The maps are scaled such that their sum has mean squared length one, which no cosine notices.

    Args:
        images: L2-normalized image vectors of catalogue items, all known before the test starts.
        texts: L2-normalized title vectors of the same items.
        dim: Content dimension.

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
            f"plain geometry: {len(joint)} items have both image and title; PCA needs at least 2."
        )
    mean = joint.mean(0)
    centered = joint - mean
    _, axes = torch.linalg.eigh(centered.T @ centered)
    axes = axes.flip(1)[:, :dim]  # (D, C), largest variance first
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    length = (centered @ axes).square().sum(1).mean().sqrt()
    if length < 1e-8:
        raise EncoderError(
            f"plain geometry: the vectors of all {len(joint)} items are alike. Look at the encoders."
        )
    weight = (axes / length).T  # (C, D)
    width = images.shape[1]
    return PlainGeometry(
        image_weight=weight[:, :width].float(),
        image_bias=-(weight[:, :width] @ mean[:width]).float(),
        text_weight=weight[:, width:].float(),
        text_bias=-(weight[:, width:] @ mean[width:]).float(),
    )
