"""The pane of documents: adding them, watching them come in, finding, opening and deleting them."""

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web import made
from tests.web.conftest import Opener
from tests.web.fake import Fake, job_of


@pytest.fixture
def page(fake: Fake, address: str, open_page: Opener) -> Page:
    return open_page(address)[0]


def write(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_text(f"This is {name}.", "utf-8")
    return [str(folder / name) for name in names]


def row(page: Page, name: str) -> Locator:
    return page.locator(".job", has=page.get_by_text(name, exact=True))


def test_an_empty_knowledge_base_says_what_to_do_first(page: Page) -> None:
    expect(page.locator("#welcome h2")).to_have_text("Begin with your documents")
    expect(page.locator("#no-documents")).to_contain_text("Add PDF, Word")
    with page.expect_file_chooser():
        page.locator("#welcome").get_by_role("button", name="Add documents").click()


def test_each_file_has_a_row_that_tells_how_far_it_is(
    fake: Fake, page: Page, tmp_path: Path
) -> None:
    fake.steps["a.txt"] = [
        {"state": "reading", "done_bytes": 10},
        {"state": "embedding", "rate": 42.0, "done_bytes": 40, "seconds_left": 75, "pause": 0.1},
        {"state": "done", "passages": 7, "done_bytes": 100, "pause": 1.0},
    ]
    page.set_input_files("#files", write(tmp_path, "a.txt", "b.txt"))
    expect(row(page, "a.txt").locator(".state")).to_have_text(
        "indexing · 42 passages/s · 1 min left"
    )
    assert row(page, "a.txt").locator("progress").evaluate("one => one.value") == 0.4
    expect(row(page, "a.txt").locator(".state")).to_have_text("added, 7 passages")
    expect(row(page, "b.txt").locator(".state")).to_have_text("added, 3 passages")
    expect(page.locator(".listing .title")).to_have_text(["a.txt", "b.txt"])
    expect(page.locator("#welcome")).to_contain_text("2 documents, 2 passages.")


def test_the_part_that_was_sent_is_shown(page: Page, address: str, tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * 3_000_000)
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
          const state = document.querySelector(".job .state")?.textContent;
          if (state?.startsWith("uploading")) window.seen.push(state);
        }).observe(document.getElementById("uploads"), { subtree: true, childList: true }); }"""
    )
    page.set_input_files("#files", str(tmp_path / "big.txt"))
    expect(row(page, "big.txt").locator(".state")).to_have_text("added, 3 passages")
    seen = page.evaluate("() => window.seen")
    assert seen[0] == "uploading, 0%"
    assert seen[-1] == "uploading, 100%"


def test_files_can_be_dropped_anywhere(fake: Fake, page: Page) -> None:
    data = page.evaluate_handle(
        """() => { const data = new DataTransfer();
        data.items.add(new File(["dropped"], "dropped.txt")); return data; }"""
    )
    page.dispatch_event("#conversation", "dragenter", {"dataTransfer": data})
    expect(page.locator("#dropping")).to_be_visible()
    page.dispatch_event("#conversation", "drop", {"dataTransfer": data})
    expect(page.locator("#dropping")).to_be_hidden()
    expect(page.locator(".listing .title")).to_have_text(["dropped.txt"])


def test_a_file_that_is_refused_says_why_and_does_not_hold_up_the_others(
    fake: Fake, page: Page, tmp_path: Path
) -> None:
    page.set_input_files("#files", write(tmp_path, "bad.exe", "good.txt"))
    bad = row(page, "bad.exe")
    expect(bad).to_contain_text("The document cannot be read.")
    expect(bad).to_contain_text("no reader for .exe")
    expect(bad).to_contain_text("add PDF, Word or text")
    expect(row(page, "good.txt").locator(".state")).to_have_text("added, 3 passages")
    bad.get_by_role("button", name="Try again").click()
    expect(bad).to_contain_text("no reader for .exe")
    assert [one["name"] for one in fake.uploads].count("bad.exe") == 2


def test_a_job_can_be_cancelled_and_tried_again(fake: Fake, page: Page, tmp_path: Path) -> None:
    fake.steps["a.txt"] = [{"state": "reading"}, {"state": "done", "passages": 1, "pause": 1.5}]
    page.set_input_files("#files", write(tmp_path, "a.txt"))
    expect(row(page, "a.txt").locator(".state")).to_have_text("reading")
    row(page, "a.txt").get_by_role("button", name="Cancel").click()
    expect(row(page, "a.txt").locator(".state")).to_have_text("cancelled")
    fake.steps["a.txt"] = [{"state": "done", "passages": 1}]
    row(page, "a.txt").get_by_role("button", name="Try again").click()
    expect(row(page, "a.txt").locator(".state")).to_have_text("added, 1 passage")
    assert fake.acts == ["cancel job-0", "retry job-0"]


def test_what_failed_before_the_page_was_opened_is_shown_with_its_hint(
    fake: Fake, address: str, open_page: Opener
) -> None:
    error = {"kind": "document", "message": "no member word/document.xml", "hint": "save it anew"}
    fake.jobs = {
        "j1": job_of("j1", "broken.docx", "failed", error=error),
        "j2": job_of("j2", "old.txt", "done"),
    }
    page, _ = open_page(address)
    expect(page.locator(".job .name")).to_have_text(["broken.docx"])
    expect(page.locator(".job")).to_contain_text("save it anew")
    page.get_by_role("button", name="Take off the list").click()
    expect(page.locator(".job")).to_have_count(0)


def test_labels_go_along_with_a_file(fake: Fake, page: Page, tmp_path: Path) -> None:
    page.get_by_text("Who may read them").click()
    page.fill("#access", "ward 3， staff")
    page.set_input_files("#files", write(tmp_path, "a.txt"))
    expect(page.locator(".listing .title")).to_have_text(["a.txt"])
    assert fake.uploads == [{"name": "a.txt", "access": ["ward 3", "staff"]}]


def test_documents_are_found_by_name(fake: Fake, address: str, open_page: Opener) -> None:
    fake.texts = {f"d{number:03}.txt": "text" for number in range(250)}
    page, _ = open_page(address)
    expect(page.locator(".document")).to_have_count(100)
    expect(page.locator("#documents-count")).to_have_text("250")
    page.click("#more-documents")
    expect(page.locator(".document")).to_have_count(200)
    page.click("#more-documents")
    expect(page.locator(".document")).to_have_count(250)
    expect(page.locator("#more-documents")).to_be_hidden()
    page.fill("#find-document", "D007")
    expect(page.locator(".document .title")).to_have_text(["d007.txt"])
    page.fill("#find-document", "nowhere")
    expect(page.locator("#no-documents")).to_have_text("No document is called that.")
    expect(page.locator("#documents-count")).to_have_text("250")


def test_deleting_asks_first_within_the_page(fake: Fake, address: str, open_page: Opener) -> None:
    fake.texts = dict(made.TEXTS)
    page, _ = open_page(address)
    page.on("dialog", lambda one: pytest.fail("a dialog of the browser"))
    page.get_by_role("button", name="Open visits.md").or_(
        page.locator(".open", has_text="visits.md")
    ).click()
    expect(page.locator("#source .text")).to_contain_text("until 21:30")
    page.get_by_role("button", name="Delete visits.md").click()
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete visits.md")).to_be_focused()
    expect(page.locator("#source")).to_be_visible()
    page.get_by_role("button", name="Delete visits.md").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".document")).to_have_count(2)
    expect(page.locator("#source")).to_be_hidden()
    assert "visits.md" not in fake.texts
