"""Which questions are the same, which answers stand in a text, and splits that do not leak.

Texts are compared without case, marks, width and the difference between traditional and simplified
characters. No choice depends on the order in which a file was read.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from unicodedata import normalize

import regex

from consilience.errors import UsageError
from consilience.questions import Question
from consilience.text import fold_han

_SPACE_AND_MARKS = regex.compile(r"[\p{P}\p{Z}\p{C}\p{S}]+")
_LATIN_EDGE = regex.compile(r"[\p{L}\p{N}--\p{Han}--\p{Hiragana}--\p{Katakana}]", regex.V1)


@dataclass(frozen=True, slots=True)
class Split:
    """Questions in two parts that share no question."""

    train: tuple[Question, ...]
    dev: tuple[Question, ...]


def question_key(question: str) -> str:
    """A digest that wordings of one question share.

    Case, marks, spaces, full-width forms and traditional characters make no difference.

    Example:
        >>> question_key("誰可以申請？") == question_key("谁可以 申请?")
        True
    """
    return hashlib.sha256(plain(question).replace(" ", "").encode()).hexdigest()[:32]


def plain(text: str) -> str:
    """Text in lower case and simplified characters, a blank for all between words."""
    folded = fold_han(normalize("NFKC", text)).casefold()
    words: str = _SPACE_AND_MARKS.sub(" ", folded)
    return words.strip()


def holds(text: str, answer: str) -> bool:
    """Whether an answer stands in a text, as whole words where words are spaced.

    Example:
        >>> holds("The category is open.", "cat"), holds("那只猫在睡觉。", "猫")
        (False, True)
    """
    return found_in(plain(text), plain(answer))


def found_in(text: str, answer: str) -> bool:
    """`holds` for texts that are `plain` already."""
    start = text.find(answer) if answer else -1
    while start >= 0:
        end = start + len(answer)
        if not _cuts(text, start) and not _cuts(text, end):
            return True
        start = text.find(answer, start + 1)
    return False


def _cuts(text: str, place: int) -> bool:
    """Whether a place lies inside a word of a script that spaces words."""
    sides = text[place - 1 : place], text[place : place + 1]
    return place > 0 and all(side and _LATIN_EDGE.match(side) for side in sides)


def split_questions(questions: Iterable[Question], *, dev: float, seed: int = 0) -> Split:
    """Questions in two parts, by a digest of their context, or of themselves where there is none.

    Questions on one context stay together, and none changes sides when others are added.

    Args:
        questions: Any number.
        dev: The share of the second part, between 0 and 1.
        seed: Another seed, another split.

    Raises:
        UsageError: A share that is none.
    """
    if not 0 <= dev <= 1:
        raise UsageError(f"dev must lie between 0 and 1, received {dev}", hint="Try dev=0.1.")
    parts: tuple[list[Question], list[Question]] = ([], [])
    for question in questions:
        group = question_key(question.context or question.question)
        digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
        parts[int.from_bytes(digest[:8], "big") < dev * 2**64].append(question)
    return Split(tuple(parts[0]), tuple(parts[1]))


def without_leaks(train: Iterable[Question], held_out: Iterable[Question]) -> list[Question]:
    """Training questions less those whose question or context also stands in the held-out ones."""
    forbidden = {key for question in held_out for key in _keys(question)}
    return [question for question in train if not forbidden & _keys(question)]


def _keys(question: Question) -> set[str]:
    texts = (question.question, question.context)
    return {question_key(text) for text in texts if text}
