import html
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.evaluation import METRICS, Run, summed_up, write_report
from consilience.evaluation.records import Reading
from consilience.evaluation.report.browser import MOST_SHOWN, worst_first
from consilience.evaluation.report.figures import calibration, recall_curve
from consilience.evaluation.report.markup import element, joined
from consilience.evaluation.report.page import rendered
from consilience.evaluation.report.plots import Axis, bars, curve, round_up
from consilience.evaluation.report.words import CHINESE, ENGLISH
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


@settings(deadline=None)
@given(st.text(), st.text())
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
