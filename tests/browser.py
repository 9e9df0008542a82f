"""A real browser for the time of a test: Debian's chromium, driven without a display."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Opened:
    """A page, with all that it asked for and complained of since before it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """While it runs, asyncio's loop of this thread is Playwright's."""
    found = shutil.which("chromium")
    assert found, "no chromium: install it with `apt-get install chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*_QUIET])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_report(path: Path, browser: Browser | None = None, **context: Any) -> Iterator[Opened]:
    """The file in `browser`, or in one of its own.

    context: of Playwright's new_context, `java_script_enabled=False` for example
    """
    with ExitStack() as stack:
        browser = browser or stack.enter_context(chromium())
        opened = Opened(stack.enter_context(browser.new_context(**context)).new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: _note(opened, message.type, message.text))
        opened.page.on("pageerror", lambda error: _note(opened, "error", str(error)))
        opened.page.goto(path.resolve().as_uri())
        yield opened


def _note(opened: Opened, kind: str, text: str) -> None:
    if kind in {"error", "warning"}:
        opened.complaints.append(f"{kind}: {text}")


def asked_the_network_for(opened: Opened) -> list[str]:
    """Every request that is not for the file itself or for what stands inside it."""
    own = opened.page.url.split("#")[0]
    return [u for u in opened.requests if u.split("#")[0] != own and not u.startswith("data:")]
