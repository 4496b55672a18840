"""Questions with the passages that a search finds for them: what misleads, and what else answers.

The knowledge base holds every paragraph of the train sets. BM25 finds in it, for each question,
passages that look right: those without the answer are hard negatives of the retriever and teach the
generator to say that there is no answer; those with it are read as what retrieval brings.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixture import (
    Pair,
    Reading,
    Row,
    allowed,
    held_out,
    kept_rows,
    read_rows,
    size_for,
    title_of,
    untokenised,
    window,
)

from consilience.documents import Document, Passage
from consilience.encoding import Encoder
from consilience.questions import Question
from consilience.questions.tasks import TASKS, TaskName, put
from consilience.retrieval import Retriever, open_retriever
from consilience.store import Store
from consilience.text import language_of

ASKED = ("squad_v11", "qed_nq", "cmrc2018", "drcd")
LOOKED_AT = 10
"""Passages that are looked through for a question."""


def paragraphs(data: Path, most: int) -> Iterator[Document]:
    """Distinct paragraphs of the train sets, those kept back first: none of them is missing."""
    seen: set[str] = set()
    kept = (restored(row, name) for name in ASKED for row in kept_rows(data, name))
    rest = (restored(row, name) for name in ASKED for row in train_rows(data, name))
    for row in (*kept, *rest):
        if row["context"] not in seen and len(seen) < most:
            seen.add(row["context"])
            yield Document(row["context"], source=f"paragraph-{len(seen)}", title=title_of(row))


def train_rows(data: Path, name: str) -> Iterator[Row]:
    """All rows of a train set."""
    return read_rows(data / name / "train.jsonl.gz")


def restored(row: Row, name: str) -> Row:
    """A row of a reading set with its texts as people write them."""
    if name != "qed_nq":
        return row
    answers = [untokenised(answer) for answer in row["answers"]]
    return row | {"context": untokenised(row["context"]), "answers": answers}


def fill(data: Path, place: Path, *, most: int, encoder: Encoder) -> int:
    """Make the knowledge base, or go on with it; how many passages it has."""
    with Store.open(place, encoder=encoder) as store:
        store.add(list(paragraphs(data, most)))
        return len(store)


def found_readings(
    store: Store, readings: Sequence[Reading], *, most: int, rng: random.Random
) -> list[Reading]:
    """Questions over what a search finds: an answer where it stands there, none where not."""
    retriever = open_retriever(store, mode="bm25")
    asked = [one for one in readings if one.start >= 0]
    made: list[Reading] = []
    for reading in rng.sample(asked, min(most, len(asked))):
        answer = reading.passage[reading.start : reading.end]
        for passage in looked_up(retriever, reading.question, reading.passage, 2):
            start = passage.text.find(answer)
            size = size_for(passage.text)
            if start < 0:
                made.append(Reading(reading.question, passage.title, passage.text[:size]))
            else:
                cut = window(passage.text, start, start + len(answer), size, rng)
                made.append(Reading(reading.question, passage.title, *cut))
    return made


def hard_pairs(
    store: Store, readings: Sequence[Reading], *, each: int, most: int, rng: random.Random
) -> list[Pair]:
    """Pairs of the retriever, each with a passage that looks right and holds no answer."""
    retriever = open_retriever(store, mode="bm25")
    asked = [one for one in readings if one.start >= 0]
    made = []
    for reading in rng.sample(asked, min(most, len(asked))):
        answer = reading.passage[reading.start : reading.end]
        found = looked_up(retriever, reading.question, reading.passage, LOOKED_AT)
        wrong = [told(one) for one in found if answer not in one.text][:each]
        made += [Pair(reading.question, f"{reading.title}\n{reading.passage}", w) for w in wrong]
    return made


def looked_up(retriever: Retriever, question: str, own: str, most: int) -> list[Passage]:
    """What a search finds for a question beside its own passage."""
    hits = retriever.search(question, k=LOOKED_AT)
    others = [hit.passage for hit in hits if own[:80] not in hit.passage.text]
    return others[:most]


def told(passage: Passage) -> str:
    """A passage as the retriever reads it."""
    return f"{passage.title}\n{passage.text}"[: size_for(passage.text) + 80]


def as_question(row: Row) -> Question:
    """A row of a reading set as the trainer takes it."""
    return Question(
        row["question"],
        answers=tuple(row["answers"]),
        context=row["context"],
        title=title_of(row),
        language=language_of(row["question"]),
    )


def joint_questions(data: Path) -> list[Question]:
    """What joint training asks the knowledge base."""
    forbidden = held_out(data)
    return [
        as_question(restored(row, name))
        for name in ASKED
        for row in allowed(train_rows(data, name), forbidden)
        if row["answers"]
    ]


def kept_questions(data: Path) -> list[Question]:
    """The questions on which settings are chosen."""
    rows = (restored(row, name) for name in ASKED for row in kept_rows(data, name))
    return [as_question(row) for row in rows if row["answers"]]


TASK_SETS: dict[str, tuple[TaskName, str, str]] = {
    "subjectivity": ("classification", "text", "label"),
    "csl_category": ("classification", "text", "label"),
    "csl_title": ("summarisation", "document", "summary"),
    "scitldr": ("summarisation", "document", "summaries"),
}
"""Sets whose licence lets the weights be given away: the task, the text, and what is answered."""


def task_questions(data: Path, *, most: int = 2000) -> list[Question]:
    """Tasks other than reading, each put as a question over its text; classes are named in it."""
    made = []
    for name, (task, text, answer) in TASK_SETS.items():
        rows = list(read_rows(data / name / "train.jsonl.gz", most=most))
        labels = " / ".join(sorted({str(row[answer]) for row in rows}))
        for row in rows:
            right = row[answer][0] if isinstance(row[answer], list) else str(row[answer])
            asked = Question(
                labels if task == "classification" else "",
                answers=(right,),
                context=str(row[text])[: size_for(str(row[text]))],
                language=language_of(str(row[text])),
            )
            made.append(put(TASKS[task], asked))
    return made


def replayed(readings: Sequence[Reading], count: int, rng: random.Random) -> list[Question]:
    """Readings among the tasks, so that what was learned before is not forgotten."""
    asked = [one for one in readings if one.start >= 0]
    return [
        Question(
            one.question,
            answers=(one.passage[one.start : one.end],),
            context=one.passage,
            title=one.title,
            language=language_of(one.question),
        )
        for one in rng.sample(asked, min(count, len(asked)))
    ]
