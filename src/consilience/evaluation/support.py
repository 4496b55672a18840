"""Whether passages hold an answer, and whether what an answer cites supports it.

Two views of citations, kept apart. Against the gold: a citation is right if its passage is a gold
one or holds a gold answer. Against the answer itself, right or not: ALCE's precision and recall
(Gao et al., 2023), by a judge who says whether a text supports a statement; ALCE asks a model of
entailment, and any callable will do here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from consilience.evaluation.tokens import contains, folded_tokens_of
from consilience.text import split_sentences


class Judge(Protocol):
    """Says whether a text supports a statement."""

    def __call__(self, text: str, statement: str) -> bool:
        """Whether whoever believes `text` must believe `statement`."""
        ...


@dataclass(frozen=True, slots=True)
class Attribution:
    """How well an answer is supported by what it cites.

    Attributes:
        recall: The share of its statements that all citations together support.
        precision: The share of its citations that are needed or suffice; None if it cites nothing.
    """

    recall: float
    precision: float | None


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text, word for word.

    As in Karpukhin et al. (2020), punctuation and case aside; Chinese is compared character by
    character, traditional as simplified. A short answer may stand somewhere by accident.

    Example:
        >>> holds_answer("Open from 14:30 to 20:00.", ["8 pm", "20:00"])
        True
    """
    tokens = folded_tokens_of(text)
    return any(contains(tokens, folded_tokens_of(answer)) for answer in answers)


def words_contained(text: str, statement: str) -> bool:
    """The judge that needs no model: every word of the statement is a word of the text.

    Never takes the opposite of a text for support of it, but for words in another order; misses
    all that is said in other words. Right for answers that were copied.
    """
    words = set(folded_tokens_of(statement))
    return bool(words) and words <= set(folded_tokens_of(text))


def attribution(
    answer: str, cited: Sequence[str], *, judge: Judge = words_contained
) -> Attribution | None:
    """ALCE's citation recall and precision of an answer whose citations stand for all of it.

    A statement is recalled if the cited texts, one after the other, support it. A citation counts
    against precision if the statement is not recalled, or if it alone does not support the
    statement while the others do without it.

    Args:
        answer: Its sentences are the statements.
        cited: The texts cited.
        judge: Who decides.

    Returns:
        None for an answer without words, which states nothing.
    """
    statements = [answer[one.start : one.end] for one in split_sentences(answer)]
    if not statements:
        return None
    recalled = [bool(cited) and judge("\n".join(cited), one) for one in statements]
    useful = [
        known and _is_useful(index, cited, one, judge)
        for one, known in zip(statements, recalled, strict=True)
        for index in range(len(cited))
    ]
    return Attribution(
        recall=sum(recalled) / len(recalled),
        precision=sum(useful) / len(useful) if useful else None,
    )


def _is_useful(index: int, cited: Sequence[str], statement: str, judge: Judge) -> bool:
    if judge(cited[index], statement):
        return True
    others = [text for place, text in enumerate(cited) if place != index]
    return not judge("\n".join(others), statement)
