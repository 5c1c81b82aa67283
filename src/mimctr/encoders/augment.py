"""Random views of pictures: what a shopper overlooks (side, place, size, light) changes; what the item is stays."""

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

SHIFT, ZOOM, LIGHT = 0.15, 0.2, 0.25
"""At strength 1: largest shift and zoom as a share of the picture, largest change of brightness and contrast."""


def augment(
    pixels: UInt8[Tensor, "pictures 3 height width"], *, strength: float
) -> UInt8[Tensor, "pictures 3 height width"]:
    """Return each picture mirrored half of the time, moved, zoomed, and in another light; by torch's generator.

    Colors keep their hue, which says what an item is. Where a picture moved away, its border is continued.

    Args:
        pixels: Pictures.
        strength: Of all but the mirror; 1: ``SHIFT``, ``ZOOM`` and ``LIGHT``; 0: the pictures as they are.
    """
    if not strength or not len(pixels):
        return pixels
    device = pixels.device

    def draw(largest: float, *shape: int) -> Tensor:
        return (torch.rand(len(pixels), *shape, device=device) * 2 - 1) * largest * strength

    mirrored = torch.where(torch.rand(len(pixels), device=device) < 0.5, -1.0, 1.0)
    zoom = 1 + draw(ZOOM)
    shift = 2 * draw(SHIFT, 2)  # grid coordinates run from -1 to 1
    zero = torch.zeros_like(zoom)
    rows = (torch.stack([zoom * mirrored, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    contrast, brightness = 1 + draw(LIGHT, 1, 1, 1), 1 + draw(LIGHT, 1, 1, 1)
    lit = ((moved - mean) * contrast + mean) * brightness
    return lit.round().clamp(0, 255).to(torch.uint8)
