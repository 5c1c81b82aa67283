"""A CTR model trained by two processes, against the same one trained by one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_in

from mimctr.data.dataset import CtrDataset
from mimctr.recipes import stages
from mimctr.recipes.train import Config
from mimctr.weights import load_tensors
from recipes.test_train import SMALL, shop  # noqa: F401

UNDRAWN: dict[str, Any] = {
    "unknown_rate": 0.0,
    "content_drop_rate": 0.0,
    "epochs": 2,
    "patience": 50,
    "batch_size": 511,
}
"""What a process draws is its own; without it, two processes are one."""
CASES: dict[str, dict[str, Any]] = {
    "avg pooling": {"ubm": "mean", "variant": "base", "embedding_l2_scope": "batch", "embedding_l2": 0.01},
    "statistics of the batch": {
        "ubm": "din",
        "din_activation": "dice",
        "activation": "dice",
        "interest_norm": "batch",
    },
    "a task of its own": {"ubm": "sim", "sim_search": "soft", "sim_k": 5},
    "untrained": {"variant": "untrained_cosine"},
}


def train_all(shop: Path, out: Path) -> None:  # noqa: F811
    for name, settings in CASES.items():
        config = Config(**{**SMALL, **UNDRAWN, **settings})
        content = None if config.variant == "base" else shop / "content"
        stages.train(shop / "dataset", content, out / name, config)


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
    """Folders of all cases trained by one process and by two."""
    out = tmp_path_factory.mktemp("processes")
    train_all(shop, out / "one")
    run_in(2, train_all, shop, out / "two")
    return out / "one", out / "two"


def metrics_of(folder: Path) -> list[dict[str, float]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_model_of_one(trained, case):
    one, two = (folder / case for folder in trained)
    assert bool(metrics_of(one)) == (case != "untrained")
    for line, other in zip(metrics_of(two), metrics_of(one), strict=True):
        assert line == pytest.approx(other, rel=2e-3)
    mine, theirs = (load_tensors(folder / "predictions.safetensors")[0] for folder in (two, one))
    assert mine.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(mine[name], expected, rtol=1e-2, atol=2e-3)


def test_the_parts_of_a_batch_are_the_batch(shop: Path):  # noqa: F811
    data = CtrDataset.open(shop / "dataset")
    order: dict[str, Any] = {"batch_size": 7, "max_length": 5, "seed": 3, "epoch": 1}
    whole = list(data.batches(range(17), **order))
    parts = [list(data.batches(range(17), part=(number, 4), **order)) for number in range(4)]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[number].target for part in parts]), batch.target)
    assert [len(part[-1]) for part in parts] == [1, 1, 1, 0]
