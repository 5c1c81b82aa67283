"""Benchmarks run by hand, so that what they name in the package may be gone before anybody runs them again."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_benchmark_imports_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    tests_own = [
        module for module in sys.modules if module.partition(".")[0] == "peers"
    ]  # a package of that name
    for package in tests_own:
        monkeypatch.delitem(sys.modules, package)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("mimctr", *NAMES):
            raise
        pytest.skip(f"{error.name} is not installed")
