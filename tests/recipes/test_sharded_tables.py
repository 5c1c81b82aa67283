"""CTR models whose tables three processes hold in parts, against the same ones trained by one."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_in
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mimctr import distributed
from mimctr.batch import FIRST_INDEX, PADDING, UNKNOWN
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError
from mimctr.files import read_json
from mimctr.recipes import ctr_fitting
from mimctr.recipes.ctr_fitting import Task, predict, take_step
from mimctr.recipes.ctr_model import build_model, load_model
from mimctr.recipes.embed import open_content
from mimctr.recipes.train import Config, main
from mimctr.weights import load_tensors, save_tensors
from recipes.test_train import SMALL, shop  # noqa: F401
from recipes.test_train_processes import UNDRAWN, metrics_of

NUM_PROCESSES = 3
IN_PARTS: dict[str, Any] = (
    SMALL
    | UNDRAWN
    | {
        "batch_size": 266,
        "epochs": 1,
        "evaluations_per_epoch": 1,
        "shard_tables_above": 1,
    }
)
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
STEPS = (0, 1, 18)
"""Whose gradients are compared: the first ones, and the last, of a single impression."""
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
    (line,), (other,) = metrics_of(three), metrics_of(one)
    for name in ("train_loss", "validation_log_loss", "validation_auc"):
        assert line[name] == pytest.approx(other[name], rel=1e-3)
    for file in ("model.safetensors", "predictions.safetensors"):
        found, expected = (load_tensors(folder / file)[0] for folder in (three, one))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    records = [read_json(folder / "model.json") for folder in (three, one)]
    assert records[0]["num_parameters"] == records[1]["num_parameters"]
    assert records[0]["best_step"] == records[1]["best_step"] == STEPS[-1]


def test_in_one_process_the_setting_changes_no_bit(shop: Path, tmp_path: Path):  # noqa: F811
    for above in (0, 1):
        train(shop, tmp_path / str(above), RESUMABLE | {"shard_tables_above": above})
    one, other = (load_tensors(tmp_path / str(above) / "model.safetensors")[0] for above in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def killed(*arguments: Any, step: int, **named: Any) -> float:
    if step == FATAL_STEP:
        raise KeyboardInterrupt
    return take_step(*arguments, step=step, **named)


def train_killed(shop: Path, out: Path) -> None:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ctr_fitting, "take_step", killed)
        train(shop, out, RESUMABLE)


def resume_all(shop: Path, out: Path) -> None:  # noqa: F811
    train(shop, out / "undisturbed", RESUMABLE)
    train_killed(shop, out / "left")
    train_killed(shop, out / "resumed")
    train(shop, out / "resumed", RESUMABLE)
    with pytest.raises(RunError, match="were held in 1 parts, with 2 processes they would be in 2"):
        train(shop, out / "alone", RESUMABLE)


@pytest.fixture(scope="module")
def resumed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Trainings by two processes: never killed, killed, killed and resumed; and one by one process, killed."""
    out = tmp_path_factory.mktemp("resumed")
    train_killed(shop, out / "alone")
    run_in(2, resume_all, shop, out)
    return out


def test_a_killed_run_ends_bit_for_bit_where_an_undisturbed_one_ends(resumed: Path):
    for name in ("metrics.jsonl", "model.json"):
        assert (resumed / "resumed" / name).read_text() == (resumed / "undisturbed" / name).read_text()
    for name in ("model.safetensors", "predictions.safetensors"):
        expected, found = (load_tensors(resumed / of / name)[0] for of in ("undisturbed", "resumed"))
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not list((resumed / "resumed").glob("checkpoint*"))


def test_each_process_checkpoints_its_part_and_the_last_step_only(resumed: Path):
    left = resumed / "left"
    names = ["checkpoint.6.1.safetensors", "checkpoint.safetensors"]
    assert sorted(path.name for path in left.glob("checkpoint*")) == names
    for name in names:
        tensors, meta = load_tensors(left / name)
        assert meta["step"] == FATAL_STEP
        tables = [value for key, value in tensors.items() if key.endswith("tables.item.weight")]
        assert [len(table) for table in tables] == [61, 61]  # now, and when validation was best
        moments = [tuple(value.shape) for key, value in tensors.items() if key.endswith("exp_avg_sq")]
        assert moments.count((61, 4)) == 2  # of items and users
        assert (122, 4) not in moments


def test_another_number_of_processes_is_refused(resumed: Path, shop: Path):  # noqa: F811
    with pytest.raises(
        RunError, match="left: its tables were held in 2 parts, with 1 processes they would be in 1"
    ):
        train(shop, resumed / "left", RESUMABLE)


def test_padding_stays_zero_and_unknown_is_trained(resumed: Path, shop: Path):  # noqa: F811
    fresh = build_model(CtrDataset.open(shop / "dataset"), Config(**RESUMABLE), content_dim=4).state_dict()
    tensors, _ = load_tensors(resumed / "undisturbed" / "model.safetensors")
    for name in ("item", "user", "item_category"):
        rows = tensors[f"embedding.tables.{name}.weight"]
        assert not rows[PADDING].any()
        assert (rows[FIRST_INDEX:] != fresh[f"embedding.tables.{name}.weight"][FIRST_INDEX:]).all()
    for name in ("item", "user"):
        table = f"embedding.tables.{name}.weight"
        assert (tensors[table][UNKNOWN] != fresh[table][UNKNOWN]).all()


def test_one_process_scores_what_two_have_trained(resumed: Path, shop: Path):  # noqa: F811
    data, folder = CtrDataset.open(shop / "dataset"), resumed / "undisturbed"
    content = open_content(data, shop / "content")
    task = Task(dataset=data, content=content, config=Config(**RESUMABLE), device=torch.device("cpu"))
    logits = predict(load_model(folder), task, data.rows("test"))
    expected = load_tensors(folder / "predictions.safetensors")[0]["logit"]
    torch.testing.assert_close(torch.from_numpy(logits), expected)
