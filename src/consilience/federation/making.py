"""Questions that a party makes from its own documents when it has none.

A sentence of a passage with a stretch left out, which is the answer: one that the passage says
again elsewhere where there is one, else a date, a number, a name or a title (see
`training.objectives.spans`). They teach to find and to read, not the wording of people's questions.
They depend on the passages and on the seed alone, and stay with the party.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.questions import Question
from consilience.store import Store
from consilience.text import language_of
from consilience.training.objectives.spans import Cloze, recurring_question, salient_question

MOST_TURNS = 8
"""How often each passage is asked for another question."""

_BATCH = 64  # passages read at once


def made_questions(store: Store, *, count: int, seed: int) -> list[Question]:
    """Questions about passages of a store, each naming the passage that holds its answer.

    Every passage is asked for one question before any is asked for a second.

    Args:
        store: The passages.
        count: How many at most; fewer where the passages hold no more.
        seed: Which passages come first, and what is left out of them.

    Raises:
        UsageError: The store is empty, or nothing in it can be asked for.
    """
    numbers = _shuffled(store, seed)
    found = list(islice(_questions(store, numbers, seed), count))
    if not found:
        raise UsageError(
            f"no question can be made from the {len(numbers)} passages of {store.path}",
            hint="add documents with facts or repetitions (consilience add PATH), or name question "
            "files under data.train",
        )
    return found


def _shuffled(store: Store, seed: int) -> list[int]:
    """Numbers of all passages in an order that is the same for the same passages."""
    names: dict[str, int] = {}
    with store.changes(0) as changes:
        for batch in changes.added:
            passages = store.passages([row.number for row in batch])
            names |= {passage.id: number for number, passage in passages.items()}
    order = sorted(names)
    random.Random(seed).shuffle(order)
    return [names[name] for name in order]


def _questions(store: Store, numbers: Sequence[int], seed: int) -> Iterator[Question]:
    seen: set[tuple[str, str]] = set()
    for turn in range(MOST_TURNS):
        before = len(seen)
        for passage in _passages(store, numbers):
            made = _cloze(passage.text, random.Random(f"{seed}:{turn}:{passage.id}"), turn)
            if made is not None and (key := (made.question, made.answer)) not in seen:
                seen.add(key)
                yield _question(passage, made, len(seen))
        if len(seen) == before:
            return


def _passages(store: Store, numbers: Sequence[int]) -> Iterator[Passage]:
    for at in range(0, len(numbers), _BATCH):
        chosen = numbers[at : at + _BATCH]
        found = store.passages(chosen)
        yield from (found[number] for number in chosen if number in found)


def _cloze(text: str, draw: random.Random, turn: int) -> Cloze | None:
    """What recurs comes first in one turn, facts in the next."""
    if turn % 2:
        return salient_question(text, draw) or recurring_question(text, draw)
    return recurring_question(text, draw) or salient_question(text, draw)


def _question(passage: Passage, made: Cloze, number: int) -> Question:
    return Question(
        made.question,
        (made.answer,),
        id=f"made-{number}",
        positive_ids=(passage.id,),
        language=language_of(made.question),
    )
