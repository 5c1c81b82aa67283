"""Headless Chromium for tests of pages: Debian's, driven by Playwright; without it they skip and say so."""

import contextlib
import shutil

import pytest

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


@contextlib.contextmanager
def opened(address, *, width=1280, height=900, dark=False):
    """Open a page; yield it with a list of what went wrong: errors in its console, requests that leave the file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page, wrong = context.new_page(), []
            page.on(
                "console", lambda message: wrong.append(message.text) if message.type == "error" else None
            )
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    None if request.url.startswith(("data:", address)) else wrong.append(request.url)
                ),
            )
            page.goto(address)
            yield page, wrong
        finally:
            browser.close()


def violations(page):
    """Return what axe-core finds wrong with a page: the rule and the first place."""
    from axe_core_python.sync_playwright import Axe

    return [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in Axe().run(page)["violations"]]


def check_theme_switch(page):
    """The button turns light and dark round, either can be read, and a second press brings the first one back."""
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.click("button.theme")
    assert page.evaluate(background) != before
    assert violations(page) == []
    page.click("button.theme")
    assert page.evaluate(background) == before
