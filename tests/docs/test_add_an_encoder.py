"""The example of an encoder is saved, loaded, fingerprinted and trained as every other one."""

import numpy as np
import torch
from encoders.small import picture, shake

from mimctr.encoders.image import ImageEncoder

from .examples import example


def test_it_is_saved_and_loaded_and_stays_the_same(tmp_path):
    encoder = example("color_grid_encoder").write_encoder(tmp_path / "grid")
    loaded = ImageEncoder.load(tmp_path / "grid")
    pixels = encoder.pixels([picture(1), picture(2)])
    assert torch.equal(loaded(pixels), encoder(pixels))
    assert loaded.fingerprint == encoder.fingerprint
    assert (loaded.dim, loaded.map_size, loaded.pooling) == (32, 4, "own")


def test_other_weights_have_another_fingerprint(tmp_path):
    encoder = example("color_grid_encoder").write_encoder(tmp_path / "grid")
    before = encoder.fingerprint
    shake(encoder)
    assert encoder.fingerprint != before


def test_a_vector_is_what_the_mean_colors_say(tmp_path):
    encoder = example("color_grid_encoder").write_encoder(tmp_path / "grid", size=32)
    pixels = encoder.pixels([picture(3, width=32, height=32)])
    normalized = (pixels[0].numpy() / 255 - 0.5) / 0.5
    cells = normalized.reshape(3, 4, 8, 4, 8).mean((2, 4))
    mix = encoder.network.mix
    weight, bias = mix.weight.detach().numpy()[:, :, 0, 0], mix.bias.detach().numpy()
    features = np.einsum("oc,crk->ork", weight, cells) + bias[:, None, None]
    expected = np.maximum(features, 0).mean((1, 2))
    np.testing.assert_allclose(encoder(pixels)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-6)
