"""The paper's numbers against the specification's tables, where it is at hand."""

import re
from pathlib import Path

import pytest

from mimctr.evaluate.paper import numbers

PAPER = Path(__file__).parents[2].parent / "shared" / "paper.md"
NAMES = {"Avg Pooling": "mean", "DIN": "din", "DIEN": "dien", "BST": "bst", "TWIN": "twin", "SIM": "sim"}


@pytest.fixture(scope="module")
def text():
    if not PAPER.is_file():
        pytest.skip("../shared/paper.md is absent")
    return PAPER.read_text(encoding="utf-8")


def test_table_2_is_the_papers(text):
    rows = re.findall(r"^\| ([\w ]+) \| (0\.\d+) \| (0\.\d+) \| \+(0\.\d+) \|", text, re.MULTILINE)
    found = {NAMES[name]: tuple(map(float, values)) for name, *values in rows}
    assert found == {name: tuple(pair) for name, pair in numbers.TABLE_2.items()}


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("Base {}; plain FoM", numbers.BASE),
        ("plain FoM {};", numbers.TABLE_3["plain"]),
        ("+DDA {};", numbers.TABLE_3["dda"]),
        ("+DDA+DMA {};", numbers.TABLE_3["dma"]),
        ("C-SFT (MIM) {}.", numbers.TABLE_3["mim"]),
        ("cross-entropy on category {};", numbers.TABLE_4["category_cross_entropy"]),
        ("cross-entropy on clicks {};", numbers.TABLE_4["click_cross_entropy"]),
        ("contrastive on purchases {}.", numbers.TABLE_4["mim"]),
        ("w/o TFN {};", numbers.TABLE_5["without_tfn"]),
        ("w/o ST-NSG {};", numbers.TABLE_5["without_st_nsg"]),
        ("InfoNCE {};", numbers.TABLE_5["without_multi_level"]),
        ("w/o C-SFT {}.", numbers.TABLE_5["dma"]),
        ("w/o ID interest {};", numbers.TABLE_5["id"]),
        ("w/o content interest {};", numbers.TABLE_5["content"]),
        ("w/o fusion interest {}.", numbers.TABLE_5["fusion"]),
    ],
)
def test_a_number_is_the_papers(text, words, value):
    assert words.format(f"{value:.4f}") in " ".join(text.split())


def test_table_7_is_the_papers(text):
    flat = " ".join(text.split()).replace("−", "-")
    for name, gains in numbers.TABLE_7.items():
        printed = f"{name} +{gains.auc:.4f}, +{100 * gains.ctr:.2f} %, +{100 * gains.rpm:.2f} %"
        assert printed in flat, printed
