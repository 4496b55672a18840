"""What is kept of one question of an evaluation: what was asked, answered and read, and how well.

Plain frozen data with a JSON form, one line of a run file each. A record holds all that any figure
over many questions needs, so that a run can be summed up, compared and drawn without its model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from consilience.evaluation.overlap import BleuCounts


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage that was read for an answer.

    Attributes:
        id: The passage's.
        source: Where it comes from.
        title: Of its document.
        text: As the reader had it.
        posterior: p(d | x, y), its share of the answer; None if it had none.
        cited: Whether the answer cites it.
        gold: The gold thing that it is or holds; empty for none.
    """

    id: str
    source: str
    title: str
    text: str
    posterior: float | None
    cited: bool
    gold: str


@dataclass(frozen=True, slots=True)
class Record:
    """One question, its answer and its measures.

    Attributes:
        id: Unlike that of any other question of the run.
        question: As it was asked.
        answers: What would be right.
        label: The right class, where the question has one.
        language: `zh`, `en` or empty.
        unanswerable: Whether it is known that there is no answer.
        answer: What was answered; empty when nothing was.
        abstained: Whether an answer was withheld.
        confidence: From 0 to 1.
        readings: The passages that were read, the best proposed first.
        gold_ranks: Places of the ranking, from 1, where something gold stands for the first time.
        gold_total: How many gold things there are; 0 where nothing is known of the ranking.
        values: The measures of this question by name; those that it does not define are left out.
        bleu: What it adds to BLEU; None where that is not measured.
        timings_ms: Milliseconds by stage.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    label: str
    language: str
    unanswerable: bool
    answer: str
    abstained: bool
    confidence: float
    readings: tuple[Reading, ...]
    gold_ranks: tuple[int, ...]
    gold_total: int
    values: Mapping[str, float]
    bleu: BleuCounts | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether the answer is exactly right."""
        return self.values.get("exact_match", 0.0) == 1.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self:
        """The record of a JSON form; raises KeyError, TypeError or ValueError if it is none."""
        bleu = line["bleu"]
        return cls(
            **{name: line[name] for name in _AS_THEY_ARE},
            confidence=float(line["confidence"]),
            answers=tuple(line["answers"]),
            readings=tuple(Reading(**one) for one in line["readings"]),
            gold_ranks=tuple(line["gold_ranks"]),
            values={str(name): float(value) for name, value in line["values"].items()},
            bleu=None if bleu is None else _counts(**bleu),
            timings_ms=dict(line["timings_ms"]),
        )


_AS_THEY_ARE = (
    *("id", "question", "label", "language", "unanswerable"),
    *("answer", "abstained", "gold_total"),
)


def _counts(
    matched: list[int], written: list[int], length: int, reference_length: int
) -> BleuCounts:
    return BleuCounts(tuple(matched), tuple(written), length, reference_length)
