"""An answer as it is being written.

A token is handed on when no later step can take it back: at once for greedy search and samples, and
for beams as soon as every open beam and the best finished answer have it in common. Text is handed
on in whole characters, and never a beginning of a stop string.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import Generator
from consilience.model.decoding.answers import begin_search, check_ids
from consilience.model.decoding.frontier import DEAD
from consilience.model.decoding.opening import open_answers
from consilience.model.decoding.options import DecodingOptions
from consilience.model.decoding.result import Decoded, posteriors, results
from consilience.model.decoding.search import Search

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
    """

    text: str
    token: int | None
    posterior: Tensor
    answer: Decoded | None = None


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
    _check(log_weights, options)
    check_ids(generator, options)
    opening = open_answers(generator, memory, log_weights)
    search = begin_search(generator, memory, opening, options)
    shown = _Shown(generator, opening.log_weights[0].cpu(), options)
    for _ in search.steps():
        yield from shown.more(*_settled(search))
    (answer,) = results(search.answers(), opening, generator, options)[0]
    yield from shown.rest(answer)


def _check(log_weights: Tensor, options: DecodingOptions) -> None:
    if log_weights.shape[0] != 1 or options.returned != 1:
        raise UsageError(
            f"one answer to one question can be streamed, received {options.returned} answers "
            f"to {log_weights.shape[0]} questions",
            hint="use decode for batches and for several answers",
        )
    if options.search != "exact":
        raise UsageError(
            f"search {options.search!r} knows no token before it knows the answer",
            hint="stream with search='exact'",
        )


def _settled(search: Search) -> tuple[list[int], Tensor]:
    """The tokens that can no longer change, and their log p given each passage, `[k, tokens]`."""
    frontier, end = search.frontier, search.generator.end
    searches, ends = (frontier.scores > DEAD).nonzero(as_tuple=True)
    found = [
        (ids, given)
        for ids, given in zip(
            frontier.ids[searches, ends].tolist(), frontier.given[searches, :, ends], strict=True
        )
    ]
    best = [one for answers in search.answers() for one in answers]
    found += [(one.ids, one.given) for one in best]
    first, given = found[0]
    count = min(_common(first, other) for other, _ in found)
    if best and not len(searches):
        count = 0
    settled = first[:count]
    return (settled[:-1] if settled[-1:] == [end] else settled), given


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two answers begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class _Shown:
    """What a reader has been given so far."""

    def __init__(self, generator: Generator, log_weights: Tensor, options: DecodingOptions) -> None:
        self._generator, self._log_weights, self._options = generator, log_weights, options
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

    def rest(self, answer: Decoded) -> Iterator[Written]:
        """What is left when the search is over, and the answer itself."""
        text = answer.text(self._generator)
        for place in range(self._count, len(answer.ids)):
            if place == len(answer.ids) - 1:
                self._text = text
            yield Written(self._text, answer.ids[place], answer.token_posteriors[place])
        yield Written(text, None, answer.posterior, answer)

    def _ready(self, ids: list[int]) -> int | None:
        """How many tokens may be shown, None when no more than before."""
        for count in range(len(ids), self._count, -1):
            if self._stays(self._generator.decode(ids[:count])):
                return count
        return None

    def _stays(self, text: str) -> bool:
        """Whether text neither ends inside a character nor holds what may become a stop."""
        if text.endswith(PART):
            return False
        return not any(
            stop in text or any(text.endswith(stop[:n]) for n in range(1, len(stop)))
            for stop in self._options.stop
        )
