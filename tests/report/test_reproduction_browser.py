"""The page of a reproduction in a real browser: it sorts, it is readable light and dark, on a phone and on paper."""

import pytest
from browser import check_theme_switch, needs_browser, opened, violations
from made_up import make_reproduction
from PIL import Image

from mimctr.report.reproduction_page import render_reproduction

pytestmark = [pytest.mark.slow, pytest.mark.needs_browser, needs_browser]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (60, 40), (90, 120, 200)).save(folder / "sheet.png")
    path = folder / "reproduction.html"
    path.write_text(render_reproduction(make_reproduction(picture="sheet.png"), folder), encoding="utf-8")
    return path.as_uri()


def column(page, number):
    return page.locator(f"#by-category tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_goes_wrong_and_everybody_can_read_it(address, dark):
    with opened(address, dark=dark) as (page, wrong):
        assert violations(page) == []
        assert wrong == []


def test_the_switch_changes_the_theme(address):
    with opened(address) as (page, wrong):
        check_theme_switch(page)
        assert wrong == []


def test_a_table_is_sorted_by_mouse_and_by_keyboard(address):
    """Mutant: numbers are sorted as words."""
    with opened(address) as (page, wrong):
        before = column(page, 2)
        numbers = [int(text.replace(",", "")) for text in before[:-1]]  # the last row sums up and stays
        head = page.locator("#by-category thead th").nth(1)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        shown = [int(text.replace(",", "")) for text in column(page, 2)]
        assert shown == [*sorted(numbers, reverse=True), 9]
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(page, 2) == before
        page.keyboard.press("Space")
        assert head.get_attribute("aria-sort") == "none"
        page.locator("#by-category thead th").first.locator("button").click()
        assert head.get_attribute("aria-sort") == "none"
        *names, last = column(page, 1)
        assert names == sorted(names)
        assert last == "All"
        assert wrong == []


def test_rows_are_sorted_within_their_group(address):
    """AUCs .61 and .60, then .625 and .59. Mutant: over all groups at once."""
    with opened(address) as (page, wrong):
        button = page.locator("#table-2 thead button").nth(1)
        rows = page.locator("#table-2 tbody tr")
        for order in ((0, 1, 2, 3), (1, 0, 3, 2)):
            button.click()
            labels = [text.split("\n")[0].split("\t")[0] for text in rows.all_inner_texts()[:4]]
            assert labels == [f"model {number}" for number in order]
            assert ["first" in (rows.nth(n).get_attribute("class") or "") for n in range(4)] == [
                True,
                False,
            ] * 2
        assert wrong == []


def test_the_third_time_rows_stand_as_the_paper_has_them(address):
    with opened(address) as (page, wrong):
        rows = page.locator("#table-2 tbody tr")
        before = [(rows.nth(n).inner_text(), rows.nth(n).get_attribute("class")) for n in range(rows.count())]
        for expected in ("descending", "ascending", "none"):
            page.locator("#table-2 thead button").nth(1).click()
            assert page.locator("#table-2 thead th").nth(1).get_attribute("aria-sort") == expected
        after = [
            (rows.nth(n).inner_text(), rows.nth(n).get_attribute("class") or None)
            for n in range(rows.count())
        ]
        assert after == before
        assert before[2][1] == "first"
        assert wrong == []


def test_findings_are_sorted_by_verdict_and_by_what_is_known(address):
    with opened(address) as (page, _):
        verdicts = page.locator("#findings tbody td:nth-child(2)")
        page.locator("#findings thead button").nth(1).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert verdicts.all_inner_texts() == ["held", "undecided", "undecided", "not held", "not run"]
        page.locator("#findings thead button").nth(2).click()
        known = page.locator("#findings tbody td:nth-child(3)").all_inner_texts()
        assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in known] == [
            "> 99.9 %",
            "75.0 %",
            "< 0.1 %",
            "",
            "",
        ]


def test_the_first_screen_tells_what_held(address):
    with opened(address) as (page, _):
        bottom = page.locator("#findings tbody tr").last.bounding_box()
        assert bottom["y"] + bottom["height"] < 900


def test_a_row_that_was_not_run_comes_last_whichever_way(address):
    with opened(address) as (page, _):
        for _ in range(2):
            page.locator("#table-2 thead th").nth(1).locator("button").click()
            assert "no weights" in page.locator("#table-2 tbody tr").last.inner_text()


def test_on_a_phone_only_tables_scroll(address):
    with opened(address, width=390, height=800) as (page, wrong):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert violations(page) == []
        assert wrong == []


def test_on_paper_it_has_pages(address, tmp_path):
    with opened(address) as (page, _):
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 703, "height": 1000})  # A4 within the margins
        too_wide = page.evaluate(
            "[...document.querySelectorAll('table')].filter(table => table.offsetWidth > 704)"
            ".map(table => table.closest('section').id)"
        )
        assert too_wide == ["table-no-3"]  # eleven columns: the browser makes the print smaller
    content = (tmp_path / "page.pdf").read_bytes()
    assert 3 <= content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") <= 12


def test_a_page_that_is_dark_on_screen_is_light_on_paper(address):
    with opened(address) as (page, _):
        page.click("button.theme")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)" != dark
        )
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.locator("button.theme").is_hidden()
