"""Benchmarks run by hand, so that what they name in the package may be gone before anybody runs them again."""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a benchmark, whose own ``peers`` the tests' package of that name would hide."""
    others = [path for path in sys.path if not (Path(path) / "peers" / "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", [str(FOLDER), *others])
    for name in peers_modules():
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module
    for name in peers_modules():
        del sys.modules[name]


def peers_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "peers"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_benchmark_imports_is_there(name: str, load: Callable[[str], ModuleType]) -> None:
    try:
        load(name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("mimctr", *NAMES):
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.005, [0.002, 0.005, 0.01]),
        (0.02, [0.002, 0.005, 0.01, 0.02, 0.04]),
        (0.0005, [0.002, 0.005, 0.01, 0.001, 0.0005, 0.00025]),
        (1.0, [0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16]),
    ],
)
def test_a_learning_rate_that_is_best_at_the_end_of_the_list_is_searched_beyond(
    best: float, tried: list[float], load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = load("bench_peers_data")
    seen = []

    def train(entry, folder, args, judge, *, seed: int, rate: float):
        seen.append((seed, rate))
        return {"seed": seed}, -abs(np.log(rate / best)), np.array([rate])

    monkeypatch.setattr(bench, "train", train)
    entry = bench.Entry(library="recbole", row="din")
    args = argparse.Namespace(learning_rates=[0.002, 0.005, 0.01], seeds=[3, 4])
    bench.compete(entry, Path(), args, None)
    chosen = min(tried, key=lambda rate: abs(np.log(rate / best)))
    assert seen == [*((3, rate) for rate in tried), (4, chosen)]
    assert entry.learning_rate == chosen
    assert list(entry.tried) == [str(rate) for rate in tried]
    assert [outcome["seed"] for outcome in entry.outcomes] == [3, 4]


def test_the_losses_that_benchmarks_time_can_be_made(load: Callable[[str], ModuleType]) -> None:
    """Mutant: a field of ``Candidates`` that is gone."""
    bench = load("bench_csft_memory")
    args = argparse.Namespace(pairs=4, memory=2)
    streamed, dense = (bench.loss_step(args, what, 2)() for what in ("streamed", "dense"))
    assert all(
        np.allclose(ours, theirs, rtol=1e-4, atol=1e-6) for ours, theirs in zip(streamed, dense, strict=True)
    )
