"""Answers over thousands of paragraphs: the shipped model end to end, beside a sentence by BM25.

    python benchmarks/end_to_end.py --data DIR --out docs/benchmarks/end_to_end.md

The corpora are those of `retrieval.py`, and stores that it left below `--work` are used again. Each
question is asked as `ask` asks it, with five passages, and whatever its support is answered; EM and
F1 after the scorers of the sets. The sentence is of the five passages that BM25 finds first, chosen
by BM25 again, over the sentences of these alone: what can be had without any generator.
"""

import argparse
import platform
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from consilience import Rag, Store
from consilience.evaluation import exact_match, f1
from consilience.model import Answer, AskOptions
from consilience.retrieval import open_retriever
from consilience.text import analyze, analyze_question, split_sentences
from data_sets import interval, rows
from retrieval import embedded, with_questions

SETS = {"en": ("squad_v11",), "zh": ("cmrc2018", "drcd")}
NAMES = {"squad_v11": "SQuAD 1.1", "cmrc2018": "CMRC 2018", "drcd": "DRCD (traditional)"}
AT = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what was answered, and with the sentence that stands for no generator.

    Attributes:
        row: Of the data set.
        language: Of the question.
        answer: As the model writes it.
        quoted: As the model answers when it is held to quotations.
        sentence: The best by BM25.
        found: Whether the right paragraph was among those that were read.
    """

    row: dict[str, Any]
    language: str
    answer: Answer
    quoted: Answer
    sentence: str
    found: bool

    def scores(self, text: str) -> tuple[float, float]:
        """EM and F1 of a text, in percent."""
        answers = self.row["answers"]
        exact = exact_match(text, answers, language=self.language)
        return 100 * float(exact), 100 * float(f1(text, answers, language=self.language))


def questions(data: Path, name: str, most: int, seed: int) -> list[dict[str, Any]]:
    """Dev questions of a set, drawn by a seed."""
    every = rows(data / name / "dev.jsonl.gz")
    asked = [row for row in every if row["question"].strip() and row["answers"]]
    return random.Random(seed).sample(asked, min(most, len(asked)))


def best_sentence(question: str, passages: Sequence[str]) -> str:
    """Of the sentences of some passages the best by BM25; the first where none has a word of it."""
    sentences = [text[s.start : s.end] for text in passages for s in split_sentences(text)]
    if not sentences:
        return ""
    scorer = bm25s.BM25()
    scorer.index([analyze(one) or ["-"] for one in sentences], show_progress=False)
    known = [token for token in analyze_question(question) if token in scorer.vocab_dict]
    return sentences[int(np.argmax(scorer.get_scores(known)))] if known else sentences[0]


def ask_all(
    rag: Rag, store: Store, drawn: Sequence[dict[str, Any]], language: str, options: AskOptions
) -> Iterator[Asked]:
    """Every question, by the model in both ways and by a sentence."""
    quoting = replace(options, quote=True)
    by_words = open_retriever(store, mode="bm25")
    for row in drawn:
        answer, quoted = (rag.ask(row["question"], store, how) for how in (options, quoting))
        texts = [store.passage(name).text for name in answer.posterior]
        hits = by_words.search(row["question"], k=AT)
        sentence = best_sentence(row["question"], [hit.passage.text for hit in hits])
        yield Asked(row, language, answer, quoted, sentence, row["context"] in texts)


def line(name: str, asked: Sequence[Asked]) -> str:
    """A row of the table."""
    ours = [one.scores(one.answer.text) for one in asked]
    quoted = [one.scores(one.quoted.text) for one in asked]
    theirs = [one.scores(one.sentence) for one in asked]
    found = 100 * statistics.fmean(one.found for one in asked)
    cells = [
        name,
        str(len(asked)),
        *(interval([pair[place] for pair in ours]) for place in (0, 1)),
        *(interval([pair[place] for pair in quoted]) for place in (0, 1)),
        f"{found:.1f}",
        f"{statistics.fmean(pair[0] for pair in theirs):.1f}",
        f"{statistics.fmean(pair[1] for pair in theirs):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEADS = (
    "| dev set | questions | EM | F1 | quoted, EM | quoted, F1 | paragraph among five "
    "| sentence, EM | sentence, F1 |"
)


def main() -> None:
    """Ask, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, help="a model folder; the one that ships if left out")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--passages", type=int, default=20_000, help="of the English corpus")
    parser.add_argument("--most", type=int, default=300, help="questions of each set")
    parser.add_argument("--beams", type=int, default=AskOptions().beams)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rag = Rag.load(args.model)
    if rag.encoder is None:
        raise SystemExit("--model: name a model with an encoder")
    rag.narrow()
    options = AskOptions(k=AT, beams=args.beams, abstain=False)
    lines, told, every = [HEADS, "|---|" + "---:|" * 8], [], []
    for language, sets in SETS.items():
        most = args.passages if language == "en" else 0
        corpus = with_questions(language, args.data, sets, most, 0)
        with embedded(corpus, rag.encoder, args.work) as store:
            for name in sets:
                drawn = questions(args.data, name, args.most, args.seed)
                asked = list(ask_all(rag, store, drawn, language, options))
                lines.append(line(NAMES[name], asked))
                print(lines[-1], flush=True)
                every += asked if language == "zh" else []
            told.append(f"{language}: {len(store):,} paragraphs")
    lines.append(line("CMRC 2018 and DRCD", every))
    head = (
        "# Answers over thousands of paragraphs\n\n"
        f"{'; '.join(told)}; k {AT}, beams {args.beams}, fusion sequence, seed {args.seed}; "
        f"Python {platform.python_version()}, {platform.machine()}. In brackets 95 % intervals "
        "over the questions. Quoted answers are held to stretches of the passages. The sentence is "
        "the best by BM25 in the five passages that BM25 finds.\n\n"
        "Regenerate with `python benchmarks/end_to_end.py --data DIR --out "
        f"docs/benchmarks/end_to_end.md --beams {args.beams}`.\n\n"
    )
    page = head + "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
