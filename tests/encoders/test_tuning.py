"""Frozen layers, low-rank adapters and activations that are made again, on every foundation model's architecture."""

import copy
import gc
import sys

import pytest
import torch
from torch import Tensor, nn

from encoders.small import SIZE, TITLES, picture
from encoders.test_registry import tokenizer
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.registry import FOUNDATIONS, Foundation, find
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.tuning import add_adapters, checkpoint_activations, freeze_layers, layers, merge_adapters
from mimctr.errors import EncoderError

DEEP = {
    "resnet": {"depths": [2, 2]},
    "swin": {"depths": [2, 2]},
    "convnext": {"depths": [2, 2]},
    "convnextv2": {"depths": [2, 2]},
    "gpt2": {"n_layer": 3},
}
"""More layers than the minuscule rows have; of a transformer three."""
each_row = pytest.mark.parametrize("row", FOUNDATIONS, ids=lambda row: row.name)


def deep(row: Foundation) -> ImageEncoder | TextEncoder:
    """Return a minuscule encoder of several layers, with dropout where the network has any."""
    torch.manual_seed(0)
    model_type = row.network["model_type"]
    config = {"model_type": model_type, **row.small, **DEEP.get(model_type, {"num_hidden_layers": 3})}
    if row.modality == "image":
        return ImageEncoder.from_config(config, size=SIZE, pooling=row.pooling)
    return TextEncoder.from_config(config, tokenizer(), max_length=12, pooling=row.pooling)


def vectors(encoder: ImageEncoder | TextEncoder, *, copies: int = 1) -> Tensor:
    torch.manual_seed(1)
    if isinstance(encoder, ImageEncoder):
        return encoder(encoder.pixels([picture(number) for number in range(3)] * copies))
    return encoder(*encoder.tokenize(TITLES * copies))


def gradients(encoder: ImageEncoder | TextEncoder) -> dict[str, Tensor]:
    encoder.zero_grad()
    vectors(encoder).square().sum().backward()
    return {
        name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None
    }


def bytes_held(encoder: ImageEncoder | TextEncoder) -> int:
    """Return the size of all tensors that a forward pass leaves behind for the backward pass."""
    before = storages()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        result = vectors(
            encoder, copies=20
        )  # with hooks, what is saved is an object that the garbage collector knows
    held = {address: size for address, size in storages().items() if address not in before}
    assert result.requires_grad
    return sum(held.values())


def storages() -> dict[int, int]:
    """Return address and size of what every living tensor points at."""
    found = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found}


@each_row
def test_activations_made_again_give_the_same_vectors_gradients_and_statistics(row):
    encoder = deep(row).train()
    other = copy.deepcopy(encoder)
    checkpoint_activations(other.network)
    assert torch.equal(vectors(other), vectors(encoder))
    expected, found = gradients(encoder), gradients(other)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))
    for name, buffer in encoder.named_buffers():  # batch norm has seen as many batches
        assert torch.equal(dict(other.named_buffers())[name], buffer), name
    assert bytes_held(other) < 0.8 * bytes_held(encoder)


@each_row
def test_frozen_layers_and_what_comes_before_them_get_no_gradient(row):
    encoder = deep(row).train()
    stack = list(layers(encoder.network))
    assert len(stack) == (2 if row.name.startswith(("resnet", "swin", "convnext")) else 3)
    everything = gradients(encoder)
    freeze_layers(encoder.network, 1)
    found = gradients(encoder)
    assert found
    first = {id(parameter) for parameter in stack[0].parameters()}
    later = {id(parameter) for layer in stack[1:] for parameter in layer.parameters()}
    for name, parameter in encoder.named_parameters():
        trained = parameter.requires_grad
        assert trained == (name in found) or name not in everything
        if id(parameter) in first or "embed" in name or "wte" in name or "wpe" in name or "pre_layr" in name:
            assert not trained, name
        if id(parameter) in later:
            assert trained, name


@each_row
def test_adapters_start_at_zero_take_all_gradient_and_merge_to_what_they_said(row, tmp_path):
    encoder = deep(row).eval()
    start = vectors(encoder).detach()
    names = list(encoder.state_dict())
    weights = copy.deepcopy(encoder.state_dict())
    add_adapters(encoder.network, rank=2, alpha=6.0)
    torch.testing.assert_close(
        vectors(encoder), start
    )  # but for the last bit, where memory is laid out otherwise

    found = gradients(encoder.train())
    assert found
    assert all("lora_" in name for name in found)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                assert "lora_" in name
                parameter.normal_(std=0.2)
    adapted = vectors(encoder.eval()).detach()
    assert not torch.allclose(adapted, start, rtol=1e-2, atol=1e-2)

    merge_adapters(encoder.network)
    torch.testing.assert_close(vectors(encoder), adapted, rtol=1e-4, atol=1e-4)
    assert list(encoder.state_dict()) == names
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    for name, weight in encoder.state_dict().items():
        if weight.ndim < 2:
            assert torch.equal(weight, weights[name]), name
        else:
            assert torch.linalg.matrix_rank((weight - weights[name]).flatten(1), atol=1e-4) <= 2, name
    encoder.save(tmp_path)
    assert type(encoder).load(tmp_path).fingerprint == encoder.fingerprint


def test_merged_weights_are_the_start_plus_the_scaled_product():
    encoder = deep(find("bert-base"))
    linear = encoder.network.encoder.layer[1].attention.self.query
    start = linear.weight.detach().clone()
    add_adapters(encoder.network, rank=2, alpha=6.0)
    adapted = encoder.network.encoder.layer[1].attention.self.query
    down, up = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    nn.init.normal_(up)
    expected = start + 6.0 / 2 * up.detach() @ down.detach()
    merge_adapters(encoder.network)
    torch.testing.assert_close(encoder.network.encoder.layer[1].attention.self.query.weight, expected)


def test_frozen_layers_get_no_adapters():
    encoder = deep(find("gpt2"))
    freeze_layers(encoder.network, 2)
    add_adapters(encoder.network, rank=2, alpha=2.0)
    adapted = {name.split(".")[1] for name, _ in encoder.network.named_parameters() if "lora_" in name}
    assert adapted == {"2"}


def test_all_three_go_together():
    encoder = deep(find("vit-base")).train()
    freeze_layers(encoder.network, 1)
    add_adapters(encoder.network, rank=2, alpha=2.0)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    expected = gradients(encoder)
    checkpoint_activations(encoder.network)
    found = gradients(encoder)
    assert found.keys() == expected.keys()
    assert all("lora_" in name and "layers.0" not in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def test_batch_norm_of_frozen_stages_keeps_its_statistics():
    encoder = deep(find("resnet-50"))
    freeze_layers(encoder.network, 1)
    before = copy.deepcopy(encoder.state_dict())
    vectors(encoder.train())
    moved = {
        name
        for name, buffer in encoder.state_dict().items()
        if name.endswith("running_mean") and not torch.equal(buffer, before[name])
    }
    assert moved
    assert all(name.startswith("network.encoder.stages.1") for name in moved)


def test_more_frozen_layers_than_there_are_is_refused():
    with pytest.raises(EncoderError, match=r"4 frozen layers: BertModel has only 3\. Freeze fewer"):
        freeze_layers(deep(find("bert-base")).network, 4)


def test_nothing_left_to_adapt_is_refused():
    encoder = deep(find("bert-base"))
    freeze_layers(encoder.network, 3)
    with pytest.raises(EncoderError, match="BertModel has no matrix in a layer that is not frozen"):
        add_adapters(encoder.network, rank=2, alpha=2.0)


def test_adapters_without_peft_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EncoderError, match=r'need peft. Install it: pip install "mimctr\[peft\]"'):
        add_adapters(deep(find("bert-base")).network, rank=2, alpha=2.0)
