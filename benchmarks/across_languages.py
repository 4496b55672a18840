"""Questions in one language, paragraphs in the other: what words, vectors and both of them find.

    python benchmarks/across_languages.py --data DIR --out docs/benchmarks/across_languages.md

The questions are XQuAD's dev questions, whose paragraphs stand in a corpus with all paragraphs of
XQuAD in the language that was not asked in: alone, and among other paragraphs of that language
(those of SQuAD and of Wikipedia, and of CMRC 2018 and DRCD). For comparison the same
questions are asked in the corpus's own language. Stores left below `--work` are used again.
"""

import argparse
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from consilience import Rag, Store
from consilience.retrieval import Mode
from data_sets import interval, rows
from end_to_end import SETS
from retrieval import Corpus, Question, embedded, with_questions

AT = (1, 5)
MODES: Mapping[Mode, str] = {"bm25": "BM25", "dense": "dense", "hybrid": "hybrid, as shipped"}
NAMES = {"en": "English", "zh": "Chinese"}


def corpora(data: Path, told: str, beside: int) -> Iterator[Corpus]:
    """XQuAD's paragraphs in one language, alone and among others; the questions in both."""
    found = {
        part: list(rows(data / "xquad_en_zh" / f"{part}.jsonl.gz")) for part in ("dev", "train")
    }
    own = {
        row[f"context_{told}"]: row["title"].replace("_", " ")
        for part in found.values()
        for row in part
    }
    place = {text: number for number, text in enumerate(own)}
    asked = {
        (language, "dev"): [
            Question(row[f"question_{language}"], place[row[f"context_{told}"]])
            for row in found["dev"]
        ]
        for language in NAMES
    }
    passages = [(title, text) for text, title in own.items()]
    yield Corpus(f"xquad-{told}", passages, asked)
    # Wikipedia is in English: it would not stand in the way of a question over Chinese paragraphs.
    most = beside if told == "en" else 0
    others = with_questions("beside", data, SETS[told], most, 0).passages
    more = [one for one in others if one[1] not in own][:beside]
    yield Corpus(f"xquad-{told}-among", passages + more, asked)


def found_at(rag: Rag, store: Store, mode: Mode, asked: Sequence[Question]) -> list[list[float]]:
    """For each depth in `AT`, 100 for a question whose paragraph is among so many, else 0."""
    retriever = rag.retriever(store, mode)
    hits = [[int(hit.passage.id) for hit in retriever.search(one.text, k=max(AT))] for one in asked]
    return [
        [100.0 * (one.gold in ids[:depth]) for one, ids in zip(asked, hits, strict=True)]
        for depth in AT
    ]


def lines(rag: Rag, corpus: Corpus, work: Path, told: str) -> Iterator[str]:
    """A row for each language of the questions and each way of search."""
    assert rag.encoder is not None
    with embedded(corpus, rag.encoder, work) as store:
        for (language, _), asked in sorted(corpus.questions.items(), reverse=told == "en"):
            for mode, name in MODES.items():
                cells = [interval(values) for values in found_at(rag, store, mode, asked)]
                pair = f"{NAMES[language]} in {NAMES[told]}"
                first = [pair, name, f"{len(corpus.passages):,}", str(len(asked))]
                yield "| " + " | ".join([*first, *cells]) + " |"


def page(rag: Rag, data: Path, work: Path, beside: int) -> str:
    """The whole table."""
    heads = ["question in passages", "search", "passages", "questions"]
    heads += [f"recall@{depth}" for depth in AT]
    told = [
        "# Questions in one language, paragraphs in the other",
        "",
        f"XQuAD's dev questions, Python {platform.python_version()}, {platform.machine()}; in "
        "brackets 95 % intervals over the questions, which are of 25 paragraphs.",
        "",
        "Regenerate with `python benchmarks/across_languages.py --data DIR --out "
        "docs/benchmarks/across_languages.md`.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|" + "---:|" * (len(heads) - 2),
    ]
    for language in ("en", "zh"):
        for corpus in corpora(data, language, beside):
            told += lines(rag, corpus, work, language)
    return "\n".join(told) + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="folder of a model; the one that ships if left out")
    parser.add_argument("--beside", type=int, default=3000, help="other paragraphs, at most")
    parser.add_argument("--work", type=Path, help="folder that keeps stores between calls")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        text = page(Rag.load(args.model), args.data, args.work or Path(place), args.beside)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
