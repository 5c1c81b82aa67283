from pathlib import Path

import pytest
import torch
from encoders.small import BERT, TITLES, image_encoder

from csft.shop import write_encoders, write_shop
from mimctr.encoders.text import TextEncoder, train_tokenizer


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of the minuscule shop."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained encoders."""
    return write_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="session")
def calm_encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained encoders that draw nothing: what is drawn differs between processes."""
    folder = tmp_path_factory.mktemp("calm_encoders")
    torch.manual_seed(0)
    calm = {**BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = TextEncoder.from_config(calm, train_tokenizer(TITLES, vocab_size=80), max_length=12)
    image_encoder("vit").save(folder / "image")
    text.save(folder / "text")
    return folder


@pytest.fixture(scope="session")
def shop_of_behaviors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of the same shop without visual search: an earlier purchase asks for a later one."""
    return write_shop(tmp_path_factory.mktemp("shop_of_behaviors"), searches=False)
