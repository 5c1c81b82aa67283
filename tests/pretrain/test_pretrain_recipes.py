import functools
import json
import math
import shutil

import polars as pl
import pytest
import torch
from csft.shop import write_corpus
from encoders.small import BERT, GPT2, RESNET, SIZE, TITLES, picture, text_encoder

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.errors import ConfigError, DataError, EncoderError, RunError
from mimctr.pretrain.masked_language import read_head
from mimctr.recipes import fitting, foundation, pretrain
from mimctr.train.run import Run
from pretrain.test_masked_language import published_bert

FOUNDATION = foundation.Config(
    image_network=RESNET,
    text_network=BERT,
    image_size=SIZE,
    max_tokens=12,
    vocab_size=80,
    image_steps=6,
    text_steps=6,
    batch_size=8,
    device="cpu",
    bf16=False,
)
PRETRAIN = pretrain.Config(
    masked_image_steps=6,
    language_steps=6,
    alignment_steps=6,
    batch_size=8,
    masked_patch=8,
    masked_language_ratio=0.5,
    device="cpu",
    bf16=False,
)


class Killed(Exception): ...


def fingerprints(folder):
    return ImageEncoder.load(folder / "image").fingerprint, TextEncoder.load(folder / "text").fingerprint


def kill_at(monkeypatch, number):
    """Kill the run at the ``number``-th optimizer step of the stage."""
    take_step, calls = fitting.take_step, []

    def kill(*args, **others):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        take_step(*args, **others)

    monkeypatch.setattr(fitting, "take_step", kill)
    return take_step


@pytest.mark.parametrize("killed_at", [4, 9])
def test_a_killed_foundation_ends_bit_for_bit_like_an_undisturbed_one(tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(foundation, "Run", functools.partial(Run, checkpoint_seconds=0.0))
    corpus = write_corpus(tmp_path / "corpus")
    expected = foundation.main(corpus, tmp_path / "undisturbed", FOUNDATION)
    take_step = kill_at(monkeypatch, killed_at)
    with pytest.raises(Killed):
        foundation.main(corpus, tmp_path / "killed", FOUNDATION)
    monkeypatch.setattr(fitting, "take_step", take_step)
    assert foundation.main(corpus, tmp_path / "killed", FOUNDATION) == expected
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "undisturbed")
    for step in ("image", "text"):
        files = [tmp_path / name / "run" / step / "metrics.jsonl" for name in ("killed", "undisturbed")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("killed_at", "rank"), [(8, 0), (15, 0), (15, 2)])
def test_a_killed_pretraining_ends_bit_for_bit_like_an_undisturbed_one(
    shop, encoders, tmp_path, monkeypatch, killed_at, rank
):
    config = PRETRAIN.model_copy(update={"lora_rank": rank, "activation_checkpointing": bool(rank)})
    monkeypatch.setattr(pretrain, "Run", functools.partial(Run, checkpoint_seconds=0.0))
    expected = pretrain.main(shop, encoders, tmp_path / "undisturbed", config)
    take_step = kill_at(monkeypatch, killed_at)
    with pytest.raises(Killed):
        pretrain.main(shop, encoders, tmp_path / "killed", config)
    monkeypatch.setattr(fitting, "take_step", take_step)
    assert pretrain.main(shop, encoders, tmp_path / "killed", config) == expected
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "undisturbed")


def test_training_lowers_the_held_out_losses(shop, encoders, tmp_path):
    longer = {"masked_image_steps": 40, "language_steps": 40}
    found = pretrain.main(shop, encoders, tmp_path, PRETRAIN.model_copy(update=longer))
    assert found["masked_image_held_out_loss_after"] < found["masked_image_held_out_loss_before"]
    assert found["masked_language_held_out_loss_after"] < found["masked_language_held_out_loss_before"]
    ways = [f"alignment_{way}" for way in ("image_to_title", "title_to_image")]
    names = ("recall@1", "recall@10", "recall@100", "mrr")
    assert {f"{way}_{name}_{when}" for way in ways for name in names for when in ("before", "after")} <= set(
        found
    )
    assert json.loads((tmp_path / "pretrain.json").read_text()) == found


@pytest.mark.parametrize("step", ["masked_image", "language", "alignment"])
def test_every_step_can_be_switched_off(shop, encoders, tmp_path, step):
    only = {name: name == step for name in ("masked_image", "language", "alignment")}
    found = pretrain.main(shop, encoders, tmp_path, PRETRAIN.model_copy(update=only))
    assert all(name.removeprefix("masked_").startswith(step.removeprefix("masked_")) for name in found)
    assert found
    before, after = fingerprints(encoders), fingerprints(tmp_path)
    assert (before[0] != after[0]) == (step != "language")
    assert (before[1] != after[1]) == (step != "masked_image")


def test_nothing_switched_on_changes_nothing(shop, encoders, tmp_path):
    off = {"masked_image": False, "language": False, "alignment": False}
    assert pretrain.main(shop, encoders, tmp_path, PRETRAIN.model_copy(update=off)) == {}
    assert fingerprints(tmp_path) == fingerprints(encoders)


def test_given_weights_are_taken_as_they_are(encoders, tmp_path):
    config = foundation.Config(
        image_weights=encoders / "image", text_weights=encoders / "text", image_size=24, max_tokens=10
    )
    assert not config.needs_corpus
    assert foundation.main(None, tmp_path, config) == {}
    image = ImageEncoder.load(tmp_path / "image")
    assert image.size == 24
    assert TextEncoder.load(tmp_path / "text").max_length == 10
    theirs = ImageEncoder.load(encoders / "image").network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in image.network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "said", "pooling"), [(BERT, None, "mean"), (GPT2, None, "last"), (GPT2, "mean", "mean")]
)
def test_a_network_trained_here_has_its_own_pooling_unless_another_is_given(
    encoders, tmp_path, network, said, pooling
):
    settings = {"image_weights": encoders / "image", "text_network": network, "text_pooling": said}
    config = FOUNDATION.model_copy(update=settings | {"text_steps": 1})
    foundation.main(write_corpus(tmp_path / "corpus"), tmp_path / "out", config)
    assert TextEncoder.load(tmp_path / "out" / "text").pooling == pooling


def test_one_encoder_can_be_given_and_the_other_trained(encoders, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    config = FOUNDATION.model_copy(update={"image_weights": encoders / "image"})
    assert config.needs_corpus
    found = foundation.main(corpus, tmp_path / "out", config)
    assert set(found) == {"text_held_out_loss"}


def test_neither_corpus_nor_weights_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no corpus to read images from, and no weights"):
        foundation.main(None, tmp_path, FOUNDATION)


def test_a_corpus_without_table_or_column_is_refused(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    pl.DataFrame({"image": [picture(1)], "class": [1]}).write_parquet(corpus / "images.parquet")
    with pytest.raises(DataError, match=r"images.parquet: no column 'label', only image, class"):
        foundation.main(corpus, tmp_path / "out", FOUNDATION)
    (corpus / "images.parquet").unlink()
    with pytest.raises(DataError, match=r"images.parquet: no such table"):
        foundation.main(corpus, tmp_path / "out", FOUNDATION)


def test_a_corpus_with_gaps_is_refused(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    pl.DataFrame({"caption": [*TITLES, None]}).write_parquet(corpus / "captions.parquet")
    with pytest.raises(DataError, match=r"captions.parquet: 1 of 7 rows have no 'caption'"):
        foundation.main(corpus, tmp_path / "out", FOUNDATION)


def test_a_diverging_run_stops_with_its_step(shop, encoders, tmp_path):
    wild = PRETRAIN.model_copy(update={"masked_image": False, "alignment": False, "text_learning_rate": 1e30})
    with pytest.raises(
        RunError, match=r"masked_language: (held_out_)?loss is nan at step \d; training has diverged"
    ):
        pretrain.main(shop, encoders, tmp_path, wild)


def test_dda_continues_with_the_head_that_the_foundation_trained(shop, tmp_path):
    foundation.main(write_corpus(tmp_path / "corpus"), tmp_path / "with", FOUNDATION)
    shutil.copytree(tmp_path / "with", tmp_path / "without")
    (tmp_path / "without" / "text" / "masked_language_head.safetensors").unlink()
    only = PRETRAIN.model_copy(update={"masked_image": False, "alignment": False})
    losses = [
        pretrain.main(shop, tmp_path / name, tmp_path / f"{name}_out", only)[
            "masked_language_held_out_loss_before"
        ]
        for name in ("with", "without")
    ]
    assert losses[0] != losses[1]


@pytest.fixture
def gpt2(encoders, tmp_path):
    """Encoders whose text network looks back only."""
    folder = tmp_path / "gpt2"
    shutil.copytree(encoders / "image", folder / "image")
    text_encoder("gpt2").save(folder / "text")
    return folder


def test_a_network_that_looks_back_only_learns_to_predict_the_next_token(shop, gpt2, tmp_path):
    only = {"masked_image": False, "alignment": False, "language_steps": 40}
    found = pretrain.main(shop, gpt2, tmp_path / "out", PRETRAIN.model_copy(update=only))
    assert set(found) == {"causal_language_held_out_loss_before", "causal_language_held_out_loss_after"}
    assert found["causal_language_held_out_loss_after"] < found["causal_language_held_out_loss_before"]
    assert fingerprints(tmp_path / "out")[1] != fingerprints(gpt2)[1]
    assert not (tmp_path / "out" / "text" / "masked_language_head.safetensors").exists()


def test_a_network_that_looks_back_only_can_be_trained_from_nothing(tmp_path):
    config = FOUNDATION.model_copy(update={"text_network": GPT2, "image_steps": 1, "text_steps": 30})
    found = foundation.main(write_corpus(tmp_path / "corpus"), tmp_path / "out", config)
    assert found["text_held_out_loss"] < math.log(
        TextEncoder.load(tmp_path / "out" / "text").network.config.vocab_size
    )


def test_the_head_of_given_weights_is_taken_along(shop, encoders, tmp_path):
    """Foundation keeps a published checkpoint's head beside the encoder, and DDA starts from it."""
    published = tmp_path / "published"
    theirs = published_bert(published)
    config = foundation.Config(image_weights=encoders / "image", text_weights=published, max_tokens=12)
    foundation.main(None, tmp_path / "plain", config)
    head = read_head(tmp_path / "plain" / "text")
    assert torch.equal(head["transform.0.weight"], theirs.cls.predictions.transform.dense.weight)
    foundation.main(
        None, tmp_path / "again", config.model_copy(update={"text_weights": tmp_path / "plain" / "text"})
    )
    assert torch.equal(read_head(tmp_path / "again" / "text")["bias"], theirs.cls.predictions.bias)

    only = PRETRAIN.model_copy(update={"masked_image": False, "alignment": False, "language": False})
    pretrain.main(shop, tmp_path / "plain", tmp_path / "untouched", only)
    assert torch.equal(read_head(tmp_path / "untouched" / "text")["bias"], theirs.cls.predictions.bias)


def test_adapters_and_frozen_layers_of_pretraining_end_in_an_ordinary_encoder(shop, encoders, tmp_path):
    settings = {"lora_rank": 2, "frozen_text_layers": 1}
    with pytest.raises(
        EncoderError, match="low-rank adapters: BertModel has no matrix in a layer that is not"
    ):
        pretrain.main(shop, encoders, tmp_path / "none", PRETRAIN.model_copy(update=settings))
    settings["frozen_text_layers"] = 0
    found = pretrain.main(shop, encoders, tmp_path / "lora", PRETRAIN.model_copy(update=settings))
    assert found["masked_language_held_out_loss_after"] < found["masked_language_held_out_loss_before"]
    for kind, name in ((ImageEncoder, "image"), (TextEncoder, "text")):
        start = kind.load(encoders / name).network.state_dict()
        tuned = kind.load(tmp_path / "lora" / name).network.state_dict()
        assert list(start) == list(tuned)
        changed = {key for key, value in start.items() if not torch.equal(value, tuned[key])}
        assert changed
        assert all(key.endswith(".weight") and "embeddings" not in key for key in changed)
