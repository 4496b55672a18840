"""The whole journey over the real application: a store, a tiny model, and files that are read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from consilience.serving.app import create_app
from consilience.serving.config import ServeConfig
from consilience.serving.service import Service, open_service
from tests.web.conftest import Opener, Watched
from tests.web.serving import served

HOSPITAL = Path(__file__).parents[2] / "examples/three_organisations/hospital/documents"
NOTICE = (
    "🕤 Notice 𠀀𪚥\n\nVisitors of ward 7 may stay until 21:30 on weekdays 👩‍⚕️.\n"
    "\n探视须知：𠮷区病房的探视到晚上八点为止🕗，家属请勿久留。\n"
)
MANNER = json.dumps({"abstain": False, "k": 4, "beams": 1, "max_new_tokens": 8})


@pytest.fixture
def service(tmp_path: Path, tiny_model_folder: Path) -> Iterator[Service]:
    runs = tmp_path / "runs/reader"
    runs.mkdir(parents=True)
    (runs / "config.json").write_text('{"steps": 20, "objectives": {"token": 1}}', "utf-8")
    lines = (json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 11))
    (runs / "log.jsonl").write_text("".join(lines), "utf-8")
    config = ServeConfig(
        store=tmp_path / "knowledge", model=str(tiny_model_folder), runs=tmp_path / "runs"
    )
    opened = open_service(config, path=tmp_path / "consilience.yaml")
    opened.warm_up()
    yield opened
    opened.close()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with served(create_app(service, write=lambda _: None)) as found:
        yield found


@pytest.fixture
def notice(tmp_path: Path) -> Path:
    path = tmp_path / "notice.txt"
    path.write_text(NOTICE, "utf-8")
    return path


def prepared(open_page: Opener, address: str, **look: Any) -> tuple[Page, Watched]:
    """A page that asks for short answers and for one in any case."""
    page, watched = open_page(address, **look)
    page.evaluate("manner => localStorage.setItem('consilience.manner', manner)", MANNER)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    return page, watched


def add(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", [str(path) for path in paths])
    for path in paths:
        row = page.locator(".job", has=page.get_by_text(path.name, exact=True))
        expect(row).to_have_attribute("data-state", "done", timeout=60_000)


def ask(page: Page, question: str) -> None:
    before = page.locator(".turn").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    expect(page.locator(".turn[aria-busy=false]")).to_have_count(before + 1, timeout=60_000)


def same_again(page: Page, address: str, question: str) -> dict[str, Any]:
    """What the server answers to a question that was asked on the page."""
    body = {"question": question, **json.loads(MANNER)}
    found: dict[str, Any] = page.request.post(f"{address}v1/ask", data=body).json()
    return found


def test_the_whole_journey(
    address: str,
    service: Service,
    open_page: Opener,
    notice: Path,
    picture: Callable[[Page, str], Path],
) -> None:
    page, watched = prepared(open_page, address)
    expect(page.locator("#welcome h2")).to_have_text("Begin with your documents")
    add(page, notice, HOSPITAL / "visiting-hours.md", HOSPITAL / "mri-safety.pdf")
    expect(page.locator(".document")).to_have_count(3)
    picture(page, "journey-1-added")

    for question in ("Until when may visitors stay?", "探视到几点为止？"):
        page.click("#new-conversation") if page.locator(".turn").count() else None
        ask(page, question)
        told = same_again(page, address, question)
        assert told["citations"]
        require_same_places(page, told, service)
    picture(page, "journey-2-cited")

    page.locator(".document", has_text="notice.txt").get_by_role("button").nth(1).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".document")).to_have_count(2)
    page.click("#new-conversation")
    ask(page, "探视到几点为止？")
    ask(page, "Until when may visitors stay?")
    names = page.eval_on_selector_all(".turn .chip", "all => all.map(one => one.title)")
    assert names
    assert not any("notice" in name for name in names)
    assert "𠮷区病房" not in (page.locator("#turns").text_content() or "")

    page.click("#language")
    expect(page.locator("#new-conversation")).to_have_text("新对话")
    page.click("#theme")
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == "dark"
    picture(page, "journey-3-dark-chinese")
    assert watched.elsewhere(address) == []
    assert watched.faults == []


def require_same_places(page: Page, told: dict[str, Any], service: Service) -> None:
    """Each citation opens its document with the characters marked that the server quotes."""
    for number, citation in enumerate(told["citations"]):
        page.locator(".cite-mark").nth(number).click()
        whole = service.store.document(citation["source"]).text
        quotes = citation["quotes"] or [citation]
        start = citation["start"]
        marks = page.locator("#source mark")
        expect(marks.first).to_be_visible()
        expect(page.locator("#source .facts")).to_contain_text(citation["source"])
        shown = page.eval_on_selector_all(
            "#source .cited, #source mark",
            "all => all.map(one => [one.localName, one.textContent])",
        )
        assert "".join(text for _, text in shown) == whole[start : citation["end"]]
        marked, at = set[int](), start
        for kind, text in shown:
            marked |= set(range(at, at + len(text))) if kind == "mark" else set()
            at += len(text)
        assert marked == {at for quote in quotes for at in range(quote["start"], quote["end"])}
        page.keyboard.press("Escape")


def test_a_printed_page_is_shown_beside_its_text(
    address: str, open_page: Opener, picture: Callable[[Page, str], Path]
) -> None:
    page, _ = prepared(open_page, address)
    add(page, HOSPITAL / "mri-safety.pdf")
    ask(page, "What must be kept away from the magnet?")
    page.locator(".cite-mark").first.click()
    image = page.locator("#source img")
    expect(image).to_be_visible()
    assert image.evaluate("one => one.naturalWidth") == 900
    expect(page.locator("#source .box").first).to_be_in_viewport()
    picture(page, "journey-4-printed-page")


def test_what_is_asked_next_is_looked_up_with_what_was_said(
    address: str, open_page: Opener, notice: Path
) -> None:
    page, _ = prepared(open_page, address)
    add(page, notice, HOSPITAL / "visiting-hours.md")
    ask(page, "Until when may visitors of ward 7 stay on weekdays?")
    ask(page, "And on Sundays?")
    looked_up = page.locator(".turn").nth(1).locator(".looked-up")
    expect(looked_up).to_be_visible()
    expect(looked_up).to_contain_text("Until when may visitors of ward 7 stay on weekdays?")
    expect(looked_up).to_contain_text("And on Sundays?")
    expect(page.locator(".failed")).to_have_count(0)


def test_a_file_that_cannot_be_read_says_so_and_can_be_tried_again(
    address: str, open_page: Opener, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.docx"
    broken.write_bytes(b"PK\x03\x04 this is no archive")
    page, _ = prepared(open_page, address)
    page.set_input_files("#files", str(broken))
    row = page.locator(".job")
    expect(row).to_have_attribute("data-state", "failed", timeout=60_000)
    expect(row).to_contain_text("The document cannot be read.")
    row.get_by_role("button", name="Try again").click()
    expect(row).to_have_attribute("data-state", "failed", timeout=60_000)


def test_settings_are_written_to_the_config_file(
    address: str, service: Service, open_page: Opener
) -> None:
    page, _ = open_page(address)
    page.click("#open-settings")
    field = page.get_by_label("The most passages of a request.")
    field.fill("0")
    page.get_by_role("button", name="Save").click()
    wrong = page.locator("#settings .field", has=field).locator(".error")
    expect(wrong).to_contain_text("limits.k is 0, allowed: a whole number from 1 to 1000")
    field.fill("20")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#settings .saving")).to_contain_text("Saved.")
    assert "k: 20" in service.path.read_text("utf-8")
    assert service.config.limits.k == 20


def test_an_evaluation_is_run_and_its_report_opened(
    address: str, open_page: Opener, notice: Path, tmp_path: Path
) -> None:
    data = tmp_path / "questions.jsonl"
    lines = [{"question": "Until when may visitors stay?", "answers": ["21:30"]}] * 2
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    page, watched = prepared(open_page, address)
    add(page, notice)
    page.click("a.tab[href='#evaluations']")
    page.set_input_files("#evaluation-data", str(data))
    page.fill("#evaluation-name", "Night")
    page.get_by_role("button", name="Start").click()
    line = page.locator("tbody tr", has_text="Night")
    expect(line.get_by_role("link")).to_be_visible(timeout=60_000)
    with page.context.expect_page() as opened:
        line.get_by_role("link").click()
    expect(opened.value.locator("h1")).to_contain_text("Night")
    assert watched.elsewhere(address) == []


def test_a_training_run_is_watched(address: str, open_page: Opener, tmp_path: Path) -> None:
    page, _ = open_page(f"{address}#training")
    expect(page.locator(".run")).to_contain_text("step 10 of 20")
    with (tmp_path / "runs/reader/log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 15, "loss": 0.05}\n')
    expect(page.locator(".chart .values")).to_have_text("loss 0.05step 15")
    expect(page.locator(".run")).to_contain_text("step 15 of 20")


def test_a_key_of_a_reader_sees_what_it_may(
    address: str, service: Service, open_page: Opener, notice: Path
) -> None:
    page, _ = prepared(open_page, address)
    add(page, notice)
    made = service.keys.create("reader", scopes=("read",), labels=())
    service.keys.create("owner", scopes=("admin",), labels=None)
    page.reload()
    page.fill("#key-field", made.secret)
    page.keyboard.press("Enter")
    expect(page.locator(".document")).to_have_count(1)
    page.set_input_files("#files", str(notice))
    expect(page.locator(".job").first).to_contain_text("Your key may not do this.")
    page.click("#open-settings")
    expect(page.locator("#server-section")).to_contain_text("Only a key with the scope admin")


def test_the_first_paint_is_measured(
    address: str, open_page: Opener, record_property: Callable[[str, object], None]
) -> None:
    page, _ = open_page(address)
    painted = page.evaluate("() => performance.getEntriesByType('paint').map(one => one.startTime)")
    record_property("first_paint_ms", round(min(painted)))
    print(f"first paint after {min(painted):.0f} ms")  # noqa: T201
    assert painted
