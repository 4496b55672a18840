"""A browser, a page that notes every request it makes, and where its pictures are kept."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import (  # noqa: E402
    Browser,
    BrowserContext,
    Page,
    expect,
    sync_playwright,
)

from tests.web.fake import Fake, application  # noqa: E402
from tests.web.serving import served  # noqa: E402

LONGEST = 15_000
"""Milliseconds that a page may take for what it is asked; other tests run beside this one."""

expect.set_options(timeout=LONGEST)

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no chromium on this machine")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Watched:
    """What a page did that nobody sees.

    Attributes:
        requests: Every address that it asked for.
        faults: Errors that it wrote to the console or threw.
    """

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def elsewhere(self, address: str) -> list[str]:
        """Requests that went to another origin."""
        ours = ("blob:", "data:", address)
        return [one for one in self.requests if not one.startswith(ours)]


@dataclass
class Opener:
    """Opens pages of a server and closes them with the test."""

    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)

    def __call__(
        self,
        address: str,
        *,
        language: str = "en-GB",
        width: int = 1440,
        height: int = 900,
        dark: bool = False,
    ) -> tuple[Page, Watched]:
        context = self.browser.new_context(
            locale=language,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.contexts.append(context)
        context.set_default_timeout(LONGEST)
        page, watched = context.new_page(), Watched()
        context.on("request", lambda one: watched.requests.append(one.url))
        page.on("pageerror", lambda one: watched.faults.append(str(one)))
        page.on("console", lambda one: _note(watched, one.type, one.text))
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page, watched


def _note(watched: Watched, kind: str, text: str) -> None:
    # A status that is no success is told on the console too, and is not a fault of the page.
    if kind == "error" and not text.startswith("Failed to load resource"):
        watched.faults.append(text)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    opener = Opener(browser)
    yield opener
    for context in opener.contexts:
        context.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def address(fake: Fake) -> Iterator[str]:
    with served(application(fake)) as found:
        assert urlsplit(found).hostname == "127.0.0.1"
        yield found


@pytest.fixture
def picture(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Page, str], Path]:
    """Keeps a picture of a page, in `CONSILIENCE_SCREENSHOTS` or in a folder of this run."""
    folder = Path(os.environ.get("CONSILIENCE_SCREENSHOTS") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        return path

    return take
