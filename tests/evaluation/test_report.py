import html
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.evaluation import METRICS, Run, summed_up, write_report
from consilience.evaluation.records import Reading
from consilience.evaluation.report.browser import LONGEST_TEXT, MOST_SHOWN, browser, worst_first
from consilience.evaluation.report.figures import (
    calibration,
    lengths,
    metric_table,
    recall_curve,
    retrieval,
    risk,
    timings,
)
from consilience.evaluation.report.markup import element, joined
from consilience.evaluation.report.page import rendered
from consilience.evaluation.report.plots import (
    HEIGHT,
    Axis,
    bars,
    curve,
    interval,
    legend,
    round_up,
)
from consilience.evaluation.report.words import CHINESE, ENGLISH
from consilience.evaluation.summary import LOWER_IS_BETTER
from tests.evaluation.made import record

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\x1b\x00"
RECORDS = tuple(
    record(f"q{i}", {"exact_match": float(i % 2), "f1": i / 10}, confidence=i / 10)
    for i in range(10)
)


def evaluation(*records: object) -> object:
    return summed_up(Run({"data": "d"}, records or RECORDS))  # type: ignore[arg-type]


class Outline(HTMLParser):
    """Tags, attributes and text of a page; fails where one tag is closed by another."""

    EMPTY = frozenset({"meta", "input", "!doctype"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class _Tree(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.builder = ET.TreeBuilder()
        self.feed(page)
        self.root = self.builder.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in Outline.EMPTY:
            self.builder.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        self.builder.data(data)


def tree(page: str) -> ET.Element:
    """A page, or a part of one with a single root."""
    return _Tree(page).root


def texts(found: ET.Element, path: str) -> list[str]:
    return ["".join(one.itertext()).strip() for one in found.iterfind(path)]


def test_the_page_is_well_formed_and_whole(tmp_path: Path) -> None:
    path = write_report(evaluation(), tmp_path / "deep" / "report", name="dev.jsonl")  # type: ignore[arg-type]
    assert path == tmp_path / "deep" / "report" / "index.html"
    page = Outline(path.read_text("utf-8"))
    assert page.open == []
    assert "Evaluation · dev.jsonl" in page.text
    assert "10 questions · 10 answered · 5 exactly right" in page.text
    for heading in ("Metrics", "Retrieval", "Risk and coverage", "Calibration", "Lengths"):
        assert heading in page.text
    assert page.tags.count("details") == 10 + 1
    assert page.tags.count("figure") == 5


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_fetched(language: str) -> None:
    page = rendered(evaluation(), language=language)  # type: ignore[arg-type]
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bsrc=", page)
    assert not {"link", "img", "iframe", "object", "embed"} & set(Outline(page).tags)


def test_the_page_reads_without_its_script() -> None:
    page = Outline(rendered(evaluation(), language="en"))  # type: ignore[arg-type]
    assert page.tags.count("script") == 1
    assert ("hidden", "hidden") in page.attributes  # only the filters, which need it
    assert [value for name, value in page.attributes if name == "hidden"] == ["hidden"]


def test_the_policy_allows_the_script_of_the_page_and_no_other() -> None:
    import base64
    import hashlib

    page = rendered(evaluation(), language="en")  # type: ignore[arg-type]
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)
    assert "default-src 'none'" in html.unescape(page)


def test_documents_cannot_write_markup() -> None:
    reading = Reading(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.5, True, HOSTILE)
    one = record(
        *(HOSTILE, {"exact_match": 0.0, "f1": 0.0}),
        question=HOSTILE,
        answers=(HOSTILE,),
        answer=HOSTILE,
        readings=(reading,),
        timings_ms={HOSTILE: 1.0},
    )
    found = summed_up(Run({HOSTILE: HOSTILE}, (one,)))
    page = Outline(rendered(found, language="en", name=HOSTILE))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert not {"\x1b", "\x00"} & set(page.text)


# What means something in a page comes up in every other text; among all letters it never would.
ANY = st.text() | st.text(alphabet="<>&\"'ap;/= 中")


@settings(deadline=None)
@given(ANY, ANY)
def test_text_comes_out_of_the_page_as_it_went_in(text: str, value: str) -> None:
    parsed = Outline(f"<!doctype html>{element('p', text, title=value)}")
    assert parsed.tags == ["p"]
    if all(c.isprintable() or c in "\t\n" for c in text + value):
        assert parsed.text == text
        assert parsed.attributes == [("title", value)]


def test_half_a_character_does_not_stop_the_report(tmp_path: Path) -> None:
    found = evaluation(record("a", {"f1": 0.0}, question="\ud83d?"))
    assert write_report(found, tmp_path).stat().st_size > 1000  # type: ignore[arg-type]


def test_the_worst_and_surest_come_first() -> None:
    records = [
        record("good", {"f1": 1.0}, confidence=1.0),
        record("unsure", {"f1": 0.0}, confidence=0.1),
        record("sure", {"f1": 0.0}, confidence=0.9),
    ]
    assert [one.id for one in worst_first(records)] == ["sure", "unsure", "good"]


def test_a_large_run_shows_its_worst() -> None:
    many = [record(f"q{i}", {"f1": 1.0}) for i in range(MOST_SHOWN + 5)]
    page = rendered(evaluation(*many), language="en")  # type: ignore[arg-type]
    assert f"{MOST_SHOWN} of {MOST_SHOWN + 5} questions" in page
    assert Outline(page).tags.count("details") == MOST_SHOWN + 1


def test_what_is_not_known_is_not_drawn() -> None:
    bare = record("a", {}, gold_total=0, answers=(), answer="", abstained=True, timings_ms={})
    page = Outline(rendered(evaluation(bare), language="en"))  # type: ignore[arg-type]
    assert "figure" not in page.tags


def test_an_abstention_is_said() -> None:
    one = record(
        *("a", {"exact_match": 1.0, "f1": 1.0}),
        answer="",
        abstained=True,
        answers=(),
        unanswerable=True,
        readings=(),
    )
    text = Outline(rendered(evaluation(one), language="zh")).text  # type: ignore[arg-type]
    for sentence in (CHINESE.withheld, CHINESE.no_answer, CHINESE.nothing):
        assert sentence in text


def test_the_best_of_a_large_run_are_left_out() -> None:
    many = [record(f"q{i}", {"f1": float(i < 5)}) for i in range(MOST_SHOWN + 5)]
    asked = texts(tree(browser(many, ENGLISH)), ".//bdi[@class='question']")
    assert asked == [one.question for one in many[5:]]


def test_a_question_is_shown_with_what_was_answered_and_read() -> None:
    readings = (
        Reading("p1", "a.md", "A title", "Text of a.", 0.75, True, ""),
        Reading("p2", "b.md", "", "x" * LONGEST_TEXT, None, False, "answer"),
        Reading("p3", "c.md", "C", "y" * LONGEST_TEXT + "z", 0.25, False, ""),
    )
    right = record(
        *("q1", {"exact_match": 1.0, "f1": 1.0}),
        answers=("one", "two"),
        answer="one",
        confidence=0.875,
        readings=readings,
    )
    wrong = record("q2", {"exact_match": 0.0, "f1": 0.25}, answers=("three",), answer="four")
    shown = tree(browser([right, wrong], ENGLISH))
    first, second = shown.iterfind(".//details")  # the worst is first
    assert (first.get("class"), second.get("class")) == ("incorrect", "correct")
    assert texts(first, "summary/span[@class='wrong']") == ["✗"]
    assert texts(second, "summary/span[@class='right']") == ["✓"]
    assert texts(first, "summary/span[@class='number']") == ["F1 0.25"]
    facts = dict(zip(texts(second, "dl/dt"), texts(second, "dl/dd"), strict=True))
    assert facts == {"Answer": "one", "Right": "one · two", "confidence": "0.88", "id": "q1"}
    read = list(second.iterfind("ol/li"))
    assert [texts(one, "span[@class='tag']") for one in read] == [["cited"], ["gold"], []]
    assert texts(second, "ol/li/bdi") == ["a.md · A title", "b.md", "c.md · C"]
    assert [one.get("value") for one in second.iter("meter")] == ["0.7500", "0.0000", "0.2500"]
    assert texts(second, "ol/li/span[@class='share']/meter") == ["75%", "0%", "25%"]
    assert texts(second, "ol/li/p") == ["Text of a.", "x" * LONGEST_TEXT, f"{'y' * LONGEST_TEXT} …"]


def test_a_metric_stands_with_its_interval_in_numbers_and_drawn() -> None:
    records = [
        record(
            *(f"q{i}", {"exact_match": float(i % 3 > 0), "f1": i / 30}),
            **{"confidence": (i % 7) / 7, "gold_total": 0},
        )
        for i in range(30)
    ]
    records.append(record("none", {"exact_match": 0.0}))
    found = summed_up(Run({}, tuple(records)))
    rows = {
        row.findtext("th"): row
        for row in tree(metric_table(found, ENGLISH)).iterfind(".//tbody/tr")
    }
    assert list(rows) == list(found.metrics)
    assert len(LOWER_IS_BETTER & rows.keys()) >= 2
    for name, row in rows.items():
        span = found.intervals[name]
        value, interval_, _, count, meaning = texts(row, "td")
        assert value == f"{found.metrics[name]:.3f}"
        assert interval_ == f"{span.low:.3f} – {span.high:.3f}"
        assert meaning.endswith("(lower is better)") == (name in LOWER_IS_BETTER)
        assert count == str(found.counts().get(name, ""))
        assert "".join(row.itertext()).startswith(name)
        drawn = row.find("td/svg")
        assert drawn is not None
        assert ET.tostring(drawn) == ET.tostring(
            tree(interval(found.metrics[name], span.low, span.high))
        )
    assert [rows[name].findtext("td[4]") for name in ("exact_match", "f1")] == ["31", "30"]


ANSWERED = [
    record("a", {"exact_match": 1.0}, confidence=0.9, answer="x" * 5),
    record("b", {"exact_match": 0.0}, confidence=0.6, answer="x" * 6),
    record("c", {"exact_match": 1.0}, confidence=0.4, answer="x" * 161),
    record("d", {"exact_match": 0.0}, confidence=0.2, answers=("y" * 30, "y" * 20)),
    record("withheld", {"exact_match": 1.0}, confidence=0.95, answer="", abstained=True),
]


def test_the_risk_of_the_surest_answers_by_hand() -> None:
    expected = [(0.25, 0.0), (0.5, 0.5), (0.75, 1 / 3), (1.0, 0.5)]
    axes = Axis("share answered"), Axis("share wrong")
    assert curve("Risk and coverage", expected, *axes) in risk(ANSWERED, ENGLISH)


def test_a_curve_of_many_answers_is_drawn_to_its_end() -> None:
    many = [record(str(i), {"exact_match": float(i % 2)}, confidence=i / 999) for i in range(999)]
    (line,) = tree(risk(many, ENGLISH)).iterfind(".//polyline")
    drawn = line.get("points", "").split()
    assert len(drawn) < 300
    (whole,) = shapes(curve("", [(1.0, 499 / 999 + 1 / 999)], Axis(""), Axis("")), "polyline")
    assert drawn[-1] == whole["points"]


def test_calibration_by_hand() -> None:
    expected = [(0.3, 0.5), (0.75, 0.5)]
    axes = Axis("confidence"), Axis("share right")
    drawn = curve("Calibration", expected, *axes, dots=True, diagonal=True)
    assert drawn in calibration(ANSWERED, ENGLISH)


def test_lengths_by_hand() -> None:
    figure = lengths(ANSWERED, ENGLISH)
    given, wanted = (1, 2, 0, 0, 0, 0, 1), (4, 0, 1, 0, 0, 0, 0)
    names = ("1–5", "6–10", "11–20", "21–40", "41–80", "81–160", "> 160")
    groups = list(zip(names, zip(given, wanted, strict=True), strict=True))
    assert bars("Lengths", groups, Axis("Questions", 0, 4), "characters") in figure
    assert legend("given", "right") in figure


def test_recall_is_drawn_over_twenty_places() -> None:
    points = recall_curve(RECORDS)
    axes = Axis("passages k", 0, 20), Axis("recall")
    assert curve("Retrieval", points, *axes, dots=True) in retrieval(RECORDS, ENGLISH)


def test_the_median_of_every_stage_is_drawn() -> None:
    times = ({"read": 2.0, "write": 30.0}, {"read": 4.0, "write": 10.0}, {"read": 9.0})
    records = [record(str(i), {}, timings_ms=each) for i, each in enumerate(times)]
    groups = [("read", (4.0,)), ("write", (20.0,))]
    drawn = bars("Median time", groups, Axis("milliseconds", 0, 20), "")
    assert drawn in timings(evaluation(*records), ENGLISH)  # type: ignore[arg-type]


@pytest.mark.parametrize(("language", "tag"), [("en", "en"), ("zh", "zh-Hans")])
def test_the_page_says_its_language_and_what_was_run(language: str, tag: str) -> None:
    withheld = record("none", {"exact_match": 0.0}, answer="", abstained=True)
    found = summed_up(Run({"data": "d", "k": [1]}, (*RECORDS, withheld)))
    page = tree(rendered(found, language=language).partition("\n")[2])  # type: ignore[arg-type]
    assert page.get("lang") == tag
    assert texts(page, ".//pre") == ['{\n  "data": "d",\n  "k": [\n    1\n  ]\n}']
    words = {"en": ENGLISH, "zh": CHINESE}[language]
    assert texts(page, ".//p[@class='summary']") == [
        words.summary.format(n=11, answered=10, right=5)
    ]


def test_the_policy_lets_nothing_else_in() -> None:
    page = tree(rendered(evaluation(), language="en").partition("\n")[2])  # type: ignore[arg-type]
    (policy,) = page.iterfind("head/meta[@http-equiv]")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.get("content", "").split(";"))
    assert rules.pop("script-src").startswith("'sha256-")
    assert rules == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_few_answers_make_few_points_of_calibration() -> None:
    records = [record(str(i), {"exact_match": 1.0}, confidence=i / 60) for i in range(60)]
    figures = [calibration(records[:count], ENGLISH) for count in (5, 60)]
    assert [figure.count("<circle") for figure in figures] == [2, 6]


def test_the_recall_curve_by_hand() -> None:
    records = [
        record("a", {}, gold_ranks=(1, 4), gold_total=2),
        record("b", {}, gold_ranks=(), gold_total=1),
        record("c", {}, gold_ranks=(), gold_total=0),
    ]
    points = dict(recall_curve(records))
    assert (points[1], points[3], points[4], points[20]) == (0.25, 0.25, 0.5, 0.5)
    assert recall_curve(records[2:]) == []


def shapes(drawn: str, tag: str) -> list[dict[str, str]]:
    return [one.attrib for one in ET.fromstring(drawn).iter(tag)]


def test_a_curve_is_drawn_where_its_points_are() -> None:
    drawn = curve("t", [(0, 0), (1, 1), (0.5, 0.5)], Axis("x"), Axis("y"), dots=True)
    (line,) = shapes(drawn, "polyline")
    (left, floor), (right, top), middle = (
        tuple(map(float, place.split(","))) for place in line["points"].split()
    )
    assert left < right
    assert floor > top  # up is less
    assert middle == pytest.approx(((left + right) / 2, (floor + top) / 2), abs=0.1)
    assert len(shapes(drawn, "circle")) == 3
    assert ET.fromstring(drawn).findtext("title") == "t"


def test_bars_are_as_high_as_their_values() -> None:
    drawn = bars("t", [("a", (1.0, 2.0)), ("b", (0.0, 4.0))], Axis("y", 0, 4), "x")
    heights = [float(one["height"]) for one in shapes(drawn, "rect")]
    assert heights == pytest.approx([heights[3] / 4, heights[3] / 2, 0, heights[3]], abs=0.02)


def test_what_lies_outside_of_an_axis_is_drawn_at_its_end() -> None:
    assert [Axis("", 2, 4).share(value) for value in (1, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 1]


def test_bars_stand_side_by_side_on_the_floor() -> None:
    drawn = bars("t", [("a", (1.0, 2.0)), ("b", (3.0, 4.0))], Axis("y", 0, 4), "x")
    found = [
        {name: float(one[name]) for name in ("x", "y", "width", "height")}
        for one in shapes(drawn, "rect")
    ]
    for left, right in pairwise(found):
        assert left["x"] + left["width"] <= right["x"] + 0.02
    assert {round(one["y"] + one["height"]) for one in found} == {HEIGHT - 48}
    assert [one["class"] for one in shapes(drawn, "rect")] == ["bar bar0", "bar bar1"] * 2
    assert re.findall(r"swatch (bar\d)\"></span><span>(\w+)", legend("first", "second")) == [
        ("bar0", "first"),
        ("bar1", "second"),
    ]


def test_an_interval_is_drawn_around_its_value() -> None:
    drawn = interval(0.5, 0.25, 1.0)
    _, whisker = shapes(drawn, "line")
    (dot,) = shapes(drawn, "circle")
    ends = (float(whisker["x1"]), float(dot["cx"]), float(whisker["x2"]))
    assert ends == pytest.approx((32, 60, 116))


def test_the_diagonal_rises_and_ticks_stand_at_their_values() -> None:
    drawn = curve("t", [(0, 0), (1, 1)], Axis("x"), Axis("y", 0, 8), diagonal=True)
    (guide,) = [one for one in shapes(drawn, "line") if one["class"] == "guide"]
    (line,) = shapes(drawn, "polyline")
    start = tuple(map(float, line["points"].split()[0].split(",")))
    assert (float(guide["x1"]), float(guide["y1"])) == start
    assert float(guide["x2"]) > float(guide["x1"])
    assert float(guide["y2"]) < float(guide["y1"])
    told = [(one.text, one.attrib) for one in ET.fromstring(drawn).iter("text")]
    upward = [(text, float(at["y"])) for text, at in told if at["text-anchor"] == "end"]
    assert [text for text, _ in upward] == ["0", "2", "4", "6", "8"]
    assert [y for _, y in upward] == sorted((y for _, y in upward), reverse=True)
    assert upward[0][1] == pytest.approx(start[1] + 4)
    across = [(text, float(at["x"])) for text, at in told if text in ("0.25", "0.5", "0.75")]
    assert [x for _, x in across] == sorted(x for _, x in across)
    below = {float(at["y"]) for text, at in told if text in ("0.25", "0.5", "0.75")}
    assert below == {start[1] + 15}


@pytest.mark.parametrize(
    ("value", "top"), [(3, 4), (4, 4), (5, 8), (17, 20), (100, 200), (0.3, 0.4), (79, 80)]
)
def test_axes_end_on_round_numbers(value: float, top: float) -> None:
    assert round_up(value) == pytest.approx(top)


def test_every_metric_is_explained_in_both_languages() -> None:
    assert set(ENGLISH.means) == set(CHINESE.means) == set(METRICS)


def test_both_languages_fill_in_the_same_placeholders() -> None:
    for name in ENGLISH.__slots__:
        english, chinese = getattr(ENGLISH, name), getattr(CHINESE, name)
        if isinstance(english, str):
            placeholders = [set(re.findall(r"{(\w+)", text)) for text in (english, chinese)]
            assert placeholders[0] == placeholders[1], name
            assert english != chinese, name


def test_markup_is_kept_and_text_is_not() -> None:
    inner = element("b", "<")
    assert joined(inner, "<") == "<b>&lt;</b>&lt;"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match=r"x is a file; a report needs a folder"):
        write_report(evaluation(), tmp_path / "x")  # type: ignore[arg-type]
