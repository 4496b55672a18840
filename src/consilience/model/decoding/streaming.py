"""An answer as it is being written.

A token is handed on when no later step can take it back: at once for greedy search and samples, and
for beams as soon as every open beam and the best finished answer have it in common. Text is handed
on in whole characters, and never a beginning of a stop string.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import Generator
from consilience.model.decoding.answers import begin_search, check_ids
from consilience.model.decoding.opening import open_answers
from consilience.model.decoding.options import DecodingOptions
from consilience.model.decoding.result import Decoded, decoded, posteriors
from consilience.model.decoding.stopping import Stops

PART = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers of bytes write for the bytes of an unfinished character."""


@dataclass(frozen=True, slots=True)
class Written:
    """One token more, or the end.

    Attributes:
        text: The whole text so far.
        token: The token, or None at the end.
        posterior: Of the passages: after this token under RAG-Sequence, of this token under the
            other sums, of the answer at the end, `[k]`.
        answer: None until the end.
        further: The further answers, if more than one was asked for; at the end only.
    """

    text: str
    token: int | None
    posterior: Tensor
    answer: Decoded | None = None
    further: tuple[Decoded, ...] = ()


Ends = Sequence[tuple[list[int], Tensor]]
"""What open ends have written: tokens, and their log p given each passage, `[k, tokens]`."""


class Streams:
    """Several questions searched side by side, each handed on as it is written.

    What is written on one does not depend on the others. A question that is settled or dropped
    leaves the batch as `Search` has it.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        log_weights: log prior, `[b, k]`; minus infinity for a passage that is not there.
        options: How to search, by the exact search. Of several answers to a question nothing is
            handed on before all are known.

    Attributes:
        prospects: What was known of each question before its first token.
        open: The questions that are being written, by their place.

    Raises:
        UsageError: A search that knows its answer last, or weights and tokens as for `decode`.
    """

    @torch.inference_mode()
    def __init__(
        self, generator: Generator, memory: Any, log_weights: Tensor, *, options: DecodingOptions
    ) -> None:
        _require_exact(options)
        check_ids(generator, options)
        self._generator, self._options = generator, options
        opening = open_answers(generator, memory, log_weights)
        self.prospects = opening.each()
        self.open = list(range(len(self.prospects)))
        self._search = begin_search(generator, memory, opening, options)
        self._steps = self._search.steps()
        self._shown = [_Shown(generator, one.log_weights, options) for one in self.prospects]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Written]]:
        """Write one token more on every open question.

        Returns:
            What has become certain, with the place of its question, in the order of writing.
        """
        if not self.open:
            return []
        next(self._steps, None)
        ends = self._search.open_ends()
        found = []
        for question in list(self.open):
            found += [(question, one) for one in self._of(question, ends.get(question))]
            if question not in ends:
                self.open.remove(question)
        return found

    @torch.inference_mode()
    def drop(self, question: int) -> None:
        """Write no more on a question."""
        if question in self.open:
            self.open.remove(question)
            self._search.drop(question)

    def _of(self, question: int, ends: Ends | None) -> Iterator[Written]:
        shown, finished = self._shown[question], self._search.answers_to(question)
        if ends is None:
            before, fusion = self.prospects[question], self._options.fusion
            return shown.rest([decoded(one, before, self._generator, fusion) for one in finished])
        if self._options.returned > 1:
            return iter(())
        written = [*ends, *((one.ids, one.given) for one in finished)]
        return shown.more(*_common_to(written, self._generator.end))


@torch.inference_mode()
def stream(
    generator: Generator, memory: Any, log_weights: Tensor, *, options: DecodingOptions
) -> Iterator[Written]:
    """The answer to one question, token by token, and then as `decode` gives it.

    Args:
        generator: Whose memory it is.
        memory: Of `k` rows.
        log_weights: log prior, `[1, k]`.
        options: How to search; one answer, found by the exact search.

    Raises:
        UsageError: More than one question or answer, or a search that knows its answer last.
    """
    require_one_answer(log_weights.shape[0], options)
    streams = Streams(generator, memory, log_weights, options=options)
    while streams.open:
        for _, written in streams.step():
            yield written


def require_one_answer(questions: int, options: DecodingOptions) -> None:
    """Whether `stream` can do it.

    Raises:
        UsageError: More than one question, or more than one answer.
    """
    if questions != 1 or options.returned != 1:
        raise UsageError(
            f"one answer to one question can be streamed, received {options.returned} answers "
            f"to {questions} questions",
            hint="use decode for batches and for several answers",
        )


def _require_exact(options: DecodingOptions) -> None:
    if options.search != "exact":
        raise UsageError(
            f"search {options.search!r} knows no token before it knows the answer",
            hint="stream with search='exact'",
        )


def _common_to(written: Sequence[tuple[list[int], Tensor]], end: int) -> tuple[list[int], Tensor]:
    """The tokens that all have in common, and their log p given each passage, `[k, tokens]`."""
    first, given = written[0]
    settled = first[: min(_common(first, other) for other, _ in written)]
    return (settled[:-1] if settled[-1:] == [end] else settled), given


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two answers begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class _Shown:
    """What a reader has been given so far."""

    def __init__(self, generator: Generator, log_weights: Tensor, options: DecodingOptions) -> None:
        self._generator, self._log_weights, self._options = generator, log_weights, options
        self._stops = Stops(generator, options.stop)
        self._count, self._text = 0, ""

    def more(self, ids: list[int], given: Tensor) -> Iterator[Written]:
        """As many of the settled tokens as end with a text that stays."""
        ready = self._ready(ids)
        if ready is None:
            return
        shares = posteriors(self._log_weights, given.cpu(), self._options.fusion)
        for place in range(self._count, ready):
            if place == ready - 1:
                self._text = self._generator.decode(ids[:ready])
            yield Written(self._text, ids[place], shares[place])
        self._count = ready

    def rest(self, answers: Sequence[Decoded]) -> Iterator[Written]:
        """What is left when the search is over, and the answer itself."""
        answer, *further = answers
        text = answer.text(self._generator)
        for place in range(self._count, len(answer.ids)):
            if place == len(answer.ids) - 1:
                self._text = text
            yield Written(self._text, answer.ids[place], answer.token_posteriors[place])
        yield Written(text, None, answer.posterior, answer, tuple(further))

    def _ready(self, ids: list[int]) -> int | None:
        """How many tokens may be shown, None when no more than before."""
        for count in range(len(ids), self._count, -1):
            if self._stays(self._generator.decode(ids[:count])):
                return count
        return None

    def _stays(self, text: str) -> bool:
        """Whether text neither ends inside a character nor holds what may become a stop."""
        return not (text.endswith(PART) or self._stops.may_begin(text))
