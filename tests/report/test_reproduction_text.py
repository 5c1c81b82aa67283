"""A reproduction as Markdown, read back by a Markdown parser, and as a terminal gets it."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_up import DOLLARS, NAUGHTY, WRITTEN, make_reproduction
from markdown_it import MarkdownIt
from PIL import Image

from mimctr.errors import DataError, RunError
from mimctr.evaluate.paper.schema import Reproduction, Unit, write_reproduction
from mimctr.evaluate.results import Record
from mimctr.recipes.reproduction import report
from mimctr.report.blocks import fill_blocks
from mimctr.report.markdown import escaped, head_of_table, line_of_table, paragraph
from mimctr.report.reproduction_text import reproduction_block, reproduction_markdown, reproduction_summary

DOCUMENT = Path(__file__).parents[2] / "docs" / "reproduction-schema.md"
PARSER = MarkdownIt("commonmark").enable("table")
LINES = st.text(st.sampled_from("ab1_*`|~$<>&;![](){}:#+-=.\\\"' /"), max_size=20)


def words_of(tokens):
    """Return the words of parsed Markdown, by paragraph, heading or cell; pictures by their address."""
    return [
        "".join(child.attrs["src"] if child.type == "image" else child.content for child in token.children)
        for token in tokens
        if token.type == "inline"
    ]


@pytest.fixture(scope="module")
def words():
    return words_of(PARSER.parse(reproduction_markdown(make_reproduction())))


@given(LINES)
@example("a | b")
@example("![x](y) [z]: w &amp; <b>")
@example("__all__ and *some*")
def test_a_cell_says_what_the_text_says(text):
    table = "\n".join(
        [*head_of_table(["x", "y"], numbers=[False, True]), line_of_table([escaped(text), "1"])]
    )
    assert words_of(PARSER.parse(table)) == ["x", "y", " ".join(text.split()), "1"]


@given(LINES)
@example("- one")
@example("12. twelve")
@example("# no heading")
@example("> no quotation")
@example("+ 0.5")
def test_a_paragraph_says_what_the_text_says(text):
    plain = " ".join(text.split())
    tokens = PARSER.parse(paragraph(text))
    assert [token.type for token in tokens] == (
        ["paragraph_open", "inline", "paragraph_close"] if plain else []
    )
    assert words_of(tokens) == ([plain] if plain else [])


@pytest.mark.parametrize("unit", WRITTEN)
def test_every_unit_is_in_the_markdown(words, unit):
    _, ours, _, papers = WRITTEN[unit]
    place = 1 + list(WRITTEN).index(unit)
    assert words[words.index("ours") + place] == ours
    assert words[words.index("beside the paper's") + place] == f"{ours} [paper {papers}]"


def test_markdown_has_rows_findings_and_figures(words):
    assert words[words.index("model 0") - 1 :][:4] == [
        "first",
        "model 0",
        "0.6100 ± 0.0012 [paper 0.7000]",
        "+0.0100 (+0.0000 to +0.0200)",
    ]
    assert words[words.index("not run: no weights") - 1] == NAUGHTY
    first = words.index("B does not")
    assert words[first : first + 5] == [
        "B does not",
        "not held",
        "< 0.1 %",
        "−0.0300 (−0.0400 to −0.0200)",
        "Table 2",
    ]
    assert "figures/figure-0.png" in words
    assert any(DOLLARS in text for text in words)
    assert "Not run: 2 steps, no time." in words


def test_one_seed_is_no_seeds():
    one = make_reproduction().model_copy(update={"seeds": [3]})
    assert "\n1 seed. Of 5 findings of the paper: 1 held, 2 undecided" in reproduction_markdown(one)


def test_the_terminal_gets_table_2_and_every_finding_on_a_line():
    lines = reproduction_summary(make_reproduction()).splitlines()
    for start, rest in (
        ("first: model 0", "0.6100 ± 0.0012 [paper 0.7000] +0.0100 (+0.0000 to +0.0200)"),
        ("A holds", "Table 2 held > 99.9 % +0.0200 +0.0100 to +0.0300"),
        ("B does not", "Table 2 not held < 0.1 % −0.0300 −0.0400 to −0.0200"),
        ("E has one seed", "Online undecided +3.14 %"),
    ):
        (line,) = (line for line in lines if line.strip().startswith(start))
        assert " ".join(line.replace(start, "").split()) == rest
    assert f"{NAUGHTY}" in "\n".join(lines)


def test_the_report_is_written_beside_its_json_and_finds_its_figures(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a sheet.png")
    write_reproduction(tmp_path / report.JSON, make_reproduction(picture="a sheet.png"))
    assert report.main(tmp_path) == tmp_path / "reproduction.html"
    text = (tmp_path / report.MARKDOWN).read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(<?([^)>]+)>?\)", text)
    assert len(pictures) == 5
    assert all((tmp_path / name).is_file() for name in pictures)
    vectors = sorted((tmp_path / "figures").glob("*.svg"))
    assert len(vectors) == 4
    assert all(ET.parse(path).getroot().tag.endswith("svg") for path in vectors)


def test_without_its_json_there_is_no_report(tmp_path):
    with pytest.raises(RunError, match=r"reproduction\.json"):
        report.main(tmp_path)
    (tmp_path / report.JSON).write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"do not follow the schema of reproduction\.json"):
        report.main(tmp_path)


def test_a_block_of_a_document_is_what_its_json_says(tmp_path):
    made = make_reproduction()
    write_reproduction(tmp_path / "a.json", made)
    text = "# Results\n\n<!-- reproduction: a.json -->\nold\n<!-- end of reproduction -->\n\nEnd.\n"
    filled = fill_blocks(text, tmp_path)
    opening, end = (
        "# Results\n\n<!-- reproduction: a.json -->\n\n",
        "\n\n<!-- end of reproduction -->\n\nEnd.\n",
    )
    assert filled == opening + reproduction_block(made) + end
    assert fill_blocks(filled, tmp_path) == filled
    assert "### Table 2: Models" in filled
    write_reproduction(tmp_path / "a.json", made.model_copy(update={"seeds": [0, 1, 2]}))
    assert fill_blocks(filled, tmp_path) == filled.replace("2 seeds.", "3 seeds.")
    assert fill_blocks("<!-- other: a.json -->x<!-- end of other -->", tmp_path).count("x") == 1


def test_every_key_of_the_file_is_documented():
    keys, todo = set(), [Reproduction]
    while todo:
        record = todo.pop()
        keys |= set(record.model_fields)
        todo += [
            part
            for field in record.model_fields.values()
            for part in records_in(field.annotation)
            if part is not record
        ]
    assert {"not_run", "num_cores", "p_value", "x_label", "serves"} <= keys
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert keys - documented == set()
    assert set(get_args(Unit)) - documented == set()


def records_in(annotation):
    """Return the records that a field's type names."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, Record) else []
    return [record for part in get_args(annotation) for record in records_in(part)]
