"""The page of a reproduction: every value on it, nothing from outside, nothing that runs but its own."""

import html
import re
from html.parser import HTMLParser

import pytest
from made_up import NAUGHTY, make_reproduction
from PIL import Image

from mimctr.errors import RunError
from mimctr.report.reproduction_page import anchor, render_reproduction
from mimctr.report.reproduction_text import reproduction_markdown, reproduction_summary


class Cells(HTMLParser):
    """Texts of a page's table cells, row by row, and every attribute that could lead outside."""

    def __init__(self):
        super().__init__()
        self.rows, self.addresses, self.scripts, self._cell = [], [], 0, False

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += f" {data.strip()}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (60, 40), (90, 120, 200)).save(folder / "sheet.png")
    return render_reproduction(make_reproduction(picture="sheet.png"), folder)


def parsed(page):
    cells = Cells()
    cells.feed(page)
    return cells


def test_ours_and_the_papers_stand_in_one_cell_and_are_told_apart(page):
    cell = next(row[1] for row in parsed(page).rows if row and row[0].strip().startswith("model 2"))
    assert "0.6250 ± 0.0012" in cell
    assert "paper 0.7200" in cell
    assert cell.index("0.6250") < cell.index("paper")
    printed = re.findall(r'<small class="printed">paper ([\d.]+)</small>', page)
    assert printed == ["0.7000", "0.7100", "0.7200", "0.7300"]


def test_nothing_leads_outside_and_only_its_own_script_runs(page):
    found = parsed(page)
    assert found.scripts == 1
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in found.addresses)
    assert NAUGHTY not in page
    assert html.escape(NAUGHTY, quote=True).replace("&#x27;", "&#39;") in page


def test_every_link_of_the_contents_has_its_place(page):
    places = set(re.findall(r'<section id="([^"]+)"', page))
    links = set(re.findall(r'<a href="#([^"]+)"', page))
    assert links == places
    assert anchor("Table 2, by category") == "table-2-by-category"


def test_verdicts_are_counted(page):
    counts = re.findall(r'<span class="label">([\w ]+)</span><span class="value">(\d+)</span>', page)
    assert counts == [("held", "1"), ("undecided", "1"), ("not held", "1"), ("not run", "1")]
    assert "1 of 4 findings held" in page


def test_rows_are_sorted_by_numbers_and_not_by_how_they_are_written(page):
    sizes = [
        value for value in re.findall(r'<td class="number" data-sort="(\d+)"', page) if int(value) % 1000 == 0
    ]
    assert sizes == [str(1000 * number) for number in range(75)]


def test_what_was_not_run_says_why(page):
    assert "not run: no weights" in page
    assert "1 of 2 made" in page
    assert "Not run, for no time: the command goes on there." in page


def test_a_missing_picture_is_told(tmp_path):
    with pytest.raises(RunError, match=r"none\.png: a picture of results\.json is missing"):
        render_reproduction(make_reproduction(picture="none.png"), tmp_path)


def test_markdown_has_the_same_values():
    text = reproduction_markdown(make_reproduction())
    assert (
        "| first: model 0 | 0.6100 ± 0.0012 [paper 0.7000] | +0.0100 (0.0000 to +0.0200) |"
        in text.replace("+0.0000", "0.0000")
    )
    assert f"| {NAUGHTY} | not run: no weights |  |" in text
    assert "![A bar](figures/figure-0.png)" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| A category")}
    assert widths == {4}


def test_the_terminal_gets_every_finding_on_a_line():
    lines = reproduction_summary(make_reproduction()).splitlines()
    for claim, verdict in (("A holds", "held"), ("B does not", "not held"), ("C is open", "undecided")):
        line = next(line for line in lines if claim in line)
        assert verdict in line
