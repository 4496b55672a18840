"""How well and how fast the shipped model answers the questions of the example corpus.

Each organisation has a store of its own, as it would in life. Reported by language: EM and F1 of
answerable questions, recall of the right document among the passages, how well the confidence tells
answerable questions from others and right answers from wrong ones (AUROC), how far it is from the
share of right ones (calibration error), what abstaining at the model's threshold does, and the time
of a warm `ask`. `--calibrate` chooses the settings on the train questions.

    python benchmarks/answers.py --out docs/benchmarks/answers.md
"""

import argparse
import json
import math
import platform
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consilience import Rag, Store
from consilience.evaluation import exact_match, f1
from consilience.evaluation.calibration import auroc as told_apart
from consilience.evaluation.calibration import expected_calibration_error
from consilience.evaluation.fitting import Judged, fit_confidence, fit_threshold
from consilience.model import Answer, AskOptions, Settings, Turn
from consilience.text import language_of

EXAMPLES = Path(__file__).parent.parent / "examples" / "three_organisations"
ORGANISATIONS = ("hospital", "bank", "university")
WHOLE = {"questions": 0, "p50 ms": 0, "p95 ms": 0}
"""Digits after the point where there are none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and what became of it."""

    question: dict[str, Any]
    answer: Answer
    sources: tuple[str, ...]

    @property
    def answerable(self) -> bool:
        """Whether a document holds the answer."""
        return bool(self.question["answers"])

    def score(self, measure: Any) -> float:
        """EM or F1 of the answer."""
        answers, language = self.question["answers"], self.question["language"]
        return float(measure(self.answer.text, answers, language=language))

    @property
    def right(self) -> bool:
        """Whether the answer is exactly right."""
        return self.answerable and self.score(exact_match) == 1.0

    @property
    def judged(self) -> Judged:
        """What a confidence is fitted on."""
        return Judged.of(self.answer, right=self.right)

    def sure(self, settings: Settings) -> float:
        """The confidence under some settings."""
        one = self.judged
        return settings.confidence.of(one.support, one.log_likelihood, one.tokens)


def questions(organisation: str, splits: Sequence[str]) -> list[dict[str, Any]]:
    """The questions of an organisation."""
    return [
        json.loads(line)
        for split in splits
        for line in (EXAMPLES / organisation / "questions" / f"{split}.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]


def ask_all(rag: Rag, splits: Sequence[str], options: dict[str, Any]) -> list[Asked]:
    """Ask every question of every organisation, without abstaining."""
    found = []
    for organisation in ORGANISATIONS:
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(folder, encoder=rag.encoder)
            store.add(EXAMPLES / organisation / "documents")
            rag.ask("warm up", store)
            found += [ask_one(rag, store, one, options) for one in questions(organisation, splits)]
            store.close()
    return found


def ask_one(rag: Rag, store: Store, question: dict[str, Any], options: dict[str, Any]) -> Asked:
    """Ask one question with its history."""
    history = tuple(Turn(t["question"], t["answer"]) for t in question.get("history") or ())
    how = AskOptions(history=history, abstain=False, **options)
    answer = rag.ask(question["question"], store, how)
    sources = tuple({store.passage(name).source for name in answer.posterior})
    return Asked(question, answer, sources)


def mean(values: Iterable[float]) -> float:
    """The mean, NaN of nothing."""
    kept = list(values)
    return sum(kept) / len(kept) if kept else float("nan")


def summary(asked: Sequence[Asked], settings: Settings) -> dict[str, float]:
    """All figures of a set of questions."""

    def supported(one: Asked) -> bool:
        return one.answer.support >= settings.threshold_for(language_of(one.answer.question))

    answerable = [one for one in asked if one.answerable]
    others = [one for one in asked if not one.answerable]
    times = [one.answer.timings_ms["total"] for one in asked]
    sure, right = [one.sure(settings) for one in asked], [one.right for one in asked]
    return {
        "questions": len(asked),
        "EM": 100 * mean(one.score(exact_match) for one in answerable),
        "F1": 100 * mean(one.score(f1) for one in answerable),
        "document among passages": 100 * mean(found_source(one) for one in answerable),
        "AUROC of support": told_apart(
            [one.answer.support for one in asked], [one.answerable for one in asked]
        ),
        "AUROC of confidence": told_apart(sure, [one.answerable for one in asked]),
        "AUROC, right": told_apart(sure, right),
        "calibration error": 100 * expected_calibration_error(sure, right),
        "answered": 100 * mean(supported(one) for one in answerable),
        "abstained rightly": 100 * mean(not supported(one) for one in others),
        "p50 ms": statistics.median(times),
        "p95 ms": sorted(times)[int(0.95 * (len(times) - 1))],
    }


def found_source(one: Asked) -> float:
    """Whether the right document was among the passages."""
    return float(any(source.endswith(one.question["source"]) for source in one.sources))


def calibrate(rag: Rag, temperatures: Sequence[float], options: dict[str, Any]) -> None:
    """Print, for each temperature of the prior, what the train questions would get."""
    for temperature in temperatures:
        rag.model.log_temperature.data.fill_(math.log(temperature))
        asked = ask_all(rag, ["train"], options)
        thresholds = {
            language: fit_threshold(
                [one.answer.support for one in spoken if one.answerable],
                [one.answer.support for one in spoken if not one.answerable],
            )
            for language, spoken in by_language(asked).items()
        }
        confidence = fit_confidence([one.judged for one in asked])
        settings = replace(rag.settings, support_thresholds=thresholds, confidence=confidence)
        chosen = {"thresholds": thresholds, "confidence": confidence.to_settings()}
        found = {k: round(v, 3) for k, v in summary(asked, settings).items()}
        print(json.dumps({"temperature": temperature, **chosen, **found}))


def by_language(asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    """Questions in Chinese and in English, as a search takes them."""
    return {
        language: [one for one in asked if language_of(one.answer.question) == language]
        for language in ("zh", "en")
    }


def groups(asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    """All questions, by language, and the follow-ups."""
    return {
        "all": list(asked),
        "English": [one for one in asked if one.question["language"] == "en"],
        "Chinese": [one for one in asked if one.question["language"] == "zh"],
        "follow-ups": [one for one in asked if one.question.get("history")],
    }


def table(asked: Sequence[Asked], settings: Settings) -> str:
    """The figures as a Markdown table, a column for each group."""
    columns = {name: summary(group, settings) for name, group in groups(asked).items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for key in next(iter(columns.values())):
        digits = 2 if key.startswith("AUROC") else WHOLE.get(key, 1)
        cells = [f"{column[key]:.{digits}f}" for column in columns.values()]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--splits", nargs="+", default=["dev", "test"])
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--beams", type=int, default=AskOptions().beams)
    parser.add_argument("--fusion", default="sequence")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--each", action="store_true", help="print every question and answer")
    parser.add_argument("--calibrate", nargs="+", type=float, metavar="TEMPERATURE")
    args = parser.parse_args()
    rag = Rag.load(args.model)
    options = {"k": args.k, "beams": args.beams, "fusion": args.fusion}
    if args.calibrate:
        calibrate(rag, args.calibrate, options)
        return
    asked = ask_all(rag, args.splits, options)
    if args.each:
        for one in asked:
            print(json.dumps(row(one), ensure_ascii=False))
    page = report(table(asked, rag.settings), args.splits, options)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, encoding="utf-8")
    print(page)


def row(one: Asked) -> dict[str, Any]:
    """One question as a line to read."""
    return {
        "question": one.question["question"],
        "answers": one.question["answers"],
        "answer": one.answer.text,
        "f1": round(one.score(f1), 2),
        "support": round(one.answer.confidence, 3),
        "found": bool(one.answerable and found_source(one)),
    }


def report(body: str, splits: Sequence[str], options: dict[str, Any]) -> str:
    """The page of the results."""
    how = ", ".join(f"{key} {value}" for key, value in options.items())
    return (
        "# Answers from the example corpus\n\n"
        f"Splits {', '.join(splits)} of the three organisations, each from its own store; {how}; "
        f"Python {platform.python_version()}, {platform.machine()}. "
        "Times are of a warm `ask` in one process.\n\n"
        "Regenerate with `make bench`.\n\n"
        f"{body}\n"
    )


if __name__ == "__main__":
    main()
