"""What a passage of plain text asks about itself: questions with answers, and pairs to tell apart.

Each is made by a draw of its own, which depends on the seed, the epoch and the place of the text in
its set. So a text asks something else in every epoch, and a run that was killed asks the same
again. It knows neither tokens nor models.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import overload

import regex

from consilience.errors import UsageError
from consilience.questions import Context, context_id
from consilience.text import split_sentences
from consilience.training.batches import LengthBuckets
from consilience.training.examples import Example, PlainText
from consilience.training.names import ObjectiveName
from consilience.training.objectives import (
    Cloze,
    SentencePair,
    independent_crops,
    inverse_cloze,
    next_sentence_pairs,
    recurring_question,
    salient_question,
)

PAIRS = 4
"""Pairs of sentences for each text of a batch; together they are about as long as it."""

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}"
_UNIT = regex.compile(rf"\s*(?:[{_CJK}]|[^\s{_CJK}]+)")


def _by_inverse_cloze(text: PlainText, draw: random.Random) -> Example | None:
    """A sentence as the question for what stands around it."""
    pair = inverse_cloze(text.text, draw)
    return None if pair is None else _pair(pair.question, text.title, pair.passage)


def _by_crops(text: PlainText, draw: random.Random) -> Example | None:
    """A stretch as the question for another of the same text; words, or characters of Chinese."""
    found = independent_crops(_UNIT.findall(text.text), draw)
    if found is None:
        return None
    asked, told = ("".join(units).strip() for units in found)
    return _pair(asked, "", told)


def _pair(question: str, title: str, passage: str) -> Example:
    name = context_id(passage, title=title)
    return Example(question=question, answer="", passage=Context(name, title, passage))


def _by_recurring_span(text: PlainText, draw: random.Random) -> Example | None:
    """A blank that the rest of the text fills."""
    return _cloze(recurring_question(text.text, draw), text.title)


def _by_salient_span(text: PlainText, draw: random.Random) -> Example | None:
    """A blank in the place of a date, a number, a name or a title."""
    return _cloze(salient_question(text.text, draw), text.title)


def _cloze(found: Cloze | None, title: str) -> Example | None:
    if found is None:
        return None
    made = _pair(found.question, title, found.context)
    return replace(made, answer=found.answer, answers=(found.answer,))


MAKERS: Mapping[ObjectiveName, Callable[[PlainText, random.Random], Example | None]] = {
    "inverse_cloze": _by_inverse_cloze,
    "crops": _by_crops,
    "recurring_spans": _by_recurring_span,
    "salient_spans": _by_salient_span,
}
"""Objectives that learn from questions which a text asks, and how it asks them."""


def made_from(batch: Sequence[Example], name: ObjectiveName) -> list[Example]:
    """What texts ask for an objective of `MAKERS`; those that have nothing to ask are left out."""
    texts = [one.plain for one in batch if one.plain is not None]
    made = (MAKERS[name](text, source_of(text, name)) for text in texts)
    return [example for example in made if example is not None]


def source_of(text: PlainText, name: str) -> random.Random:
    """The randomness of one objective over one text."""
    return random.Random(f"{text.draw}:{name}")


def sentence_pairs(texts: Sequence[PlainText]) -> list[SentencePair]:
    """Pairs for next sentence prediction, at most `PAIRS` for each text.

    The first text of each document speaks for it: two stretches of one document could not be told
    from sentences that follow. Empty where fewer than two documents are there.
    """
    first = {text.document: text for text in reversed(texts)}
    spoken = [_sentences(text.text) for text in first.values()]
    if sum(map(bool, spoken)) < 2:
        return []
    draw = source_of(texts[0], "nsp")
    found = next_sentence_pairs(spoken, draw)
    return draw.sample(found, min(len(found), PAIRS * len(texts)))


def _sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split_sentences(text)]


class Redrawn(Sequence[Example]):
    """Examples whose texts are drawn anew in every epoch.

    Args:
        examples: Questions, which stay as they are, and texts.
        batches: Says which epoch it is, and with which seed.
    """

    def __init__(self, examples: Sequence[Example], batches: LengthBuckets) -> None:
        self._examples, self._batches = examples, batches

    def __len__(self) -> int:
        """How many there are."""
        return len(self._examples)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        """One of them as it is in this epoch, or several."""
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        return drawn(self._examples[place], f"{self._batches.seed}:{self._batches.epoch}:{place}")


def drawn(example: Example, how: str) -> Example:
    """An example whose text has the seed that a word gives; a question stays as it is."""
    if example.plain is None:
        return example
    seed = int.from_bytes(hashlib.sha256(how.encode()).digest()[:6], "big")
    return replace(example, plain=replace(example.plain, draw=seed))


def require_food(examples: Iterable[Example], objectives: Iterable[str]) -> None:
    """Every objective must find something in the texts, or it would learn nothing unseen.

    Raises:
        UsageError: One finds nothing; the message names all that do not.
    """
    every = list(examples)
    starved = [name for name in sorted(objectives) if not _feeds(every, name)]
    if starved:
        raise UsageError(
            f"text.train holds nothing that {', '.join(starved)} could learn from",
            hint="nsp needs two documents and a text of two sentences, inverse_cloze two sentences "
            "in a text, recurring_spans words that a text says twice, salient_spans dates, numbers "
            "or names; leave the objective out or give more text",
        )


def _feeds(examples: Sequence[Example], name: str) -> bool:
    maker = next((make for key, make in MAKERS.items() if key == name), None)
    texts = [one.plain for one in examples if one.plain is not None]
    if maker is not None:
        return any(maker(text, source_of(text, name)) is not None for text in texts)
    if name == "nsp":
        several = len({text.document for text in texts}) > 1
        return several and any(len(_sentences(text.text)) > 1 for text in texts)
    return bool(texts)
