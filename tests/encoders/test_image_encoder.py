import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from encoders.small import BERT, NETWORKS, RESNET, SIZE, VIT, image_encoder, picture, shake, text_encoder
from mimctr.encoders.image import ImageEncoder
from mimctr.errors import EncoderError


@pytest.fixture(params=NETWORKS)
def encoder(request):
    return image_encoder(request.param)


def test_every_network_gives_a_vector_and_a_square_map(encoder):
    pixels = encoder.pixels([picture(1), picture(2), picture(3)])
    with torch.no_grad():
        vectors = encoder(pixels)
        features = encoder.feature_map(encoder.normalize(pixels))
    assert vectors.shape == (3, encoder.dim)
    assert features.shape == (3, encoder.map_dim, encoder.map_size, encoder.map_size)
    assert SIZE % encoder.map_size == 0
    torch.testing.assert_close(encoder(pixels[1:2])[0], vectors[1])  # a row does not depend on its batch


def test_saved_and_loaded_encoders_are_the_same(encoder, tmp_path):
    shake(encoder)
    encoder.save(tmp_path / "image")
    loaded = ImageEncoder.load(tmp_path / "image")
    pixels = encoder.pixels([picture(1)])
    assert torch.equal(loaded(pixels), encoder(pixels))
    assert loaded.fingerprint == encoder.fingerprint


def test_class_and_register_tokens_stay_out_of_the_map():
    encoder = image_encoder("registers")
    inputs = encoder.normalize(encoder.pixels([picture(1)]))
    hidden = encoder.network(pixel_values=inputs).last_hidden_state  # class, 4 registers, 16 patches
    assert hidden.shape[1] == 21
    torch.testing.assert_close(encoder.feature_map(inputs).flatten(2).transpose(1, 2), hidden[:, 5:])
    torch.testing.assert_close(encoder.pool(inputs), hidden[:, 5:].mean(1))


def test_the_first_token_can_be_the_vector():
    encoder = ImageEncoder.from_config(VIT, size=SIZE, pooling="cls")
    inputs = encoder.normalize(encoder.pixels([picture(1)]))
    torch.testing.assert_close(
        encoder.pool(inputs), encoder.network(pixel_values=inputs).last_hidden_state[:, 0]
    )


@pytest.mark.parametrize(
    ("name", "resampling"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_pixels_are_resized_with_the_filter_and_normalized(name, resampling):
    network = image_encoder().network
    encoder = ImageEncoder(network, size=SIZE, resize=name, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    data = picture(4, width=40, height=25)
    pixels = encoder.pixels([data])
    resized = np.array(Image.open(io.BytesIO(data)).resize((SIZE, SIZE), resampling))
    assert np.array_equal(pixels[0].numpy(), resized.transpose(2, 0, 1))
    expected = (resized / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
    np.testing.assert_allclose(
        encoder.normalize(pixels)[0].numpy(), expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6
    )


def test_no_pictures_are_no_pixels():
    assert image_encoder().pixels([]).shape == (0, 3, SIZE, SIZE)


def test_another_image_size_than_the_weights_had_works(tmp_path):
    image_encoder().save(tmp_path / "image")
    larger = ImageEncoder.load(tmp_path / "image", size=24)
    assert larger.map_size == 6
    assert larger(larger.pixels([picture(1)])).shape == (1, 16)


def test_every_weight_changes_the_fingerprint():
    encoder = image_encoder()
    before = encoder.fingerprint
    for parameter in encoder.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 0.5
        changed = encoder.fingerprint
        assert changed != before
        before = changed


def test_batch_statistics_change_the_fingerprint():
    encoder = image_encoder("resnet")
    before = encoder.fingerprint
    encoder.network.get_buffer("embedder.embedder.normalization.running_mean")[0] += 1
    assert encoder.fingerprint != before


@pytest.mark.parametrize(
    "change",
    [
        {"size": 24},
        {"resize": "bicubic"},
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.6)},
        {"pooling": "cls"},
    ],
)
def test_every_preprocessing_setting_changes_the_fingerprint(change):
    network = image_encoder().network
    plain = {"size": SIZE}
    assert ImageEncoder(network, **plain).fingerprint != ImageEncoder(network, **(plain | change)).fingerprint


def test_an_activation_changes_the_fingerprint_although_no_weight_does():
    fingerprints = set()
    for activation in ("gelu", "relu"):
        torch.manual_seed(0)
        fingerprints.add(ImageEncoder.from_config({**VIT, "hidden_act": activation}, size=SIZE).fingerprint)
    assert len(fingerprints) == 2


def test_loaded_batch_norm_keeps_its_statistics_while_training(tmp_path):
    encoder = image_encoder("resnet")
    pixels = encoder.pixels([picture(1), picture(2)])
    encoder.train()
    encoder(pixels)
    moved = encoder.network.embedder.embedder.normalization.running_mean.clone()
    assert not torch.equal(moved, torch.zeros(4))  # from a configuration it adapts
    encoder.save(tmp_path / "image")

    loaded = ImageEncoder.load(tmp_path / "image").train()
    loaded(pixels)
    assert torch.equal(loaded.network.embedder.embedder.normalization.running_mean, moved)


def test_preprocessing_of_a_hugging_face_folder_is_read(tmp_path):
    image_encoder().network.save_pretrained(tmp_path)
    saved = {"size": {"height": 20, "width": 20}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    loaded = ImageEncoder.load(tmp_path)
    assert (loaded.size, loaded.mean, loaded.std) == (20, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.resize == "bilinear"


@pytest.mark.parametrize("name", ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"])
def test_the_resize_filter_of_a_hugging_face_folder_is_kept(tmp_path, name):
    """The file holds Pillow's number of it."""
    image_encoder().network.save_pretrained(tmp_path / "hub")
    saved = {"size": {"height": SIZE, "width": SIZE}, "resample": int(Image.Resampling[name.upper()])}
    (tmp_path / "hub" / "preprocessor_config.json").write_text(json.dumps(saved))
    loaded = ImageEncoder.load(tmp_path / "hub")
    assert loaded.resize == name
    loaded.save(tmp_path / "saved")
    again = ImageEncoder.load(tmp_path / "saved")
    assert (again.resize, again.fingerprint) == (loaded.resize, loaded.fingerprint)


def test_an_unknown_resize_filter_is_named(tmp_path):
    image_encoder().network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 16, "resample": 9}')
    with pytest.raises(EncoderError, match=r"resized with the filter 9\. Known: nearest, lanczos, bilinear"):
        ImageEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("saved", "size"),
    [
        ({"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 20}}, 20),
        ({"size": {"shortest_edge": 24}, "crop_size": 20, "do_center_crop": False}, 24),
        ({"size": 24}, 24),
    ],
)
def test_the_size_is_what_the_network_saw(tmp_path, saved, size):
    image_encoder().network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    assert ImageEncoder.load(tmp_path).size == size


def test_preprocessing_of_a_model_on_the_hub_is_read(tmp_path, monkeypatch):
    """A hub name is no folder: its files lie in the hub's cache."""
    cached = tmp_path / "models--some--model"
    image_encoder().network.save_pretrained(cached / "snapshots" / "abc")
    saved = {"size": 20, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    (cached / "snapshots" / "abc" / "preprocessor_config.json").write_text(json.dumps(saved))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = ImageEncoder.load("some/model")
    assert (loaded.size, loaded.resize) == (20, "bicubic")
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_weights_that_were_changed_are_refused(tmp_path):
    image_encoder().save(tmp_path / "image")
    path = tmp_path / "image" / "model.safetensors"
    tensors = load_file(path)
    tensors["layernorm.bias"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="image: its weights are not those that were saved"):
        ImageEncoder.load(tmp_path / "image")


def test_missing_weights_are_refused(tmp_path):
    image_encoder().network.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        EncoderError, match=r"1 of \d+ tensors of ViTModel are not in its weights. First: layernorm"
    ):
        ImageEncoder.load(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "beit3_base_patch16_224.pth"])
def test_pickled_weights_are_not_read(tmp_path, name):
    encoder = image_encoder()
    encoder.save(tmp_path / "image")
    (tmp_path / "image" / "model.safetensors").unlink()
    torch.save(encoder.network.state_dict(), tmp_path / "image" / name)
    with pytest.raises(
        EncoderError, match=rf"image: holds its weights as a pickle only \({name}\), which could run"
    ):
        ImageEncoder.load(tmp_path / "image")


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_weights_of_another_architecture_are_refused(tmp_path):
    image_encoder("resnet").save(tmp_path / "image")
    (tmp_path / "image" / "encoder.json").unlink()
    image_encoder("vit").network.config.save_pretrained(tmp_path / "image")
    with pytest.raises(EncoderError) as caught:
        ImageEncoder.load(tmp_path / "image")
    assert "tensors of ViTModel are not in its weights. First: embeddings.cls_token." in one_line(caught)


def test_weights_of_another_width_are_refused(tmp_path):
    image_encoder().save(tmp_path / "image")
    path = tmp_path / "image" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 32}))
    with pytest.raises(EncoderError) as caught:
        ImageEncoder.load(tmp_path / "image")
    line = one_line(caught)
    assert "image: 3 of " in line
    assert "have another shape in its weights. First: layers.0.mlp.fc1.bias, [16] instead of [32]." in line


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not a valid JSON file"),
        ("{}", "`model_type` key in its config.json"),
        ('{"model_type": "vitt"}', "model type `vitt`"),
    ],
)
def test_a_folder_whose_configuration_names_no_network_is_refused(tmp_path, config, message):
    image_encoder().save(tmp_path / "image")
    (tmp_path / "image" / "config.json").write_text(config)
    with pytest.raises(EncoderError) as caught:
        ImageEncoder.load(tmp_path / "image")
    assert message in one_line(caught)


def test_a_missing_folder_is_called_missing(tmp_path):
    with pytest.raises(EncoderError, match=r"image: no such folder\. Give one that holds an encoder"):
        ImageEncoder.load(tmp_path / "image")


def test_a_text_network_is_no_image_encoder(tmp_path):
    text_encoder().save(tmp_path / "text")
    with pytest.raises(EncoderError, match="BertModel reads input_ids, not pixel_values"):
        ImageEncoder.load(tmp_path / "text")
    with pytest.raises(EncoderError, match="model type 'bert': BertModel reads input_ids, not pixel_values"):
        ImageEncoder.from_config(BERT, size=SIZE)


def test_an_unknown_network_is_named():
    with pytest.raises(EncoderError, match=r"'model_type': 'vitt'.*transformers refuses it"):
        ImageEncoder.from_config({"model_type": "vitt"}, size=SIZE)


def test_a_size_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(EncoderError, match="image size 30: ResNetModel makes a feature map of 4"):
        ImageEncoder.from_config(RESNET, size=30)


def test_an_interrupted_save_leaves_no_record(tmp_path):
    encoder = image_encoder()
    encoder.save(tmp_path / "image")
    shutil.copy(tmp_path / "image" / "encoder.json", tmp_path / "old.json")
    shake(encoder)
    encoder.network.save_pretrained = lambda folder: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        encoder.save(tmp_path / "image")
    assert not (tmp_path / "image" / "encoder.json").exists()


def test_weights_cut_short_and_a_record_of_something_else_are_told_in_a_line(tmp_path):
    image_encoder().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(EncoderError, match="no encoder can be loaded from it"):
        ImageEncoder.load(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(EncoderError, match=r"encoder\.json: format None, this version reads"):
        ImageEncoder.load(tmp_path)
    (tmp_path / "encoder.json").unlink()
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json: holds no names and values"):
        ImageEncoder.load(tmp_path)
