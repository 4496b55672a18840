"""The report of an evaluation in a browser: on a phone, in the dark, in Chinese, offline."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from consilience.evaluation import Run, summed_up, write_report
from consilience.evaluation.records import Reading, Record
from consilience.evaluation.report.words import WORDS, Language
from tests.evaluation.made import record
from tests.web.conftest import Watched
from tests.web.test_accessibility import require_clean

TEXTS: dict[Language, tuple[str, str, str]] = {
    "en": ("Until when may one visit ward {}, and who is to be asked?", "half past seven", "hours"),
    "zh": ("第 {} 病区的探视时间到几点，应当先找谁登记？", "七点半", "探视时间"),
}
PLACE = "hospital/" + "a-long-name-of-a-folder-" * 4 + "visits.md"
LOOKS = [
    pytest.param(language, dark, width, id=f"{language}-{'dark' if dark else 'light'}-{width}")
    for language in ("en", "zh")
    for dark in (False, True)
    for width in (1280, 390)
]
Open = Callable[..., tuple[Page, Watched]]


def records(language: Language) -> Iterator[Record]:
    asked, right, title = TEXTS[language]
    for i in range(24):
        correct = i % 3 > 0
        reading = Reading(f"p{i}", PLACE, title, f"{asked} " * 5, 0.75, True, "answer")
        yield record(
            f"q{i}",
            {"exact_match": float(correct), "f1": float(correct), "attribution_precision": i / 24},
            question=asked.format(i),
            answers=(right,),
            answer=right if correct else "8",
            confidence=(i + 12 * correct) / 40,
            readings=(reading,),
            timings_ms={"encode": 2.0, "search": 3.0, "read": 30.0, "write": 90.0},
        )


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    contexts = []

    def go(language: Language, *, dark: bool = False, width: int = 1280) -> tuple[Page, Watched]:
        setup = {"model": "shipped", "store": PLACE * 3}
        evaluation = summed_up(Run(setup, tuple(records(language))))
        path = write_report(evaluation, tmp_path, language=language, name="dev.jsonl")
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page, watched = context.new_page(), Watched()
        context.on("request", lambda one: watched.requests.append(one.url))
        page.on("pageerror", lambda one: watched.faults.append(str(one)))
        page.on("console", lambda one: watched.faults.append(one.text))
        page.goto(path.as_uri())
        return page, watched

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("language", "dark", "width"), LOOKS)
def test_it_reads_well_and_asks_nobody_for_anything(
    opened: Open,
    picture: Callable[[Page, str], Path],
    language: Language,
    dark: bool,
    width: int,
) -> None:
    page, watched = opened(language, dark=dark, width=width)
    name = f"report-{language}-{'dark' if dark else 'light'}-{width}"
    picture(page, name)
    page.locator("#questions summary").first.click()
    page.locator("main > details > summary").click()
    page.locator(".plots").scroll_into_view_if_needed()
    picture(page, f"{name}-plots")
    require_clean(page, name)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert watched.requests == [page.url]
    assert watched.faults == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_plot_says_what_it_counts(opened: Open, language: Language, width: int) -> None:
    page, _ = opened(language, width=width)
    words = WORDS[language]
    plots = page.locator("svg.plot")
    assert plots.count() == 5
    for place, told in enumerate(
        [
            (words.retrieval, words.passages, words.recall),
            (words.risk, words.coverage, words.wrong),
            (words.calibration, words.confidence, words.right),
            (words.lengths, words.length, words.questions),
            (words.timings, "search", words.milliseconds),
        ]
    ):
        expect(page.get_by_role("img", name=told[0], exact=True)).to_have_count(1)
        for text in told[1:]:
            expect(plots.nth(place).locator("text", has_text=text).first).to_be_visible()
        assert overlaps(plots.nth(place)) == []
    small = page.locator("svg.plot text").evaluate_all(
        "all => Math.min(...all.map(one => one.getBBox().height * one.getScreenCTM().d || 99))"
    )
    assert small > 10.5


def overlaps(plot: object) -> list[str]:
    """Pairs of words that stand over each other, as the browser lays them out."""
    found: list[str] = plot.evaluate(  # type: ignore[attr-defined]
        """plot => {
          const all = [...plot.querySelectorAll("text")].filter(one => one.textContent);
          const box = one => one.getBoundingClientRect();
          const meet = (a, b) =>
            a.left < b.right - 1 && b.left < a.right - 1 &&
            a.top < b.bottom - 4 && b.top < a.bottom - 4;
          return all.flatMap((one, i) => all.slice(i + 1)
            .filter(other => meet(box(one), box(other)))
            .map(other => `${one.textContent} | ${other.textContent}`));
        }"""
    )
    return found


def test_a_row_of_a_table_is_no_tower_on_a_phone(opened: Open) -> None:
    page, _ = opened("zh", width=390)
    heights = page.locator("tbody tr").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert max(heights) < 120
    table = page.get_by_role("region", name=WORDS["zh"].metrics)
    table.focus()
    page.keyboard.press("ArrowRight")
    expect(table).to_be_focused()
    for _ in range(100):  # the page forbids the evaluation that waiting for a function needs
        if table.evaluate("one => one.scrollLeft"):
            return
        page.wait_for_timeout(50)
    pytest.fail("the table did not scroll")


def test_questions_are_searched_and_right_ones_left_out(opened: Open) -> None:
    page, watched = opened("en")
    shown = page.locator("#questions > details:visible")
    expect(shown).to_have_count(24)
    page.get_by_label(WORDS["en"].only_wrong).check()
    expect(shown).to_have_count(8)
    page.get_by_label(WORDS["en"].search).fill("  WARD 21,")
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("ward 21")
    page.get_by_label(WORDS["en"].search).fill("ward 22")
    expect(shown).to_have_count(0)
    page.get_by_label(WORDS["en"].only_wrong).uncheck()
    expect(shown).to_have_count(1)
    shown.locator("summary").click()
    expect(shown.get_by_text("half past seven").first).to_be_visible()
    assert watched.faults == []


def test_it_reads_without_a_script(browser: Browser, tmp_path: Path) -> None:
    evaluation = summed_up(Run({}, tuple(records("en"))))
    path = write_report(evaluation, tmp_path, language="en")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("#questions > details")).to_have_count(24)
    context.close()
