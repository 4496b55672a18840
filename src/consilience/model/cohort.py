"""Questions that are answered together: read one by one, then written side by side.

Reading is where an answer's time goes, and it is bound by arithmetic: question and passage are read
as one text, so nothing of it can be kept from one question to the next, and sixteen questions read
at once take no less than sixteen times one. Writing is bound by overhead and by the vocabulary,
which every step walks through once however many questions are written. So readings are made one at
a time, as questions come, and joined for the writing.

What is written on a question is what would be written on it alone. Knows tensors through the
generator only, and no queue, thread or clock but the questions' own.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.generation import Generator, Joining
from consilience.model.answer import Piece
from consilience.model.answering import Asked, Clock, answered
from consilience.model.asking import AskOptions
from consilience.model.decoding import DecodingOptions, Streams, Written
from consilience.model.fusion import SUMMED
from consilience.model.reading import Reading


@dataclass(frozen=True, slots=True)
class Member:
    """One question of a cohort.

    Attributes:
        asked: The question with its passages.
        reading: The same, read.
        clock: Of this question.
    """

    asked: Asked
    reading: Reading
    clock: Clock


def company(asked: Asked, options: AskOptions, generator: Generator) -> Hashable:
    """What questions must have in common to be written together; None for one that stays alone.

    Attention over passage vectors is bound to the batch that was read, and a generator may be
    unable to join what it read.
    """
    if options.fusion == "attention" or not isinstance(generator, Joining):
        return None
    return options.fusion, options.decoding(), len(asked.hits)


class Cohort:
    """Questions with one `company`, written token by token.

    Args:
        members: At least one; more than one only of a generator that is `Joining`.
        options: How all of them are searched.

    Raises:
        UsageError: A search that knows its answer last.
    """

    def __init__(self, members: Sequence[Member], options: DecodingOptions) -> None:
        self.members = tuple(members)
        memory, log_weights = _joined([one.reading for one in members])
        generator = members[0].reading.generator
        self._streams = Streams(generator, memory, log_weights, options=options)

    @property
    def open(self) -> Sequence[int]:
        """The places of the members that are being written."""
        return tuple(self._streams.open)

    def step(self) -> list[tuple[int, Written]]:
        """Write one token more on every open member; what became certain, with its place."""
        return self._streams.step()

    def drop(self, member: int) -> None:
        """Write no more on a member."""
        self._streams.drop(member)

    def piece(self, member: int, written: Written) -> Piece | None:
        """What a reader is shown of it; None for a token of an answer that will be withheld."""
        one = self.members[member]
        if written.answer is not None:
            one.clock.mark("write")
            decoded = [written.answer, *written.further]
            answer = answered(one.asked, one.reading, decoded, one.clock)
            return Piece(answer.text, answer.posterior, answer)
        if self._streams.prospects[member].support < one.asked.least:
            return None
        return Piece(written.text, _running(one, written))


@torch.inference_mode()
def _joined(readings: Sequence[Reading]) -> tuple[Any, Tensor]:
    """One memory to write from, and the weights of its rows, `[members, rows of a member]`."""
    first, log_weights = readings[0], torch.cat([one.log_weights for one in readings])
    if len(readings) == 1:
        return first.memory, log_weights
    generator = first.generator
    assert isinstance(generator, Joining)
    if first.fusion == "fid":
        # End to end only now, so that all passages are padded to one length.
        rows = generator.join([one.passages for one in readings])
        return first.generator.together(rows, first.k), log_weights
    return generator.join([one.memory for one in readings]), log_weights


def _running(one: Member, written: Written) -> dict[str, float]:
    """The posterior of the last token, where the fusion has one on the way."""
    if one.reading.fusion not in SUMMED:
        return {}
    ids = [hit.passage.id for hit in one.asked.hits]
    return dict(zip(ids, written.posterior.tolist(), strict=True))
