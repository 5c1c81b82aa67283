"""What padding may do: nothing. Used by every user behavior model."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mimctr.ubm.products import is_shared


def zero_padding(
    x: Float[Tensor, "#batch length dim"], mask: Bool[Tensor, "#batch length"]
) -> Float[Tensor, "#batch length dim"]:
    """Return ``x`` with padded rows set to zero, so that garbage there reaches neither values nor gradients.

    Of rows that several targets share, those that are padding for all of them.
    """
    if is_shared(x, mask):
        mask = mask.any(dim=0, keepdim=True)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.masked_fill(~mask.unsqueeze(-1), 0.0)
    padding = (~mask).flatten().nonzero().squeeze(1)  # by row: two to five times as fast as by element
    return x.flatten(0, 1).index_fill(0, padding, 0.0).view(x.shape) if len(padding) else x


def masked_softmax(
    scores: Float[Tensor, "*batch length"], mask: Bool[Tensor, "*#batch length"]
) -> Float[Tensor, "*batch length"]:
    """Return the softmax over the last axis of the real scores; 0 at padding, and all 0 where nothing is real."""
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask, lowest).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)


def masked_mean(
    values: Float[Tensor, "#batch length"], mask: Bool[Tensor, "#batch length"]
) -> Float[Tensor, "#batch"]:
    """Return the mean of the real values of each row; 0 where nothing is real."""
    return values.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def masked_max(
    values: Float[Tensor, "#batch length"], mask: Bool[Tensor, "#batch length"]
) -> Float[Tensor, "#batch"]:
    """Return the largest real value of each row; 0 where nothing is real."""
    lowest = torch.finfo(values.dtype).min
    largest = values.masked_fill(~mask, lowest).amax(dim=1)
    return largest.masked_fill(~mask.any(dim=1), 0.0)
