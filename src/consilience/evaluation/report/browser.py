"""The questions of a report one by one: what was asked, answered and read, the worst answers first.

Opens and closes without a script. All text comes from documents and models and is only ever text.
"""

from collections.abc import Sequence

from consilience.evaluation.records import Reading, Record
from consilience.evaluation.report.markup import Markup, element, joined
from consilience.evaluation.report.words import Words

MOST_SHOWN = 500
"""Questions in a report; of a larger run the worst."""

LONGEST_TEXT = 800
"""Characters of a passage that are shown."""


def browser(records: Sequence[Record], words: Words) -> Markup:
    """The section of all questions."""
    shown = worst_first(records)[:MOST_SHOWN]
    note = words.browser_note.format(shown=len(shown), n=len(records))
    return element(
        "section",
        element("h2", words.browser),
        element("p", note, class_="note"),
        _filters(words),
        element("div", *(_question(one, words) for one in shown), id="questions"),
    )


def worst_first(records: Sequence[Record]) -> list[Record]:
    """Records by F1, and of equal F1 the most confident first: these mislead the most."""
    return sorted(records, key=lambda one: (one.values.get("f1", 0.0), -one.confidence))


def _filters(words: Words) -> Markup:
    """What the script makes work; hidden until it does."""
    return element(
        "p",
        element("label", f"{words.search} ", element("input", type="search", id="search")),
        element("label", element("input", type="checkbox", id="wrong"), f" {words.only_wrong}"),
        id="filters",
        hidden="hidden",
    )


def _question(record: Record, words: Words) -> Markup:
    mark = "✓" if record.correct else "✗"
    heading = element(
        "summary",
        element("span", mark, class_="right" if record.correct else "wrong"),
        element("bdi", record.question, class_="question"),
        element("span", _f1(record), class_="number"),
    )
    return element(
        "details",
        heading,
        element("dl", *_facts(record, words)),
        _passages(record, words),
        class_="correct" if record.correct else "incorrect",
    )


def _f1(record: Record) -> str:
    return f"F1 {record.values['f1']:.2f}" if "f1" in record.values else ""


def _facts(record: Record, words: Words) -> list[Markup]:
    gold = " · ".join(record.answers) or (words.no_answer if record.unanswerable else "–")
    facts = {
        words.answer: words.withheld if record.abstained else record.answer,
        words.gold: gold,
        words.confidence: f"{record.confidence:.2f}",
        "id": record.id,
    }
    return [joined(element("dt", k), element("dd", element("bdi", v))) for k, v in facts.items()]


def _passages(record: Record, words: Words) -> Markup:
    if not record.readings:
        return element("p", words.nothing, class_="note")
    heading = element("h3", words.read)
    return joined(heading, element("ol", *(_passage(one, words) for one in record.readings)))


def _passage(reading: Reading, words: Words) -> Markup:
    share = reading.posterior or 0.0
    meter = element(
        "meter", f"{share:.0%}", value=f"{share:.4f}", min="0", max="1", aria_label=words.share
    )
    tags = [words.cited] * reading.cited + [words.holds] * bool(reading.gold)
    place = " · ".join(filter(None, (reading.source, reading.title)))
    return element(
        "li",
        element("span", f"{words.share} ", meter, f" {share:.0%} ", class_="share"),
        element("bdi", place, class_="place"),
        *(element("span", tag, class_="tag") for tag in tags),
        element("p", element("bdi", _cut(reading.text)), class_="text"),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
