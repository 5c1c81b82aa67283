"""Padding where other libraries want it."""

from torch import Tensor


def padded_right(behaviors: Tensor, mask: Tensor) -> Tensor:
    """Real behaviors first: who knows a history by its length alone reads it from the left."""
    order = mask.int().argsort(dim=1, descending=True, stable=True)
    return behaviors.gather(1, order.unsqueeze(-1).expand_as(behaviors))
