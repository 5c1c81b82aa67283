"""What the questions promise: vectors made elsewhere train a model, by the commands of the page."""

import numpy as np
import polars as pl
from csft.shop import NUM_ITEMS, write_shop
from typer.testing import CliRunner

from mimctr.cli import app

from .pages import DOCS

ANSWER = (
    (DOCS / "faq.md").read_text().split("### Can I use embeddings that I have already?")[1].split("###")[0]
)


def test_own_embeddings_train_a_model_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 5))
    pl.DataFrame({"item_id": np.arange(100, 100 + NUM_ITEMS), "vector": vectors.tolist()}).write_parquet(
        "clip.parquet"
    )
    commands = [line.strip() for line in ANSWER.splitlines() if line.startswith("    mimctr ")]
    assert len(commands) == 4
    small = ["--set", "embedding_dim=4", "--set", "hidden_dims=[8]", "--set", "batch_size=32"]
    for command in " && ".join(commands).split(" && "):
        words = command.split()[1:]
        done = CliRunner().invoke(app, [*words, *(small if words[0] == "train" else [])])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "model" / "predictions.safetensors").is_file()
