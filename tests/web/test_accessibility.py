"""No violation that axe knows, in light and in dark, with each pane and drawer open."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.web import made
from tests.web.conftest import Opener
from tests.web.fake import Fake, job_of
from tests.web.test_page import SETTINGS
from tests.web.test_watching import EVALUATION, POINTS

axe_package = pytest.importorskip("axe_playwright_python.sync_playwright")


def require_clean(page: Page, where: str) -> None:
    found = axe_package.Axe().run(page).response
    told = [
        f"{where}: {one['id']}: {node['html'][:140]} {node.get('failureSummary', '')[:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
    assert told == []


@pytest.fixture
def full(fake: Fake) -> Fake:
    fake.texts = dict(made.TEXTS)
    fake.titles = {"visits.md": "Visiting hours"}
    fake.answers = [
        made.told(made.answer()),
        made.told(made.unanswered()),
        made.slow(made.answer()),
    ]
    error = {"kind": "document", "message": "damaged", "hint": "save it anew"}
    fake.jobs = {"j1": job_of("j1", "broken.docx", "failed", error=error)}
    fake.jobs["j2"] = job_of("j2", "big.pdf", "embedding", rate=12.0, seconds_left=9, done_bytes=50)
    fake.steps["big.pdf"] = [{"state": "embedding", "pause": 60}]
    fake.settings, fake.evaluations = SETTINGS, [EVALUATION]
    fake.runs = {"reader": list(POINTS)}
    return fake


LOOKS = [
    pytest.param({"dark": False}, "light", id="light"),
    pytest.param({"dark": True}, "dark", id="dark"),
    pytest.param({"dark": False, "language": "zh-CN"}, "chinese", id="chinese"),
    pytest.param({"dark": True, "width": 360, "height": 740}, "phone", id="phone"),
]


@pytest.mark.parametrize(("look", "name"), LOOKS)
def test_the_conversation_has_no_violations(
    full: Fake,
    address: str,
    open_page: Opener,
    picture: Callable[[Page, str], Path],
    look: dict[str, bool],
    name: str,
) -> None:
    page, _ = open_page(address, **look)  # type: ignore[arg-type]
    expect(page.locator(".document")).to_have_count(3)
    require_clean(page, "at first")
    picture(page, f"{name}-first")
    _ask(page, "Until when?")
    expect(page.locator(".cite-mark")).to_have_count(2)
    page.locator(".turn-tools button").click()
    require_clean(page, "heat map")
    picture(page, f"{name}-heat")
    page.locator(".token").first.click()
    expect(page.locator("#source mark")).to_have_count(1)
    require_clean(page, "source")
    picture(page, f"{name}-source")
    page.keyboard.press("Escape")
    _ask(page, "Who painted the ceiling?")
    expect(page.locator(".abstained")).to_have_count(1)
    _ask(page, "And now?")
    expect(page.locator(".writing")).to_have_count(1)
    require_clean(page, "while it is written")
    picture(page, f"{name}-writing")


@pytest.mark.parametrize(("look", "name"), LOOKS)
def test_panes_and_drawers_have_no_violations(
    full: Fake,
    address: str,
    open_page: Opener,
    picture: Callable[[Page, str], Path],
    look: dict[str, bool],
    name: str,
) -> None:
    page, _ = open_page(address, **look)  # type: ignore[arg-type]
    expect(page.locator(".document")).to_have_count(3)
    page.click("#open-settings")
    expect(page.locator("#settings .saving")).to_have_count(1)
    require_clean(page, "settings")
    picture(page, f"{name}-settings")
    page.keyboard.press("Escape")
    for view in ("evaluations", "training"):
        page.click(f"a.tab[href='#{view}']")
        expect(page.locator(f"#{view}-body :is(tbody tr, .chart)").first).to_be_visible()
        require_clean(page, view)
        picture(page, f"{name}-{view}")
    if page.locator("#documents").is_hidden():
        page.click("#documents-tab")
    page.locator(".document .square").first.click()
    require_clean(page, "deleting")
    picture(page, f"{name}-documents")


def test_asking_for_a_key_has_no_violations(full: Fake, address: str, open_page: Opener) -> None:
    full.key = "cs_right"
    page, _ = open_page(address)
    page.fill("#key-field", "cs_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key .error")).to_be_visible()
    require_clean(page, "key")


def _ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")
