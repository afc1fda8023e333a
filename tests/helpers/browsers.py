"""A real headless browser for the tests and the screenshots: Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The path of an installed Chromium; Playwright's own download is not needed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser until the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


def complaints_of(page: Page) -> list[str]:
    """A list that grows by whatever the page's console says is wrong, and by every request."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "console",
        lambda message: found.append(message.text) if message.type in ("error", "warning") else 0,
    )
    page.on(
        "request",
        lambda request: found.append(request.url) if request.url.startswith("http") else 0,
    )
    return found


def wait_for_figures(page: Page) -> None:
    """Until every figure of a report is drawn."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((plot) => plot._fullLayout"
        " && plot.querySelector('.main-svg'))"
    )
    page.wait_for_timeout(300)  # the last relayout, into the page's colours
