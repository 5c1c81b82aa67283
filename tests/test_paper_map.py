"""Every row of docs/paper.md names a function that can be imported and a test that exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    re.findall(r"`([^`]+)`", line)
    for line in (ROOT / "docs" / "paper.md").read_text().splitlines()
    if line.startswith("| ") and "`" in line
]


@pytest.mark.parametrize(("function", "test"), ROWS)
def test_the_function_and_its_test_exist(function, test):
    parts = function.split(".")
    module = next(".".join(parts[:n]) for n in range(len(parts), 0, -1) if _is_module(parts[:n]))
    value = importlib.import_module(module)
    for name in parts[len(module.split(".")) :]:
        value = getattr(value, name)
    path, _, name = test.partition("::")
    assert f"def {name}" in (ROOT / path).read_text()


def test_all_nine_equations_are_there():
    text = (ROOT / "docs" / "paper.md").read_text()
    assert {int(number) for number in re.findall(r"Eq\. \((\d)\)", text)} == set(range(1, 10))


def _is_module(parts):
    base = ROOT / "src" / Path(*parts)
    return base.is_dir() or base.with_suffix(".py").is_file()
