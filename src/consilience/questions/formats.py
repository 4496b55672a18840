"""The closed table of formats, and how each is told by what it holds.

A file is told by its first object, never by its name: `train.json` may be any of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from consilience.questions.fields import Fields
from consilience.questions.open_sets import dpr_question, kilt_question
from consilience.questions.question import Question
from consilience.questions.reading_sets import (
    cmrc_items,
    cmrc_question,
    squad_items,
    squad_question,
)
from consilience.questions.records import question_of

FormatName = Literal["squad", "cmrc", "dpr", "kilt", "records"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is told and read.

    Attributes:
        holds: Keys of which the first object has all.
        items: From one top object to one object a question.
        question: From that object to the question.
    """

    holds: frozenset[str]
    items: Callable[[Fields], Iterator[Fields]]
    question: Callable[[Fields], Question]


def _itself(record: Fields) -> Iterator[Fields]:
    yield record


FORMATS: Mapping[FormatName, Format] = {
    "squad": Format(frozenset({"data"}), squad_items, squad_question),
    "cmrc": Format(frozenset({"context_text", "qas"}), cmrc_items, cmrc_question),
    "dpr": Format(frozenset({"question", "positive_ctxs"}), _itself, dpr_question),
    "kilt": Format(frozenset({"input", "output"}), _itself, kilt_question),
    "records": Format(frozenset(), _itself, question_of),
}
"""In the order in which they are tried; the last takes what no other does."""


def recognised(first: Mapping[str, object]) -> FormatName:
    """The name of the format that the first object of a file is written in."""
    return next(name for name, form in FORMATS.items() if form.holds <= first.keys())
