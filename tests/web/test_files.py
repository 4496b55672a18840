"""The files of the page: what they may hold, how large they are, and what the modules compute."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from tests.web.conftest import Opener
from tests.web.fake import WEB, Fake, application
from tests.web.serving import served

SOURCES = sorted(path for path in WEB.rglob("*") if path.is_file())
SCRIPTS = [path for path in SOURCES if path.suffix == ".js"]
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\s*\(|new Function|"
    r"DOMParser|createContextualFragment|setHTMLUnsafe|srcdoc|import\((?![\"'])"
)
BUDGET = 200_000


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in SOURCES) < BUDGET


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_text(path: Path) -> None:
    assert MARKUP.findall(path.read_text("utf-8")) == []


@pytest.mark.parametrize("text", ["x.innerHTML = y", "eval (y)", "import(name)", "new Function(y)"])
def test_what_makes_markup_of_text_is_found(text: str) -> None:
    assert MARKUP.search(text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_file_names_another_machine(path: Path) -> None:
    found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", path.read_text("utf-8"))
    assert [one for one in found if not one.startswith("http://www.w3.org/")] == []


class Elements(HTMLParser):
    """Elements of a document with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.found[-1:] and self.found[-1][0] in ("script", "style"):
            self.text.append(data.strip())


def elements() -> Elements:
    parser = Elements()
    parser.feed((WEB / "index.html").read_text("utf-8"))
    return parser


def test_the_document_has_no_script_and_no_style_within_it() -> None:
    parser = elements()
    assert "".join(parser.text) == ""
    inline = [
        one for _, one in parser.found if any(k == "style" or k.startswith("on") for k in one)
    ]
    assert inline == []


def test_every_module_is_fetched_at_once_and_everything_named_is_there() -> None:
    named = {one.get("href") or one.get("src") or "" for _, one in elements().found}
    files = {name.partition("#")[0] for name in named} - {""}
    assert {name for name in files if not (WEB / name).is_file()} == set()
    assert {path.relative_to(WEB).as_posix() for path in SCRIPTS} <= files


def test_every_icon_that_is_named_is_drawn() -> None:
    drawn = set(re.findall(r'symbol id="([\w-]+)"', (WEB / "icons/all.svg").read_text("utf-8")))
    text = "".join(path.read_text("utf-8") for path in [*SCRIPTS, WEB / "index.html"])
    named = set(re.findall(r'all\.svg#([\w-]+)"|icon\("([\w-]+)"\)', text))
    assert {one or other for one, other in named} <= drawn


def test_every_sentence_that_is_named_is_there() -> None:
    words = set(re.findall(r"^  (\w+):", (WEB / "js/words.js").read_text("utf-8"), re.M))
    text = (WEB / "index.html").read_text("utf-8")
    named = set(re.findall(r'data-(?:say|label|placeholder)="(\w+)"', text))
    for path in SCRIPTS:
        source = path.read_text("utf-8")
        named |= set(re.findall(r'\bt\("(\w+)"', source))
        named |= set(re.findall(r'\), "(\w+)"(?:\)|, \{)', source))
    assert len(named) > 80
    assert named - words == set()


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """A page whose modules are called; it is opened once for all examples."""
    opener = Opener(browser)
    with served(application(Fake())) as address:
        yield opener(address)[0]
        for context in opener.contexts:
            context.close()


LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("𠀀𪚥👩🕤é中\u0301\u200d")
TEXTS = st.text(LETTERS)


@given(text=TEXTS, cuts=st.lists(st.integers(-2, 30), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_offsets_of_code_points_cut_as_python_does(
    modules: Page, text: str, cuts: list[int]
) -> None:
    low, high = sorted(max(0, cut) for cut in cuts[:2])
    found = modules.evaluate(
        """async ([text, low, high, cuts]) => {
          const { slice, length, cutAt } = await import("./js/codepoints.js");
          return [slice(text, low, high), slice(text, low), length(text), cutAt(text, cuts)]; }""",
        [text, low, high, cuts],
    )
    assert found[:3] == [text[low:high], text[low:], len(text)]
    assert [one["text"] for one in found[3]] == [
        text[one["start"] : one["end"]] for one in found[3]
    ]
    assert "".join(one["text"] for one in found[3]) == text
    inside = {cut for cut in cuts if 0 < cut < len(text)}
    assert {one["start"] for one in found[3]} == (inside | {0} if text else set())


DATA = st.dictionaries(st.text(max_size=3), st.text())
EVENTS = st.lists(st.tuples(st.sampled_from(["token", "answer", "x"]), DATA), max_size=5)


@given(events=EVENTS, data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_events_are_read_however_the_bytes_arrive(
    modules: Page, events: list[tuple[str, dict[str, str]]], data: st.DataObject
) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = [[f"event: {name}", f"data: {json.dumps(told)}", ""] for name, told in events]
    whole = end.join(line for block in [[": alive", ""], *lines] for line in block) + end
    raw = whole.encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    parts = [list(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found = modules.evaluate(
        """async parts => {
          const { eventsOf } = await import("./js/events.js");
          const body = new ReadableStream({ start(to) {
            for (const part of parts) to.enqueue(new Uint8Array(part));
            to.close(); } });
          const found = [];
          for await (const one of eventsOf(body)) found.push([one.name, JSON.stringify(one.data)]);
          return found; }""",
        parts,
    )
    assert [(name, json.loads(text)) for name, text in found] == events


def test_an_event_that_is_not_whole_is_not_told(modules: Page) -> None:
    found = modules.evaluate(
        """async () => {
          const { eventsOf } = await import("./js/events.js");
          const found = [];
          for await (const one of eventsOf(new Blob(['data: {"a": 1}\\n\\ndata: {"b"']).stream()))
            found.push(one.data);
          return found; }"""
    )
    assert found == [{"a": 1}]
