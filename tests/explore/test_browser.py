"""The explorer in headless Chromium: no script from data, no console error, contrast and keyboard, phone width."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from encoders.small import picture
from serve.running import running

from explore.conftest import CHROMIUM, ENCODERS, SCRIPT
from mimctr.explore.app import create_app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="no playwright: pip install playwright"),
]
PAGES = {
    "start": "/",
    "words": "/search?q=script",
    "text": "/search?q=red+hat&by=text",
    "item": "/item?id=item/0",
    "item without a vector": "/item?id=item/3",
    "user": "/user?id=3",
    "user now": "/user?id=3&now=true&target=item/7",
    "slices": "/slices",
    "slice": "/slice?name=all",
    "query": "/search/query/0",
}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(opened):
    with running(create_app(opened)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address_of_reproduction(opened_reproduction):
    with running(create_app(opened_reproduction)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def open_page(browser, address, address_of_reproduction):
    """Open a page; whatever the console says of errors fails the test, and so does what comes from elsewhere."""
    said, contexts = [], []

    def opened(path, *, width=1200, scheme="light", address=address):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda one: None if one.url.startswith((address, "blob:")) else said.append(one.url)
        )
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said


def axe_violations(page) -> list:
    import axe_core_python

    page.evaluate((Path(axe_core_python.__file__).parent / "axe.min.js").read_text() + "; 0")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = page.evaluate("rules => axe.run(document, rules)", rules)["violations"]
    return [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES.keys())
def test_pages_are_accessible_and_fit_a_phone(open_page, path, scheme):
    page = open_page(path, width=390, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert axe_violations(page) == []


def test_markup_in_a_title_is_shown_and_not_run(open_page):
    page = open_page("/item?id=item/0")
    assert page.locator("h1").inner_text() == SCRIPT
    assert page.evaluate("window.broken") is None
    assert open_page("/search?q=script").evaluate("window.broken") is None


def test_a_picture_is_searched_with_and_a_bad_one_is_refused(open_page, browser, tmp_path):
    page = open_page("/search")
    page.get_by_role("button", name="Search by picture").click()
    assert page.locator("#hits [role=alert]").inner_text() == "Choose a picture first."
    page.locator("input[type=file]").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": picture(7)}
    )
    page.get_by_role("button", name="Search by picture").click()
    page.locator("#hits .tile").first.wait_for()
    assert page.evaluate("window.broken") is None
    assert "Items nearest to the picture by csft" in page.locator("#said").inner_text()
    assert page.get_by_role("button", name="Search by picture").is_enabled()
    page.locator("#by-picture").evaluate("form => form.dataset.maxBytes = 10")
    page.get_by_role("button", name="Search by picture").click()
    assert page.locator("#hits [role=alert]").inner_text() == "The picture is larger than 10 bytes."


def test_only_the_newest_picture_is_answered_for(open_page):
    """The first answer comes late, after another picture was chosen. Mutant: nothing is aborted."""
    page, held = open_page("/search"), []
    page.route("**/search/picture*", lambda route: held.append(route) if not held else route.continue_())
    button, chosen = page.get_by_role("button", name="Search by picture"), page.locator("input[type=file]")
    chosen.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture(7)})
    button.click()
    assert page.locator("#said").inner_text() == "Searching…"
    assert page.locator("#hits").get_attribute("aria-busy") == "true"
    assert button.is_disabled()
    chosen.set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": picture(8)})
    button.click()
    page.locator("#hits .tile").first.wait_for()
    found = page.locator("#hits").inner_html()
    held[0].fulfill(status=200, content_type="text/html", body="<p role=status>late</p><ul>late</ul>")
    page.wait_for_timeout(200)
    assert page.locator("#hits").inner_html() == found
    assert page.locator("#hits").get_attribute("aria-busy") == "false"


def test_from_words_to_a_user_by_keyboard_alone(open_page):
    page = open_page("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.get_by_label("Words of a title, or an item id").focus()
    page.keyboard.type("item/7")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=item*")
    page.locator("#hits .tile a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/item?id=item*")
    page.get_by_role("link", name="user ").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/user?*")
    page.get_by_label("Against item").fill("item/3")
    page.keyboard.press("Enter")
    page.wait_for_url("**target=item*")
    assert (
        "has no vector: models by default put a learned one in its place" in page.locator("main").inner_text()
    )


def test_the_names_of_rows_stay_while_a_table_is_scrolled(open_page):
    """On a phone: more than one column beside them at first, a shadow on their edge once something is under it."""
    page = open_page("/slices", width=390)
    box, name = page.locator(".scroll"), page.locator("table.sortable tbody th").first
    seen = page.eval_on_selector_all(
        "thead th", "all => all.filter(one => one.getBoundingClientRect().right <= innerWidth).length"
    )
    assert seen >= 3
    before, shadow = name.bounding_box(), "one => getComputedStyle(one, '::after').content"
    assert name.evaluate(shadow) == "none"
    box.evaluate("one => one.scrollTo(10000, 0)")
    page.locator(".scroll.scrolled").wait_for()
    assert box.evaluate("one => one.scrollLeft") > 100
    assert name.bounding_box() == before
    assert name.evaluate(shadow) != "none"
    middle = f"[{before['x'] + before['width'] / 2}, {before['y'] + before['height'] / 2}]"
    assert name.evaluate(f"one => one.contains(document.elementFromPoint(...{middle}))"), "it is covered"


def test_of_many_encoders_three_are_seen_and_a_link_leads_to_all(open_page, address_of_reproduction):
    page = open_page("/item?id=item/7", address=address_of_reproduction)
    assert page.locator("h3:visible").all_inner_texts() == ["plain", "dma-seed1", "mim-seed1"]
    page.get_by_role("link", name="Neighbors by the other 7 encoders too").click()
    page.wait_for_url("**all=true")
    assert page.locator("h3:visible").count() == len(ENCODERS)
    assert axe_violations(page) == []


def test_a_table_is_sorted_by_what_is_clicked_and_holes_come_last(open_page):
    page = open_page("/slices")

    def column():
        return page.eval_on_selector_all(
            "table.sortable tbody tr", "rows => rows.map(row => row.cells[3].dataset.value)"
        )

    before = column()
    for order, reverse in (("descending", True), ("ascending", False)):
        page.get_by_role("button", name="Base", exact=True).click()
        numbers = [float(value) for value in before if value]
        assert [float(value) for value in column() if value] == sorted(numbers, reverse=reverse)
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == order
    assert all(not value for value in column()[len([value for value in before if value]) :])
