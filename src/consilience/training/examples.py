"""What one training example is, and how questions become examples.

An example has its texts at hand: the right passage if one is known, and passages that only look
right. It knows neither tokens nor vectors.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from consilience.model.asking import standalone
from consilience.questions import Context, Question, context_id
from consilience.training.data import holds

Lookup = Callable[[str], Context | None]
"""From the name of a passage to the passage."""
Mine = Callable[[str], Sequence[Context]]
"""From a question to passages that look right, best first."""


@dataclass(frozen=True, slots=True)
class PlainText:
    """A passage of plain text, from which objectives make what they learn.

    Attributes:
        text: The passage.
        title: Of its document.
        document: The name of its document; equal for passages of one.
        draw: The seed of what is made of it.
    """

    text: str
    title: str
    document: str
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One question to learn from, or one passage of plain text.

    Attributes:
        question: As the model hears it, with what it follows.
        answer: The wording that is learned; empty for an unanswerable question.
        answers: Every wording that counts as right.
        passage: The passage that holds the answer; None where that is not known.
        negatives: Passages that hold no answer.
        unanswerable: Whether no passage holds an answer.
        user: Who asked; empty where that is not known.
        positive_ids: Names of all passages that hold the answer.
        taught: What a teacher thinks of `passage`, where it is known, and then of `negatives`;
            empty without a teacher.
        plain: A text in the place of a question; None for a question.
    """

    question: str
    answer: str
    answers: tuple[str, ...] = ()
    passage: Context | None = None
    negatives: tuple[Context, ...] = ()
    unanswerable: bool = False
    user: str = ""
    positive_ids: tuple[str, ...] = ()
    taught: tuple[float, ...] = ()
    plain: PlainText | None = None

    @property
    def candidates(self) -> list[Context]:
        """The passage that holds the answer, where it is known, and those that do not."""
        return [*([] if self.passage is None else [self.passage]), *self.negatives]

    @property
    def length(self) -> int:
        """Characters that are read, by which batches are bucketed."""
        if self.plain is not None:
            return len(self.plain.text)
        passage = 0 if self.passage is None else len(self.passage.text)
        return len(self.question) + passage


def make_examples(
    questions: Iterable[Question],
    *,
    look_up: Lookup,
    mine: Mine | None = None,
    negatives: int = 1,
    seed: int = 0,
) -> list[Example]:
    """Questions as examples; those with neither an answer nor a word on that are left out.

    The passage is the first positive that can be looked up, else the question's own context.
    Negatives are the question's own, then mined ones; none of them holds an answer word for word.

    Args:
        questions: Any number.
        look_up: Where passages are found by name.
        mine: Where look-alikes are found; None for none beyond the question's own.
        negatives: How many each example gets, fewer where there are fewer.
        seed: Of the draw among the question's own negatives.
    """
    made = (_example(each, look_up, mine, negatives, seed) for each in questions)
    return [example for example in made if example is not None]


def learnable(question: Question) -> bool:
    """Whether something is known of a question's answer, so that it can be learned from."""
    return bool(question.answers) or question.unanswerable


def _example(
    question: Question, look_up: Lookup, mine: Mine | None, wanted: int, seed: int
) -> Example | None:
    if not learnable(question):
        return None
    passage = _passage(question, look_up)
    asked = standalone(question.question, question.history)
    wrong = _wrong(question, asked, passage, look_up, mine, seed) if wanted else iter(())
    return Example(
        question=asked,
        answer="" if question.unanswerable else _wording(question.answers, passage),
        answers=question.answers,
        passage=passage,
        negatives=tuple(islice(wrong, wanted)),
        unanswerable=question.unanswerable,
        user=question.user,
        positive_ids=question.positive_ids,
    )


def _passage(question: Question, look_up: Lookup) -> Context | None:
    for name in question.positive_ids:
        found = look_up(name)
        if found is not None:
            return found
    if not question.context:
        return None
    name = context_id(question.context, title=question.title)
    return Context(name, question.title, question.context)


def _wording(answers: Sequence[str], passage: Context | None) -> str:
    """The first answer that stands in the passage, so that it can be learned by copying."""
    standing = (one for one in answers if passage is not None and one in passage.text)
    return next(standing, answers[0])


def _wrong(
    question: Question,
    asked: str,
    passage: Context | None,
    look_up: Lookup,
    mine: Mine | None,
    seed: int,
) -> Iterator[Context]:
    """Look-alikes that hold no answer, each text once."""
    draw = random.Random(f"{seed}:{question.id}:{question.question}")
    own = [look_up(name) for name in draw.sample(question.negative_ids, len(question.negative_ids))]
    mined = iter(()) if mine is None else iter(mine(asked))
    taken = {"" if passage is None else passage.text}
    right = set(question.positive_ids)
    for found in chain(own, mined):
        if found is None or found.text in taken or found.id in right:
            continue
        if not any(holds(found.text, answer) for answer in question.answers):
            taken.add(found.text)
            yield found
