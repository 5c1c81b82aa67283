"""The page of a run in a real browser: it sorts, it is readable light and dark, on a phone and on paper."""

import pytest
from browser import check_theme_switch, needs_browser, opened, violations
from fake_run import make_results, make_run

from mimctr.recipes import report

pytestmark = [pytest.mark.slow, pytest.mark.needs_browser, needs_browser]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("run"), make_results())
    return report.main(run, run / "report").as_uri()


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_goes_wrong_and_everybody_can_read_it_with_everything_unfolded(address, dark):
    with opened(address, dark=dark) as (page, wrong):
        assert violations(page) == []
        page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
        assert violations(page) == []
        assert wrong == []


def test_the_switch_changes_the_theme(address):
    with opened(address) as (page, wrong):
        check_theme_switch(page)
        assert wrong == []


def test_slices_are_sorted_by_their_numbers_by_keyboard(address):
    """Mutant: numbers are sorted as words."""
    with opened(address) as (page, wrong):
        table = page.locator('[aria-label="Every slice"]')
        head = table.locator("thead th").nth(8)
        assert head.inner_text().strip().startswith("impressions")
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        shown = [
            int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(9)").all_inner_texts()
        ]
        assert shown == sorted(shown, reverse=True)
        assert len(shown) > 10
        assert wrong == []


def test_models_are_sorted_within_their_ubm_and_the_ceiling_stays_last(address):
    with opened(address) as (page, _):
        table = page.locator('[aria-label="Base and Base+MIM"]')
        table.locator("thead button").nth(1).click()
        rows = table.locator("tbody tr")
        assert [text.splitlines()[0].split("\t")[0] for text in rows.all_inner_texts()[:5]] == [
            "MIM+",
            "Base+MIM",
            "Leak control",
            "Base",
            "MIM+",
        ]
        assert rows.last.inner_text().startswith("Ceiling")


def test_on_a_phone_only_tables_scroll(address):
    with opened(address, width=390, height=800) as (page, wrong):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert violations(page) == []
        assert wrong == []


def test_on_paper_what_is_folded_is_there_and_afterwards_folded_again(address, tmp_path):
    with opened(address) as (page, _):
        folded = page.locator("details:not([open])").count()
        assert folded > 3
        page.evaluate(
            "addEventListener('beforeprint', () => {"
            " window.left = document.querySelectorAll('details:not([open])').length; })"
        )
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert page.evaluate("window.left") == 0
        assert page.locator("details:not([open])").count() == folded


def test_a_page_that_is_dark_on_screen_is_light_on_paper(address):
    with opened(address) as (page, _):
        page.click("button.theme")
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("button.theme").is_hidden()
