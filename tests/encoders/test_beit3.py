"""BEiT-3's text branch: the published layout, and the parity with torchscale's own implementation."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from encoders.small import TITLES
from mimctr.encoders.architecture import build_network, load_network
from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.errors import EncoderError

SMALL = {
    "model_type": "beit3",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}


def write_published(folder, tensors):
    """Write a folder as a user makes it of the published checkpoint: both branches, a head, prefix ``beit3.``"""
    text = {f"beit3.{name}": tensor for name, tensor in tensors.items()}
    vision = {name.replace(".B.", ".A."): tensor.clone() for name, tensor in text.items() if ".B." in name}
    rest = {"beit3.vision_embed.cls_token": torch.zeros(1, 1, 16), "mlm_head.weight": torch.zeros(50, 16)}
    folder.mkdir(exist_ok=True)
    save_file(text | vision | rest, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALL))


def test_a_published_checkpoint_loads_without_its_vision_branch(tmp_path):
    tensors = build_network(SMALL, modality="input_ids").state_dict()
    assert "encoder.layers.1.self_attn.inner_attn_ln.B.weight" in tensors
    write_published(tmp_path, tensors)
    loaded = load_network(tmp_path, modality="input_ids").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", ["text_embed.weight", "encoder.layers.1.ffn.B.fc2.bias"])
def test_a_checkpoint_that_misses_a_text_tensor_is_refused(tmp_path, name):
    tensors = build_network(SMALL, modality="input_ids").state_dict()
    count = len(tensors)
    del tensors[name]
    write_published(tmp_path, tensors)
    with pytest.raises(
        EncoderError, match=rf"1 of {count} tensors of Beit3TextModel are not .* First: {name}\."
    ):
        load_network(tmp_path, modality="input_ids")


def test_its_vector_is_the_first_token_unless_said_otherwise(tmp_path):
    tokenizer = train_tokenizer(TITLES, vocab_size=50)
    write_published(tmp_path, build_network(SMALL, modality="input_ids").state_dict())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder.load(tmp_path, max_length=12)
    ids, mask = encoder.tokenize(TITLES)
    assert_close(encoder(ids, mask), encoder.token_vectors(ids, mask)[:, 0])
    assert TextEncoder.load(tmp_path, max_length=12, pooling="mean").pooling == "mean"


def test_the_longest_text_is_as_long_as_the_table_of_positions():
    encoder = TextEncoder.from_config(SMALL, train_tokenizer(TITLES), max_length=16)
    ids, mask = encoder.tokenize([" ".join(TITLES)])
    assert ids.shape == (1, 16)
    assert encoder(ids, mask).isfinite().all()
    with pytest.raises(EncoderError, match="max_length 17: the text encoder has only 16 positions"):
        TextEncoder.from_config(SMALL, train_tokenizer(TITLES), max_length=17)


@pytest.mark.needs_timm  # whose environment has torchscale too
@pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning")
def test_vectors_and_gradients_are_those_of_torchscale(tmp_path):
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3

    settings = EncoderConfig(
        img_size=32,
        patch_size=16,
        vocab_size=50,
        multiway=True,
        layernorm_embedding=False,
        normalize_output=True,
        no_output_layer=True,
        encoder_embed_dim=16,
        encoder_attention_heads=2,
        encoder_ffn_embed_dim=24,
        encoder_layers=2,
        max_source_positions=18,
    )
    theirs = BEiT3(settings).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    save_file(
        {f"beit3.{n}": t.clone() for n, t in theirs.state_dict().items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    ours = load_network(tmp_path, modality="input_ids")

    ids = torch.randint(50, (4, 16))
    mask = torch.arange(16) < torch.tensor([16, 9, 1, 3])[:, None]
    weights = torch.randn(4, 16, 16) * mask.unsqueeze(-1)
    expected = theirs(textual_tokens=ids, text_padding_position=~mask)["encoder_out"]
    found = ours(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert_close(found[mask], expected[mask])

    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_saved_weights_bear_the_published_names(tmp_path):
    encoder = TextEncoder.from_config(SMALL, train_tokenizer(TITLES), max_length=16)
    encoder.save(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert {
        "text_embed.weight",
        "encoder.embed_positions.B.weight",
        "encoder.layers.0.self_attn.q_proj.B.bias",
        "encoder.layers.0.ffn.B.ffn_layernorm.weight",
        "encoder.layer_norm.B.weight",
    } <= names.keys()
