"""A CTR model trained by two processes, against the same one trained by one."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_in
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mimctr import distributed
from mimctr.data.dataset import CtrDataset
from mimctr.recipes import stages
from mimctr.recipes.train import Config
from mimctr.weights import load_tensors, save_tensors
from recipes.test_train import SMALL, shop  # noqa: F401

UNDRAWN: dict[str, Any] = {
    "unknown_rate": 0.0,
    "content_drop_rate": 0.0,
    "epochs": 2,
    "patience": 50,
    "batch_size": 511,
}
"""What a process draws is its own; without it, two processes are one."""
NUM_STEPS = 3
"""Whose gradients are compared; after that, Adam has made rounding large."""
CASES: dict[str, dict[str, Any]] = {
    "avg pooling": {
        "ubm": "mean",
        "variant": "base",
        "embedding_l2_scope": "batch",
        "embedding_l2": 0.01,
        "max_gradient_norm": 0.01,
    },
    "statistics of the batch": {
        "ubm": "din",
        "din_activation": "dice",
        "activation": "dice",
        "interest_norm": "batch",
    },
    "rows of large tables": {"ubm": "din", "lazy_rows_above": 10, "embedding_l2_scope": "batch"},
    "a task of its own": {"ubm": "sim", "sim_search": "soft", "sim_k": 5},
    "content in the attention": {
        "ubm": "sim",
        "variant": "mim_plus",
        "sim_search": "content",
        "attention_mix": True,
        "sim_k": 5,
    },
    "untrained": {"variant": "untrained_cosine"},
}


def train_all(shop: Path, out: Path) -> None:  # noqa: F811
    """Train every case; keep the gradient of the first steps, as each process's optimizer gets it."""
    for name, settings in CASES.items():
        steps = itertools.count()

        def keep(
            optimizer: torch.optim.Optimizer, *_: Any, name: str = name, steps: Iterator[int] = steps
        ) -> None:
            step = next(steps)
            if step < NUM_STEPS:
                chosen = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                found = {str(number): p.grad for number, p in enumerate(chosen) if p.grad is not None}
                found = {name: gradient.to_dense() for name, gradient in found.items()}
                path = out / f"{name} gradients" / f"{step}-{distributed.rank()}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(path, found)

        handle = register_optimizer_step_pre_hook(keep)
        config = Config(**{**SMALL, **UNDRAWN, **settings})
        content = None if config.variant == "base" else shop / "content"
        stages.train(shop / "dataset", content, out / name, config).run()
        handle.remove()


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
        assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    for step in range(NUM_STEPS if metrics_of(one) else 0):
        first, second, whole = (
            load_tensors(folder.with_name(f"{case} gradients") / f"{step}-{process}.safetensors")[0]
            for folder, process in ((two, 0), (two, 1), (one, 0))
        )
        assert first.keys() == second.keys() == whole.keys()
        for name, expected in whole.items():
            assert torch.equal(first[name], second[name])
            rounding = 1e-3 * float(max(gradient.abs().max() for gradient in whole.values()))
            torch.testing.assert_close(first[name], expected, rtol=1e-2, atol=rounding)


def test_two_processes_score_what_one_scores(trained):
    one, two = (load_tensors(out / "untrained" / "predictions.safetensors")[0] for out in trained)
    assert one.keys() == two.keys()
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected)


def test_the_parts_of_a_batch_are_the_batch(shop: Path):  # noqa: F811
    data = CtrDataset.open(shop / "dataset")
    order: dict[str, Any] = {"batch_size": 7, "max_length": 5, "seed": 3, "epoch": 1}
    whole = list(data.batches(range(17), **order))
    parts = [list(data.batches(range(17), part=(number, 4), **order)) for number in range(4)]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[number].target for part in parts]), batch.target)
    assert [len(part[-1]) for part in parts] == [1, 1, 1, 0]
