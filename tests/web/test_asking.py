"""Asking: the answer as it is written, its citations, its heat map, and what goes wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.web import made
from tests.web.conftest import Opener
from tests.web.fake import Fake


def ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")


def ask_to_the_end(page: Page, question: str) -> None:
    ask(page, question)
    expect(page.locator("#stop")).to_be_hidden()


@pytest.fixture
def page(fake: Fake, address: str, open_page: Opener) -> Page:
    fake.texts = dict(made.TEXTS)
    fake.titles = {"visits.md": "Visiting hours", "探视.txt": "探视"}
    fake.answers = [made.told(made.answer())]
    return open_page(address)[0]


def test_an_answer_is_shown_with_its_passages_and_their_shares(page: Page) -> None:
    ask_to_the_end(page, "Until when may visitors stay?")
    expect(page.locator(".turn h2")).to_have_text("Until when may visitors stay?")
    expect(page.locator(".answer")).to_have_text("Until 21:30[1][2]")
    shown = page.locator(".evidence").first.locator(".passage")
    expect(shown.locator(".title")).to_have_text(["Visiting hours", "parking.html"])
    expect(shown.locator(".percent")).to_have_text(["86%", "10%"])
    expect(shown.locator(".excerpt mark")).to_have_text(["until 21:30"])
    expect(page.locator(".others summary")).to_have_text("1 more passage was read")
    expect(page.locator(".figures")).to_have_text("confidence 93% · 0.4 sec")


def test_the_bars_are_as_long_as_the_shares(page: Page) -> None:
    ask_to_the_end(page, "Until when may visitors stay?")
    lengths = page.eval_on_selector_all(
        ".evidence:first-of-type .fill",
        "all => all.map(one => one.getBoundingClientRect().width"
        " / one.parentElement.getBoundingClientRect().width)",
    )
    assert lengths[:2] == pytest.approx([0.86, 0.102], abs=0.01)


def test_what_is_written_and_the_shares_are_shown_before_the_answer_is_finished(
    fake: Fake, page: Page
) -> None:
    fake.answers = [made.slow(made.answer())]
    ask(page, "Until when may visitors stay?")
    expect(page.locator(".answer.writing")).to_have_text("Until")
    expect(page.locator(".percent")).to_have_text(["33%", "33%", "33%"])
    expect(page.locator(".turn .title")).to_have_text(["parking.html", "Visiting hours", "探视"])
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.locator(".share:disabled")).to_have_count(3)


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stopping_ends_the_work_and_keeps_what_was_written(
    fake: Fake, page: Page, how: str
) -> None:
    fake.answers = [made.slow(made.answer()), made.told(made.answer())]
    ask(page, "Until when?")
    expect(page.locator(".answer.writing")).to_have_text("Until")
    page.click("#stop") if how == "button" else page.keyboard.press("Escape")
    expect(page.locator(".turn")).to_contain_text("Stopped.")
    expect(page.locator(".answer")).to_have_text("Until")
    expect(page.locator(".writing")).to_have_count(0)
    page.wait_for_function("() => true")
    for _ in range(100):
        if fake.stopped and fake.acts:
            break
        page.wait_for_timeout(20)
    assert (fake.stopped, fake.acts) == (1, ["stop ask-1"])
    ask_to_the_end(page, "And now?")
    assert fake.asked[-1]["history"] == []


def test_the_question_that_was_looked_up_is_shown_when_it_is_another(page: Page) -> None:
    ask_to_the_end(page, "Until when may visitors stay?")
    expect(page.locator(".looked-up")).to_be_hidden()
    ask_to_the_end(page, "Until when?")
    second = page.locator(".turn").nth(1).locator(".looked-up")
    expect(second).to_have_text("Looked up as “Until when may visitors stay?”")


def test_what_was_said_goes_along_until_a_new_conversation(fake: Fake, page: Page) -> None:
    for question in ("One?", "Two?"):
        ask_to_the_end(page, question)
    said = [{"question": "One?", "answer": "Until 21:30"}]
    assert [one["history"] for one in fake.asked] == [[], said]
    assert fake.asked[0]["stream"] is True
    assert fake.asked[0]["explain"] is True
    page.click("#new-conversation")
    expect(page.locator(".turn")).to_have_count(0)
    ask_to_the_end(page, "Three?")
    assert fake.asked[-1]["history"] == []


def test_enter_asks_but_not_while_a_word_is_being_spelled(fake: Fake, page: Page) -> None:
    page.fill("#question", "探视")
    spelling = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true})"
    page.eval_on_selector("#question", f"field => field.dispatchEvent({spelling})")
    page.press("#question", "Shift+Enter")
    assert fake.asked == []
    expect(page.locator("#question")).to_have_value("探视\n")
    page.press("#question", "Enter")
    expect(page.locator(".turn")).to_have_count(1)


def test_what_is_not_in_the_documents_is_said_with_the_nearest_passages(
    fake: Fake, page: Page, picture: Callable[[Page, str], Path]
) -> None:
    fake.answers = [made.told(made.unanswered())]
    ask_to_the_end(page, "Who painted the ceiling?")
    expect(page.locator(".abstained h3")).to_have_text("Not in the documents")
    expect(page.locator(".abstained p")).to_contain_text("Confidence that there is one: 7%")
    expect(page.locator(".nearest")).to_have_text("The nearest passages")
    expect(page.locator(".passage .title")).to_have_count(3)
    expect(page.locator(".share, .answer")).to_have_count(0)
    picture(page, "not-in-the-documents")


def test_an_error_is_explained_with_its_message_and_hint_and_can_be_tried_again(
    fake: Fake, page: Page
) -> None:
    fake.refused = {"status": 503, "kind": "overloaded", "message": "64 wait", "hint": "wait 2 s"}
    ask(page, "Until when?")
    box = page.locator(".failed")
    expect(box).to_contain_text("The server has as much to do as it can.")
    expect(box).to_contain_text("64 wait")
    expect(box).to_contain_text("wait 2 s")
    fake.refused = None
    box.get_by_role("button", name="Ask again").click()
    expect(page.locator(".answer")).to_have_text("Until 21:30[1][2]")
    expect(page.locator(".turn")).to_have_count(1)


def test_an_error_within_a_stream_and_a_stream_that_breaks_off_are_told(
    fake: Fake, page: Page
) -> None:
    wrong = {
        "error": {"kind": "fingerprint", "message": "other vectors", "hint": "consilience add"}
    }
    fake.answers = [[*made.told(made.answer())[:2], (0.0, "error", wrong)]]
    ask_to_the_end(page, "One?")
    expect(page.locator(".failed")).to_contain_text("other vectors")
    fake.answers = [made.told(made.answer())[:3]]
    ask_to_the_end(page, "Two?")
    expect(page.locator(".failed").nth(1)).to_contain_text("broke off before its end")


@pytest.mark.parametrize("far", [False, True])
def test_a_citation_opens_its_source_with_exactly_the_quoted_characters_marked(
    fake: Fake, page: Page, far: bool
) -> None:
    if far:
        fake.answers = [made.told(made.of_far())]
    ask_to_the_end(page, "探视到几点？" if far else "Until when?")
    page.locator(".cite-mark").first.click()
    marked = page.locator("#source mark")
    expect(marked).to_have_text(made.QUOTE if far else "until 21:30")
    expect(marked).to_be_in_viewport()
    expect(page.locator("#source-heading")).to_be_focused()
    cited = made.hits()[2 if far else 1]
    around = page.eval_on_selector_all(
        "#source .cited, #source mark", "all => all.map(one => one.textContent).join('')"
    )
    assert around == cited["text"]
    page.keyboard.press("Escape")
    expect(page.locator("#source")).to_be_hidden()
    expect(page.locator(".cite-mark").first).to_be_focused()


def test_a_long_document_is_read_further_in_both_directions(fake: Fake, page: Page) -> None:
    fake.answers = [made.told(made.of_far())]
    ask_to_the_end(page, "探视到几点？")
    page.locator(".cite-mark").first.click()
    expect(page.locator("#source mark")).to_have_text(made.QUOTE)
    for name in ("Earlier text", "Later text"):
        button = page.locator("#source").get_by_role("button", name=name)
        while button.count():
            length = "document.querySelector('#source .text').textContent.length"
            shown = page.evaluate(length)
            button.click()
            page.wait_for_function(f"shown => {length} > shown", arg=shown)
            expect(page.locator("#source .reading")).to_be_focused()
    assert page.locator("#source .text").text_content() == made.FAR
    expect(page.locator("#source mark")).to_have_text(made.QUOTE)


def test_the_printed_page_is_shown_where_there_is_one(fake: Fake, page: Page) -> None:
    found = made.answer()
    found["citations"][0]["page"] = 2
    found["citations"][0]["quotes"] *= 2
    fake.answers = [made.told(found)]
    fake.pages["visits.md"] = [
        {"number": 1, "start": 0, "end": 16},
        {"number": 2, "start": 16, "end": 90},
    ]
    fake.images[("visits.md", 2)] = PIXEL
    ask_to_the_end(page, "Until when?")
    expect(page.locator(".chip .place").first).to_have_text("p. 2")
    page.locator(".chip").first.click()
    image = page.locator("#source img")
    expect(image).to_have_attribute("alt", "Image of page 2 of Visiting hours")
    assert image.evaluate("one => one.naturalWidth") == 1
    expect(page.locator("#source .box")).to_have_count(1)
    start = made.VISITS.index("until 21:30")
    assert fake.acts == [f"boxes visits.md 2 {start} {start + 11}"]
    expect(page.locator("#source .page-start")).to_have_text(["Page 1", "Page 2"])
    page.get_by_role("button", name="Page 2 as printed").click()
    expect(image).to_be_hidden()


def test_arrow_keys_go_from_citation_to_citation(page: Page) -> None:
    ask_to_the_end(page, "Until when?")
    page.locator(".cite-mark").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cite-mark").nth(1)).to_be_focused()
    page.locator(".chip").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".chip").nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".chip").first).to_be_focused()


def test_the_heat_map_colours_each_word_by_the_passage_that_carried_it(
    page: Page, picture: Callable[[Page, str], Path]
) -> None:
    ask_to_the_end(page, "Until when?")
    page.get_by_role("button", name="Which passage carried each word").click()
    tokens = page.locator(".token")
    expect(page.locator(".answer.heat")).to_have_text("Until 21:30")
    expect(tokens).to_have_text(["Until", "21", ":", "30"])
    numbers = [re.findall(r"hue-(\d)", one.get_attribute("class") or "")[0] for one in tokens.all()]
    assert numbers == ["1", "1", "2", "1"]
    shares = [one.evaluate("one => one.style.getPropertyValue('--share')") for one in tokens.all()]
    assert shares == ["0.9400", "0.9000", "0.7000", "0.9100"]
    expect(tokens.nth(2)).to_have_attribute(
        "aria-label", ":: passage 2 70%, passage 1 20%, passage 3 10%"
    )
    tokens.nth(2).hover()
    expect(page.locator(".readout")).to_have_text(":[2] 70%[1] 20%[3] 10%")
    picture(page, "heat-map")


def test_the_underline_tells_passages_apart_without_colour(page: Page) -> None:
    ask_to_the_end(page, "Until when?")
    page.get_by_role("button", name="Which passage carried each word").click()
    drawn = page.eval_on_selector_all(
        ".token", "all => all.map(one => getComputedStyle(one).textDecorationStyle)"
    )
    assert drawn == ["solid", "solid", "dashed", "solid"]


def test_the_keys_go_from_word_to_word_and_a_word_opens_its_passage(page: Page) -> None:
    ask_to_the_end(page, "Until when?")
    page.get_by_role("button", name="Which passage carried each word").click()
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(2)).to_be_focused()
    expect(page.locator(".readout b")).to_have_text(":")
    page.keyboard.press("Enter")
    expect(page.locator("#source-heading")).to_have_text("parking.html")


def test_a_bar_shows_the_share_of_its_passage_in_each_word(page: Page) -> None:
    ask_to_the_end(page, "Until when?")
    bar = page.get_by_role("button", name="Passage 2 carries 10.2%")
    bar.click()
    expect(bar).to_have_attribute("aria-pressed", "true")
    tokens = page.locator(".token").all()
    shares = [one.evaluate("one => one.style.getPropertyValue('--share')") for one in tokens]
    assert shares == ["0.0400", "0.0600", "0.7000", "0.0500"]
    bar.click()
    expect(bar).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize(
    ("text", "tokens", "pieces"),
    [
        ("Until 21:30", ["until", "21", ":", "30"], ["Until", " ", "21", ":", "30"]),
        ("到𠮷点🕤", ["到", "𠮷", "点", "🕤"], ["到", "𠮷", "点", "🕤"]),
        ("a b", ["▁a", "b"], None),
        ("a b c", ["a", "b"], None),
        ("ab", ["a", "", "b"], ["a", "b"]),
    ],
)
def test_tokens_are_found_in_the_answer_or_it_is_said_that_they_are_not(
    page: Page, text: str, tokens: list[str], pieces: list[str] | None
) -> None:
    found = page.evaluate(
        """async ([text, tokens]) => {
          const { aligned } = await import("./js/heat.js");
          return aligned(text, tokens.map(text => ({ text })))?.map(one => one.text) ?? null;
        }""",
        [text, tokens],
    )
    assert found == pieces


def test_a_screen_reader_is_told_once_and_not_word_by_word(page: Page) -> None:
    page.evaluate(
        """() => { window.said = []; new MutationObserver(() => window.said.push(
          document.getElementById("told").textContent)).observe(
          document.getElementById("told"), { childList: true }); }"""
    )
    ask_to_the_end(page, "Until when?")
    said = page.evaluate("() => window.said")
    assert said == ["Reading 3 passages…", "Answer: Until 21:30 2 sources below."]


def test_options_of_each_question_go_along_and_are_remembered(fake: Fake, page: Page) -> None:
    ask_to_the_end(page, "One?")
    assert not {"k", "fusion", "mode", "beams", "quote", "abstain"} & set(fake.asked[-1])
    page.click("#manner")
    page.fill("#manner-k", "8")
    page.select_option("#manner-fusion", "token")
    page.select_option("#manner-mode", "bm25")
    page.fill("#manner-beams", "4")
    page.uncheck("#manner-abstain")
    page.check("#manner-quote")
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#manner")).to_contain_text("k 8")
    ask_to_the_end(page, "Two?")
    chosen = {"k": 8, "fusion": "token", "mode": "bm25", "beams": 4, "abstain": False}
    chosen |= {"quote": True}
    assert fake.asked[-1] | chosen == fake.asked[-1]


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
