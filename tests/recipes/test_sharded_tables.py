"""CTR models whose tables three processes hold in parts, against the same ones trained by one."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_in
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mimctr import distributed
from mimctr.errors import RunError
from mimctr.files import read_json
from mimctr.recipes import ctr_fitting
from mimctr.recipes.train import Config, main
from mimctr.weights import load_tensors, save_tensors
from recipes.test_train import SMALL, shop  # noqa: F401
from recipes.test_train_processes import UNDRAWN, metrics_of

NUM_PROCESSES = 3
IN_PARTS: dict[str, Any] = SMALL | UNDRAWN | {"batch_size": 1197, "shard_tables_above": 1}
"""Every table is in parts. The last batch of an epoch has one impression: two processes have none."""
CASES: dict[str, dict[str, Any]] = {
    "every table": {"ubm": "din", "embedding_l2": 0.01},
    "users and items, a penalty of the batch's rows": {
        "ubm": "mean",
        "variant": "base",
        "shard_tables_above": 100,
        "embedding_l2_scope": "batch",
        "embedding_l2": 0.1,
    },
    "a task of its own": {"ubm": "sim"},
}
STEPS = (0, 1, 4)
"""Whose gradients are compared: the first ones, and one of a single impression."""
TABLES = ("item", "user", "item_category", "query_text")
RESUMABLE = SMALL | {
    "shard_tables_above": 3,
    "ubm": "sim",
    "batch_size": 512,
    "epochs": 1,
    "dropout": 0.2,
    "checkpoint_seconds": 0.0,
    "embedding_l2_scope": "batch",
    "embedding_l2": 0.01,
}
FATAL_STEP = 6


def train(shop: Path, out: Path, settings: dict[str, Any]) -> None:  # noqa: F811
    config = Config(**settings)
    main(shop / "dataset", None if config.variant == "base" else shop / "content", out, config)


def train_all(shop: Path, out: Path) -> None:  # noqa: F811
    """Train every case; keep the gradients of some steps, as each process has them when it makes the step."""
    for name, settings in CASES.items():
        steps = itertools.count()
        folder = out / f"{name} gradients"
        folder.mkdir(parents=True, exist_ok=True)

        def keep(
            optimizer: torch.optim.Optimizer, *_: Any, folder: Path = folder, steps: Any = steps
        ) -> None:
            if (step := next(steps)) in STEPS:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                found = {str(number): p.grad for number, p in enumerate(parameters) if p.grad is not None}
                save_tensors(folder / f"{step}-{distributed.rank()}.safetensors", found)

        hook = register_optimizer_step_pre_hook(keep)
        train(shop, out / name, IN_PARTS | settings)
        hook.remove()


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
    """Folders of all cases trained by one process and by three."""
    out = tmp_path_factory.mktemp("parts")
    train_all(shop, out / "one")
    run_in(NUM_PROCESSES, train_all, shop, out / "three")
    return out / "one", out / "three"


def joined(parts: list[torch.Tensor], expected: torch.Tensor) -> torch.Tensor:
    """Return what all processes have, or the parts that they have one below the other."""
    if parts[0].shape == expected.shape:
        assert all(torch.equal(part, parts[0]) for part in parts)
        return parts[0]
    assert max(len(part) for part in parts) == -(-len(expected) // NUM_PROCESSES)
    return torch.cat(parts)


@pytest.mark.parametrize("case", CASES)
def test_three_processes_train_the_model_of_one(trained, case):
    one, three = (folder / case for folder in trained)
    for step in STEPS:
        whole, *parts = (
            load_tensors(folder.with_name(f"{case} gradients") / f"{step}-{process}.safetensors")[0]
            for folder, process in ((one, 0), *((three, process) for process in range(NUM_PROCESSES)))
        )
        rounding = 1e-3 * float(max(gradient.abs().max() for gradient in whole.values()))
        for name, expected in whole.items():
            found = joined([part[name] for part in parts], expected)
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=rounding)
    for line, other in zip(metrics_of(three), metrics_of(one), strict=True):
        assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        print(case, line, other)
    found, expected = (load_tensors(folder / "model.safetensors")[0] for folder in (three, one))
    print({n: (found[n].double() - v.double()).abs().max().item() for n, v in expected.items()})
    a, b = (load_tensors(folder / "predictions.safetensors")[0] for folder in (three, one))
    print({n: (a[n].double() - v.double()).abs().max().item() for n, v in b.items()})
    print([read_json(f / "model.json")["num_parameters"] for f in (one, three)])
