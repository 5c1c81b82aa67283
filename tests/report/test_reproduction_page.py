"""The page of a reproduction: every value on it, nothing from outside, nothing that runs but its own."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import DOLLARS, NAUGHTY, WRITTEN, make_reproduction
from PIL import Image

from mimctr.errors import RunError
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import finding
from mimctr.report.interval_marks import interval_marks
from mimctr.report.reproduction_page import anchor, render_reproduction
from mimctr.report.reproduction_text import reproduction_markdown, reproduction_summary
from mimctr.report.units import finding_confidence, finding_difference, finding_interval
from mimctr.report.words import ONE_SEED


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
    assert printed[:4] == ["0.7000", "0.7100", "0.7200", "0.7300"]


def test_nothing_leads_outside_and_only_its_own_script_runs(page):
    found = parsed(page)
    assert found.scripts == 1
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in found.addresses)
    assert NAUGHTY not in page
    assert html.escape(NAUGHTY, quote=True).replace("&#x27;", "&#39;") in page


@pytest.mark.parametrize("unit", WRITTEN)
def test_ours_and_the_papers_number_are_written_in_their_unit(page, unit):
    _, ours, _, papers = WRITTEN[unit]
    rows = [row for row in parsed(page).rows if row[0].strip() in ("ours", "beside the paper's")]
    place = 1 + list(WRITTEN).index(unit)
    assert [row[place].split() for row in rows] == [ours.split(), [*ours.split(), "paper", *papers.split()]]


def test_every_link_has_its_place_and_no_two_places_are_one(page):
    places = re.findall(r'<section id="([^"]+)"', page)
    assert len(places) == len(set(places)) == 10
    assert set(re.findall(r'<a href="#([^"]+)"', page)) == set(places)
    assert {"by-category", "by-category-figure", "table-no-3"} <= set(places)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert anchor("Table 2, by category") == "table-2-by-category"


def test_verdicts_are_counted(page):
    tally = page[page.index('<p class="tally">') : page.index("</p>", page.index('<p class="tally">'))]
    words = " ".join(re.sub(r"<[^>]+>", "", tally).split())
    assert words == "Of 5 findings of the paper: 1 held, 2 undecided, 1 not held, 1 not run"


def test_intervals_are_drawn_to_one_scale_a_unit():
    """Of gains the widest reaches to 0.04, of which 0 stands at 60 and 0.04 at 116: its dot has room."""
    findings = make_reproduction().findings
    marks = interval_marks(findings)
    assert list(marks) == ["a", "b", "c"]
    for one in findings[:3]:
        found = one.difference
        expected = [60 + 56 * value / 0.04 for value in (found.low, found.mean, found.high)]
        assert marks[one.key] == pytest.approx(expected)
    alone = findings[0].model_copy(update={"unit": "rate"})
    assert interval_marks([*findings[1:], alone])["a"] == pytest.approx([60 + 56 / 3, 60 + 112 / 3, 116])


def test_the_numbers_of_a_figure_are_on_the_page(page):
    rows = [[cell.strip() for cell in row] for row in parsed(page).rows]
    assert ["S7", "0.07", "0 to 0.14"] in rows
    assert ["0.5", "two", "0.02", ""] in rows
    assert ["0.03 row 3", "0.006", "0 to 0.01"] in rows


def test_a_columns_note_is_read_without_a_mouse(page):
    assert '<p class="note">A note. Gain: over Base.</p>' in page
    assert "title=" not in page


def test_figures_say_what_the_data_say_and_no_formula(page):
    texts = re.findall(r"<text[^>]*>(.*?)</text>", page, flags=re.DOTALL)
    assert sum(html.unescape(text) == DOLLARS for text in texts) >= 3
    assert html.escape(NAUGHTY) in re.findall(r'role="img" aria-label="([^"]*)"', page)[-1]


def test_rows_are_sorted_by_numbers_and_not_by_how_they_are_written(page):
    sizes = [
        value for value in re.findall(r'<td class="number" data-sort="(\d+)"', page) if int(value) % 1000 == 0
    ]
    assert sizes == [str(1000 * number) for number in range(75)]


def test_what_was_not_run_says_why(page):
    assert "not run: no weights" in page
    assert "1 of 4 made" in page
    assert "<dd>2 steps: no time</dd>" in page
    assert "<dd>1 step: no weights</dd>" in page


def test_a_missing_picture_is_told(tmp_path):
    with pytest.raises(RunError, match=r"none\.png: a picture of results\.json is missing"):
        render_reproduction(make_reproduction(picture="none.png"), tmp_path)


def test_checks_of_our_own_stand_apart_and_are_not_counted():
    made = make_reproduction()
    findings = [
        made.findings[0].model_copy(update={"ours": True, "note": "A note of it."}),
        *made.findings[1:],
    ]
    page = render_reproduction(made.model_copy(update={"findings": findings}), Path())
    assert "Of 4 findings of the paper" in " ".join(re.sub(r"<[^>]+>", "", page).split())
    own = page[page.index("<h3>Checks of our own</h3>") : page.index("<nav")]
    assert findings[0].claim in own
    assert "A note of it." in own
    assert findings[1].claim not in own
    assert "Checks of our own" not in render_reproduction(made, Path())


def test_one_seed_is_warned_of():
    made = make_reproduction()
    warned = render_reproduction(made.model_copy(update={"seeds": [0]}), Path())
    assert ONE_SEED in warned
    assert "by its own error over users." in warned
    several = render_reproduction(made.model_copy(update={"seeds": [0, 1]}), Path())
    assert ONE_SEED not in several
    assert "by its own error over users and seeds." in several


def test_what_was_counted_has_no_interval_and_is_called_so():
    known = Estimate(mean=0.07, sd=None, low=0.07, high=0.07, p_value=0.0)
    one = finding(
        "c", source="Table 6", claim="At most 1.2", difference=known, unit="ratio", measured="1.13 times"
    )
    assert interval_marks([one]) == {}
    assert (finding_confidence(one), finding_difference(one), finding_interval(one)) == (
        "counted",
        "1.13 times",
        "",
    )


def test_what_is_lacking_is_told_first():
    made = make_reproduction().model_copy(update={"lacking": ["table 5", "online"]})
    told = "Not made yet: table 5 and online. The command below goes on."
    page = render_reproduction(made, Path())
    assert told in page[: page.index("</header>")]
    assert told in reproduction_markdown(made)
    assert told in reproduction_summary(made)
    assert "Not made yet" not in render_reproduction(make_reproduction(), Path())
