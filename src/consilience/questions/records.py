"""This package's own format: one JSON object a line, with the keys of `Question`.

Besides, names that are common elsewhere and say the same (`ELSEWHERE`), and the answers of Hugging
Face's SQuAD, an object with a list under `text`. An empty list of answers says that there is none.
Keys that mean nothing here are passed over,
unless one is so near to a known key that it is a slip of the pen.
"""

import difflib

from consilience.errors import DocumentError
from consilience.questions.fields import Fields
from consilience.questions.question import Question, Turn
from consilience.text import language_of

KEYS = (
    *("question", "answers", "id", "context", "title", "positive_ids", "negative_ids", "history"),
    *("user", "label", "language", "unanswerable"),
)
"""What a record may hold; only `question` must be there."""

ELSEWHERE = {
    "answer": "answers",
    "doc_ids": "positive_ids",
    "is_impossible": "unanswerable",
}
"""Names that other data sets use, and the key that each stands for."""

_SLIP = 0.85  # likeness from which an unknown key counts as a misspelt one


def question_of(record: Fields) -> Question:
    """The question of a record.

    SQuAD 2.0 gives wrong answers that sound right beside `is_impossible`; they are left out.

    Raises:
        DocumentError: A key that is missing, misspelt, or holds what it must not.
    """
    _refuse_slips(record)
    _refuse_doubles(record)
    question = record.required("question")
    impossible = record.flag("is_impossible")
    answers = () if impossible else _answers(record)
    # An empty list is a statement; a key that is not there is none.
    denied = record.values.get("answers") == []
    if record.flag("unanswerable") and answers:
        record.refuse("unanswerable", "false beside answers")
    return Question(
        question=question,
        answers=answers,
        id=record.name("id"),
        context=record.text("context"),
        title=record.text("title"),
        positive_ids=record.names("positive_ids") or record.names("doc_ids"),
        negative_ids=record.names("negative_ids"),
        history=tuple(map(_turn, record.objects("history"))),
        user=record.name("user"),
        label=record.name("label"),
        language=language(record, question),
        unanswerable=impossible or denied or record.flag("unanswerable"),
    )


def language(record: Fields, question: str) -> str:
    """What the record says of its language, else what its characters tell."""
    if "language" in record.values:
        return record.text("language")
    return language_of(question)


def _answers(record: Fields) -> tuple[str, ...]:
    key = "answer" if "answer" in record.values else "answers"
    value = record.values.get(key)
    if isinstance(value, dict):
        return Fields(f"{record.place}, {key}", value).texts("text")
    if isinstance(value, str):
        return (record.required(key),)
    return record.texts(key)


def _turn(turn: Fields) -> Turn:
    return Turn(turn.required("question"), turn.text("answer"))


def _refuse_slips(record: Fields) -> None:
    for key in record.values:
        near = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=_SLIP)
        if key not in {*KEYS, *ELSEWHERE} and near:
            raise DocumentError(
                f"{record.place}, key {str(key)[:60]!r}: unknown; did you mean {near[0]!r}?"
            )


def _refuse_doubles(record: Fields) -> None:
    for other, key in ELSEWHERE.items():
        if other in record.values and key in record.values:
            raise DocumentError(f"{record.place}, key {other!r}: it stands beside {key!r}")
