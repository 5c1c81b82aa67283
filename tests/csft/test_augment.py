import pytest
import torch
import torch.nn.functional as F

from mimctr.csft.augment import LIGHT, SHIFT, ZOOM, _interpolation, augment


def noise(count: int = 8, size: int = 12) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_strength_zero_changes_nothing_and_draws_nothing():
    pixels = noise()
    state = torch.get_rng_state()
    assert augment(pixels, strength=0.0) is pixels
    assert torch.equal(torch.get_rng_state(), state)


def test_almost_no_strength_is_the_picture_or_its_mirror_about_half_of_the_time():
    pixels = noise(400)
    seen = augment(pixels, strength=1e-7)
    same = (seen == pixels).flatten(1).all(1)
    mirrored = (seen == pixels.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_picture_moves_and_zooms_no_farther_than_it_says():
    """A white square in the middle of a black picture: its center and its side say where it went."""
    size, side = 64, 16
    pixels = torch.zeros(200, 3, size, size, dtype=torch.uint8)
    pixels[..., 24:40, 24:40] = 200
    seen = augment(pixels, strength=1.0).float().mean(1)
    bright = (seen > seen.amax((1, 2), keepdim=True) / 2).float()
    place = torch.arange(size) + 0.5
    middle = torch.stack([(bright.sum(axis) * place).sum(1) / bright.sum((1, 2)) for axis in (1, 2)], 1)
    length = bright.sum((1, 2)).sqrt()
    assert (middle - size / 2).abs().max() <= SHIFT * size / (1 - ZOOM) + 1
    assert (middle - size / 2).abs().max() > 0.5 * SHIFT * size
    assert length.min() >= side / (1 + ZOOM) - 1
    assert length.max() <= side / (1 - ZOOM) + 1
    assert length.std() > 1


@pytest.mark.parametrize(("scale", "shift"), [(0.8, 0.3), (-1.2, -0.3), (1.0, 0.0), (-1.0, 0.11)])
def test_an_interpolation_of_both_axes_is_bilinear_sampling(scale, shift):
    """Against PyTorch's own."""
    pixels = noise(3, 9).float()
    theta = torch.tensor([[scale, 0.0, shift], [0.0, abs(scale), -shift]]).expand(3, 2, 3)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    expected = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    across, down = (
        _interpolation(torch.full((3,), factor), torch.full((3,), move), 9)
        for factor, move in ((scale, shift), (abs(scale), -shift))
    )
    found = torch.einsum("nyh,nchw,nxw->ncyx", down, pixels, across)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_light_scales_a_flat_picture_and_keeps_its_hue():
    pixels = torch.tensor([120, 60, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(300, 3, 8, 8).contiguous()
    seen = augment(pixels, strength=1.0).float()
    assert (seen.amax((2, 3)) == seen.amin((2, 3))).all()  # nothing to move: the border is continued
    level = seen[:, :, 0, 0]
    share = level / level.sum(1, keepdim=True)
    own = torch.tensor([120.0, 60.0, 30.0]) / 210
    assert (share - own).abs().max() < LIGHT / 3 + 0.02
    brightness = level.mean(1) / 70
    assert brightness.min() >= 1 - LIGHT - 0.01
    assert brightness.max() <= 1 + LIGHT + 0.01
    assert brightness.std() > 0.05


def test_the_same_generator_gives_the_same_views():
    pixels = noise()
    torch.manual_seed(7)
    first = augment(pixels, strength=0.5)
    torch.manual_seed(7)
    assert torch.equal(first, augment(pixels, strength=0.5))
    assert not torch.equal(first, augment(pixels, strength=0.5))
