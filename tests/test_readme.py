"""The README's numbers are those of the committed results, and its commands exist."""

import re
from pathlib import Path

import pytest

from mimctr.evaluate.results import read_results
from mimctr.report.table import results_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- results: (\S+) -->\n+```\n(.*?)\n```\n+<!-- end of results -->", re.DOTALL)


def test_the_results_block_is_the_table_of_the_committed_results():
    path, block = BLOCK.search(README).groups()
    assert block == results_table(read_results(ROOT / path))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^    make ([\w-]+)", README, re.MULTILINE))))
def test_every_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_recipe_of_the_readme_exists():
    named = re.findall(r"recipes/[\w.-]+\.toml", README)
    assert named
    for path in named:
        assert (ROOT / path).is_file()
