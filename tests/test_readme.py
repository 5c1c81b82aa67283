"""The documents' numbers are those of the committed results, and the README's commands exist."""

import re
from pathlib import Path

import pytest

from mimctr.report.blocks import BLOCK, fill_blocks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readme_has_a_block_of_results():
    assert [found["kind"] for found in BLOCK.finditer(README)] == ["results"]


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_every_block_of_numbers_is_what_the_committed_results_say(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("<!-- end of ") == len(BLOCK.findall(text))
    assert fill_blocks(text, ROOT) == text, f"write {name} anew: python docs/fill_blocks.py"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^    make ([\w-]+)", README, re.MULTILINE))))
def test_every_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_recipe_of_the_readme_exists():
    named = re.findall(r"recipes/[\w.-]+\.toml", README)
    assert named
    for path in named:
        assert (ROOT / path).is_file()
