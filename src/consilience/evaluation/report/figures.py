"""The figures of the report: each a section of a few lines drawn from the records of a run."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from consilience.evaluation.calibration import BINS, reliability, risk_coverage
from consilience.evaluation.records import Record
from consilience.evaluation.report.markup import Markup, element, joined, scrolled
from consilience.evaluation.report.plots import Axis, bars, curve, interval, legend, round_up
from consilience.evaluation.report.words import Words
from consilience.evaluation.summary import LOWER_IS_BETTER, answered_places

if TYPE_CHECKING:
    from consilience.evaluation.running import Evaluation

DEEPEST = 20
_FEWEST = 10  # answers that make a point of calibration
_POINTS = 200  # drawn of a curve, however many answers there are
_EDGES = (0, 5, 10, 20, 40, 80, 160)


def metric_table(evaluation: "Evaluation", words: Words) -> Markup:
    """Every metric with its interval and what it means."""
    # The interval is told in numbers and drawn beside them.
    heads = {
        words.metric: 1,
        words.value: 1,
        words.interval.format(level=evaluation.level): 2,
        words.questions: 1,
        words.meaning: 1,
    }
    head = element(
        "tr", *(element("th", text, scope="col", colspan=n) for text, n in heads.items())
    )
    counts = evaluation.counts()
    rows = [_metric_row(name, evaluation, counts, words) for name in evaluation.metrics]
    table = element("table", element("thead", head), element("tbody", *rows))
    note = element("p", words.interval_note, class_="note")
    return _section(words.metrics, scrolled(table, words.metrics), note)


def _metric_row(
    name: str, evaluation: "Evaluation", counts: dict[str, int], words: Words
) -> Markup:
    value, span = evaluation.metrics[name], evaluation.intervals.get(name)
    lower = f" ({words.lower})" if name in LOWER_IS_BETTER else ""
    return element(
        "tr",
        element("th", name, scope="row"),
        element("td", f"{value:.3f}", class_="number"),
        element("td", f"{span.low:.3f} – {span.high:.3f}" if span else "", class_="number"),
        element("td", interval(value, span.low, span.high) if span else ""),
        element("td", str(counts.get(name, "")), class_="number"),
        element("td", words.means[name] + lower, class_="meaning"),
    )


def retrieval(records: Sequence[Record], words: Words) -> Markup:
    """Recall at every depth; nothing where no question says what is to be found."""
    points = recall_curve(records)
    if not points:
        return Markup()
    x = Axis(words.passages, 0, DEEPEST)
    plot = curve(words.retrieval, points, x, Axis(words.recall), dots=True)
    return _figure(words.retrieval, words.retrieval_note, plot)


def recall_curve(records: Sequence[Record]) -> list[tuple[float, float]]:
    """The mean recall at k = 1 … 20 over the questions that define it; empty if none does."""
    known = [one for one in records if one.gold_total]
    if not known:
        return []
    return [(k, sum(_recall(one, k) for one in known) / len(known)) for k in range(1, DEEPEST + 1)]


def _recall(record: Record, k: int) -> float:
    return sum(rank <= k for rank in record.gold_ranks) / record.gold_total


def risk(records: Sequence[Record], words: Words) -> Markup:
    """Risk over coverage; nothing where nothing was answered."""
    sure, right = _confidences(records)
    if not sure:
        return Markup()
    points = [(one.coverage, one.risk) for one in risk_coverage(sure, right)]
    plot = curve(words.risk, _thinned(points), Axis(words.coverage), Axis(words.wrong))
    return _figure(words.risk, words.risk_note, plot)


def calibration(records: Sequence[Record], words: Words) -> Markup:
    """The share right over confidence; nothing where nothing was answered."""
    sure, right = _confidences(records)
    if not sure:
        return Markup()
    bins = max(2, min(BINS, len(sure) // _FEWEST))
    points = [(one.confidence, one.correct) for one in reliability(sure, right, bins=bins)]
    x, y = Axis(words.confidence), Axis(words.right)
    plot = curve(words.calibration, points, x, y, dots=True, diagonal=True)
    return _figure(words.calibration, words.calibration_note, plot)


def lengths(records: Sequence[Record], words: Words) -> Markup:
    """How long answers are, beside how long right ones are; nothing where neither is known."""
    given = [len(one.answer) for one in records if one.answer]
    wanted = [min(map(len, one.answers)) for one in records if one.answers]
    if not given and not wanted:
        return Markup()
    counted = [_histogram(given), _histogram(wanted)]
    groups = list(zip(_bucket_names(), zip(*counted, strict=True), strict=True))
    y = Axis(words.questions, 0, round_up(max(map(max, counted))))
    plot = bars(words.lengths, groups, y, words.length)
    key = legend(words.answered, words.expected)
    return _figure(words.lengths, words.lengths_note, joined(plot, key))


def _histogram(values: Sequence[int]) -> list[float]:
    """How many values lie in each bucket, the last of which has no end."""
    ends = (*_EDGES[1:], None)
    return [
        float(sum(low < value and (high is None or value <= high) for value in values))
        for low, high in zip(_EDGES, ends, strict=True)
    ]


def _bucket_names() -> list[str]:
    inner = [f"{low + 1}–{high}" for low, high in pairwise(_EDGES)]
    return [*inner, f"> {_EDGES[-1]}"]


def timings(evaluation: "Evaluation", words: Words) -> Markup:
    """The median time of every stage."""
    found = evaluation.timings_ms()
    if not found:
        return Markup()
    top = round_up(max(found.values()))
    groups = [(stage, (time,)) for stage, time in found.items()]
    plot = bars(words.timings, groups, Axis(words.milliseconds, 0, top), "")
    return _figure(words.timings, "", plot)


def _confidences(records: Sequence[Record]) -> tuple[list[float], list[bool]]:
    answered = [records[place] for place in answered_places(records)]
    return [one.confidence for one in answered], [one.correct for one in answered]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points that the eye sees no difference, with the first and the last."""
    step = max(1, len(points) // _POINTS)
    return [*points[:-1:step], points[-1]]


def _figure(heading: str, note: str, plot: Markup) -> Markup:
    return element(
        "figure",
        element("h2", heading),
        plot,
        element("figcaption", note, class_="note"),
    )


def _section(heading: str, *content: Markup) -> Markup:
    return element("section", element("h2", heading), *content)
