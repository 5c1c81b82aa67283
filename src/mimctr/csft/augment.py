"""Random views of pictures: what a shopper overlooks (side, place, size, light) changes; what the item is stays."""

import torch
from jaxtyping import Float, UInt8
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
    count, _, height, width = pixels.shape
    device = pixels.device

    def draw(largest: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, device=device) * 2 - 1) * largest * strength

    mirrored = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    zoom = 1 + draw(ZOOM)
    shift = 2 * draw(SHIFT, 2)  # places run from -1 to 1
    across = _interpolation(zoom * mirrored, shift[:, 0], width)
    down = _interpolation(zoom, shift[:, 1], height)
    rows = pixels.permute(0, 2, 1, 3).float().reshape(count, height, 3 * width)
    moved = torch.bmm(down, rows).view(count, height * 3, width)
    moved = torch.bmm(moved, across.transpose(1, 2)).view(count, height, 3, width)
    mean = moved.mean((1, 2, 3), keepdim=True)
    contrast, brightness = 1 + draw(LIGHT, 1, 1, 1), 1 + draw(LIGHT, 1, 1, 1)
    # ((moved - mean) * contrast + mean) * brightness, in place
    moved.mul_(contrast * brightness).add_(mean * (1 - contrast) * brightness)
    return moved.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 1, 3).contiguous()


def _interpolation(
    scale: Float[Tensor, "pictures"], shift: Float[Tensor, "pictures"], size: int
) -> Float[Tensor, "pictures size size"]:
    """Return, for one axis, the matrix that interpolates linearly at ``scale * place + shift``.

    Bilinear sampling along the axes is one such matrix down and one across; as batched products they take a fraction
    of the time of PyTorch's general ``grid_sample`` on a CPU. Beyond the border its last pixel is continued.
    """
    pixel = torch.arange(size, device=scale.device, dtype=torch.float32)
    place = (2 * pixel + 1) / size - 1  # middle of each pixel, from -1 to 1
    source = ((scale.unsqueeze(1) * place + shift.unsqueeze(1) + 1) * size - 1) / 2  # in pixels
    source = source.clamp(0, size - 1).unsqueeze(2)
    return (1 - (source - pixel).abs()).clamp_(min=0)  # (pictures, out, in)
