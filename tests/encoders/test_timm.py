"""Networks of timm: vectors and preprocessing are timm's own (test_registry.py trains them)."""

import json
from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close

from encoders.small import SIZE, picture
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.registry import find
from mimctr.errors import EncoderError
from mimctr.images import decode_image

EVA02 = "eva02_base_patch14_448"
SWIN = {
    "model_type": "timm_wrapper",
    "architecture": "swin_tiny_patch4_window7_224",
    "model_args": {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2},
}


@pytest.fixture
def eva02(tmp_path):
    """A minuscule EVA-02 with a classifier, and the folder in which timm puts it for the hub."""
    import timm
    from timm.models import save_for_hf

    arguments = {"img_size": SIZE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model(EVA02, num_classes=7, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    save_for_hf(model, tmp_path / "eva02", model_args=arguments, safe_serialization=True)
    return model, tmp_path / "eva02"


@pytest.mark.needs_timm
def test_a_folder_of_timm_gives_timms_vectors(eva02):
    """The vector is what timm hands to its classifier: mean over the patches, then the trained layer norm."""
    model, folder = eva02
    encoder = ImageEncoder.load(folder)
    pixels = encoder.pixels([picture(1), picture(2)])
    with torch.no_grad():
        inputs = encoder.normalize(pixels)
        expected = model.forward_head(model.forward_features(inputs), pre_logits=True)
        assert_close(encoder(pixels), expected)
        patches = model.forward_intermediates(inputs, indices=1, intermediates_only=True)[0]
        assert_close(encoder.feature_map(inputs), patches)


@pytest.mark.needs_timm
def test_a_folder_of_timm_is_preprocessed_as_timm_says(eva02):
    import timm.data

    model, folder = eva02
    encoder = ImageEncoder.load(folder)
    theirs = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=model)
    assert theirs["crop_mode"] == "squash"  # the whole picture, as here
    assert encoder.size == theirs["input_size"][-1]
    assert (encoder.mean, encoder.std, encoder.resize) == (
        theirs["mean"],
        theirs["std"],
        theirs["interpolation"],
    )
    transform = timm.data.create_transform(**theirs, is_training=False)
    data = picture(3, width=40, height=25)
    assert_close(encoder.normalize(encoder.pixels([data]))[0], transform(decode_image(data)))


@pytest.mark.needs_timm
def test_positions_follow_another_picture_size_as_in_timm(eva02, tmp_path):
    model, folder = eva02
    encoder = ImageEncoder.load(folder, size=24)
    encoder.save(tmp_path / "saved")
    again = ImageEncoder.load(tmp_path / "saved")
    pixels = encoder.pixels([picture(1)])
    model.set_input_size(img_size=24)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(encoder.normalize(pixels)), pre_logits=True)
        assert_close(encoder(pixels), expected)
        assert torch.equal(again(pixels), encoder(pixels))
    assert again.fingerprint == encoder.fingerprint
    assert again.map_size == 6


@pytest.mark.needs_timm
def test_a_map_with_channels_last_is_turned():
    encoder = ImageEncoder.from_config(SWIN, size=32)
    inputs = encoder.normalize(encoder.pixels([picture(1, width=32, height=32)]))
    with torch.no_grad():
        expected = encoder.network.timm_model.forward_intermediates(
            inputs, indices=1, norm=True, intermediates_only=True
        )[0]  # timm turns these itself
        found = encoder.feature_map(inputs)
    assert found.shape == (1, 16, 4, 4)
    assert_close(found, expected)


@pytest.mark.needs_timm
def test_recorded_sizes_are_those_of_the_architecture():
    row = find("eva02-base")
    assert row.computed_sizes() == row.recorded


@pytest.mark.needs_timm
def test_an_unknown_architecture_is_named():
    with pytest.raises(EncoderError, match=r"'architecture': 'eva99'.*transformers refuses it"):
        ImageEncoder.from_config({"model_type": "timm_wrapper", "architecture": "eva99"}, size=SIZE)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_its_networks_are_refused_with_what_to_install(tmp_path):
    remedy = r'its network comes from timm, which is not installed\. pip install "mimctr\[timm\]"$'
    row = find("eva02-base")
    assert (row.sizes().parameters, row.sizes().width) == (86_348_544, 768)
    with pytest.raises(EncoderError, match=f"^eva02-base: {remedy}"):
        row.weights()
    with pytest.raises(EncoderError, match=f"^model type 'timm_wrapper': {remedy}"):
        ImageEncoder.from_config(row.network, size=448)
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"architecture": EVA02, "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 448, 448]}}
        )
    )
    with pytest.raises(EncoderError, match=f"^{tmp_path}: {remedy}"):
        ImageEncoder.load(tmp_path)
