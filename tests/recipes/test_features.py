"""Features for other models, against a loop over impressions and behaviors."""

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.recipes import features, stages
from mimctr.recipes.embed import ITEMS, QUERIES
from mimctr.recipes.prepare import Config as PrepareConfig
from recipes.test_train import NUM_STYLES, write_shop

EXAMPLE = Path(__file__).parents[2] / "examples" / "gradient_boosting.py"
DIM = 3


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of which every seventh item has no vector."""
    folder = tmp_path_factory.mktemp("features")
    write_shop(folder / "tables")
    stages.prepare(folder / "tables", folder / "dataset", PrepareConfig(warmup_days=5)).run()
    keys = CtrDataset.open(folder / "dataset").items["item_key"].to_numpy()
    rng = np.random.default_rng(1)
    known = keys[np.arange(len(keys)) % 7 > 0]
    vectors = rng.normal(size=(len(known), DIM)).astype(np.float32)
    write_snapshot(folder / "content" / ITEMS, known, vectors, encoder="random")
    nothing = np.zeros((0, DIM), dtype=np.float32)
    write_snapshot(folder / "content" / QUERIES, np.zeros(0, dtype=np.int64), nothing, encoder="random")
    return folder


def test_every_column_is_what_a_loop_finds(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 700)  # several row groups, and one across a part's end
    config = features.Config(max_length=6, num_tiers=4, vectors=True, batch_size=300)
    stages.features(shop / "dataset", shop / "content", tmp_path / "out", config).run()
    found = pl.read_parquet(tmp_path / "out" / "features.parquet")
    raw = pl.read_parquet(shop / "tables" / "impressions.parquet")
    start = raw["time"].min() + 5 * 86_400
    expected = raw.filter(pl.col("time") >= start)
    assert found["time"].to_list() == expected["time"].to_list()
    assert found["click"].to_list() == expected["click"].to_list()
    assert found["part"].unique(maintain_order=True).to_list() == ["train", "validation", "test"]

    data = CtrDataset.open(shop / "dataset")
    snapshot = Snapshot.open(shop / "content" / ITEMS, encoder="random")
    vector = {}
    for key, item in zip(data.items["item_key"], data.items["item_id"], strict=True):
        row = int(snapshot.rows(np.array([key]))[0])
        vector[item] = None if row < 0 else snapshot.vectors[row].astype(np.float64)
    clicks = raw.filter(pl.col("click") == 1)
    history = {user: rows for (user,), rows in clicks.group_by("user_id")}
    for row in found.sample(200, seed=0).iter_rows(named=True):
        earlier = history.get(row["user_id"], clicks.clear()).filter(pl.col("time") < row["time"])
        behaviors = earlier.sort("time", maintain_order=True)["item_id"].to_list()[-6:]
        target = vector[row["item_id"]]
        there = [vector[item] for item in behaviors if vector[item] is not None and target is not None]
        cosines = [float(v @ target / np.linalg.norm(v) / np.linalg.norm(target)) for v in there]
        assert row["num_behaviors"] == len(behaviors)
        assert row["num_compared"] == len(cosines)
        assert row["target_has_vector"] == (target is not None)
        assert not row["query_has_vector"]
        assert [row[name] for name in ("query_target", "query_behaviors_mean", "query_behaviors_max")] == [
            None
        ] * 3
        if not cosines:
            assert row["relevance_mean"] is None
            assert row["relevance_max"] is None
            assert row["content_interest"] == [0.0] * DIM
            continue
        assert row["relevance_mean"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
        assert row["relevance_max"] == pytest.approx(max(cosines), abs=1e-5)
        tiers = [min(math.floor((cosine + 1) * 2), 3) for cosine in cosines]
        assert [row[f"tier_{tier}"] for tier in range(4)] == [tiers.count(tier) for tier in range(4)]
        interest = sum(cosine * v for cosine, v in zip(cosines, there, strict=True))
        np.testing.assert_allclose(row["content_interest"], interest, atol=1e-4)


def test_the_example_learns_from_the_columns(shop, tmp_path):
    # All test items are new: without content nothing is known of them.
    items = CtrDataset.open(shop / "dataset").items
    styles = write_shop(tmp_path / "the same tables")[items["item_id"].to_numpy()]
    vectors = np.eye(NUM_STYLES, dtype=np.float32)[styles]
    write_snapshot(tmp_path / ITEMS, items["item_key"].to_numpy(), vectors, encoder="styles")
    write_snapshot(tmp_path / QUERIES, np.zeros(0, dtype=np.int64), vectors[:0], encoder="styles")
    stages.features(shop / "dataset", tmp_path, tmp_path / "out", features.Config()).run()
    command = [sys.executable, EXAMPLE, shop / "dataset", tmp_path / "out" / "features.parquet"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    auc = {name.strip(): float(value) for name, value in re.findall(r"(.*) test AUC (.*)", printed)}
    assert list(auc) == ["without content", "with content"]
    assert 0.42 < auc["without content"] < 0.58
    assert auc["with content"] > 0.75


def test_the_example_s_click_rates_know_earlier_rows_of_the_training_part_only():
    # Mutant: rates over all other rows, from which a tree reads the row's own click (AUC .47 on the demo).
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 3, 60) for name in ("user_id", "item_id", "category")}
    click, part = rng.integers(0, 2, 60), np.repeat(["train", "test"], [40, 20])
    found = runpy.run_path(str(EXAMPLE))["with_rates"](pl.DataFrame(columns | {"click": click, "part": part}))
    overall = click[:40].mean()
    for name, values in columns.items():
        for row in range(60):
            earlier = [other for other in range(min(row, 40)) if values[other] == values[row]]
            expected = (click[earlier].sum() + 20 * overall) / (len(earlier) + 20)
            assert found[f"rate_{name}"][row] == pytest.approx(expected)
