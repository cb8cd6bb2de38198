"""A real browser for the tests, and a fixture that opens pages and looks over their shoulder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Chromium itself would call home otherwise, and the sandbox needs more rights than a container gives.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 30_000

Visit = Callable[..., Page]


@pytest.fixture(scope="module")  # while playwright is open, its event loop runs in this thread: no asyncio test could
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on the path: apt-get install chromium fonts-noto-cjk")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """`visit(url, **context)` opens a page in a fresh profile. In the end: no foreign host asked, no error logged."""
    contexts, foreign, errors = [], [], []

    def open_page(url: str, **context: Any) -> Page:
        contexts.append(
            browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **context})
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        own = urlsplit(url).netloc
        page.on("request", lambda request: foreign.append(request.url) if is_foreign(request.url, own) else None)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert foreign == []
    assert errors == []


def is_foreign(url: str, own: str) -> bool:
    """Whether `url` is neither on our host nor inside the page itself."""
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.netloc != own
