"""Two runs over the same questions: how far they lie apart, whether by chance, and where.

Questions are matched by id and must be the same questions. Every metric is taken over exactly the
questions that both runs have, so a figure here can differ from that of a whole run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consilience.errors import UsageError
from consilience.evaluation.records import Record
from consilience.evaluation.resampling import Difference, Resampling, differences
from consilience.evaluation.running import Evaluation
from consilience.evaluation.runs import Run, read_run
from consilience.evaluation.summary import METRICS, statistics_of

Comparable = Run | Evaluation | str | Path
"""A run, what was made of it, or the file that holds it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A question that the two runs answer with different success.

    Attributes:
        id: The question's.
        question: What was asked.
        answers: What would be right.
        a: What the first run answered.
        b: What the second answered.
        f1_a: How good that is.
        f1_b: Likewise.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    a: str
    b: str
    f1_a: float
    f1_b: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What lies between two runs.

    Attributes:
        n: Questions that both have.
        only_a: Questions that only the first has.
        only_b: Questions that only the second has.
        differences: Every metric that both define, in the order of `METRICS`.
        changed: Questions whose F1 differs, the greatest change first.
        level: The share of resamples that an interval holds.
    """

    n: int
    only_a: int
    only_b: int
    differences: Mapping[str, Difference]
    changed: tuple[Change, ...]
    level: float = Resampling().level

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found = asdict(self)
        for one in found["differences"].values():
            one["interval"] = one["interval"] and list(one["interval"].values())
        return found


def compare(a: Comparable, b: Comparable, how: Resampling | None = None) -> Comparison:
    """Compare two runs, question by question.

    Differences are second minus first. Both tests are two-sided, and neither makes up for looking
    at many metrics at once.

    Args:
        a: The first run, or its file.
        b: The second.
        how: How resampling is done; None for the defaults.

    Raises:
        UsageError: The runs have no question in common, or one that is not the same in both.
        MissingError: There is no such file.
        DamagedError: A file is no run.
    """
    left, right = ({one.id: one for one in _records(each)} for each in (a, b))
    shared = [name for name in left if name in right]
    _require_same_questions(left, right, shared)
    pairs = [(left[name], right[name]) for name in shared]
    both = [one for one, _ in pairs] + [other for _, other in pairs]
    how = how or Resampling()
    found = differences(statistics_of(both), len(shared), how)
    return Comparison(
        n=len(shared),
        only_a=len(left) - len(shared),
        only_b=len(right) - len(shared),
        differences={name: found[name] for name in METRICS if name in found},
        changed=_changed(pairs),
        level=how.level,
    )


def _records(run: Comparable) -> Sequence[Record]:
    return (read_run(run) if isinstance(run, str | Path) else run).records


def _require_same_questions(
    left: Mapping[str, Record], right: Mapping[str, Record], shared: Sequence[str]
) -> None:
    if not shared:
        raise UsageError(
            "the runs have no question in common", hint="compare runs over the same questions"
        )
    for name in shared:
        one, other = left[name], right[name]
        if (one.question, one.answers, one.label) != (other.question, other.answers, other.label):
            raise UsageError(
                f"question {name} is not the same in both runs: "
                f"{one.question[:80]!r} and {other.question[:80]!r}",
                hint="compare runs over the same questions",
            )


def _changed(pairs: Sequence[tuple[Record, Record]]) -> tuple[Change, ...]:
    found = [
        Change(
            id=one.id,
            question=one.question,
            answers=one.answers,
            a=one.answer,
            b=other.answer,
            f1_a=one.values["f1"],
            f1_b=other.values["f1"],
        )
        for one, other in pairs
        if "f1" in one.values and one.values["f1"] != other.values["f1"]
    ]
    return tuple(sorted(found, key=lambda each: -abs(each.f1_b - each.f1_a)))
