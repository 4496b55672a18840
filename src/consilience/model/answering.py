"""From what was written to an `Answer`: its spelling, its quotes, its citations.

Knows passages and shares of them; how the answer was found is not its affair.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from consilience.generation import Generator
from consilience.model.answer import Alternative, Answer, Citation, Quote, TokenPosterior
from consilience.model.decoding import Decoded
from consilience.model.reading import Reading, Shares
from consilience.retrieval import Hit
from consilience.text import language_of

CITED_FROM = 0.05
"""The least share of an answer for which a passage is cited; that with the largest always is."""

Quotes = Sequence[tuple[Quote, ...]]
"""For each passage, where its source has the answer's words."""


@dataclass(slots=True)
class Clock:
    """Milliseconds of each stage since the one before."""

    begun: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=dict)

    def mark(self, stage: str) -> None:
        """End a stage here."""
        spent = 1000 * (time.perf_counter() - self.begun) - sum(self.timings.values())
        self.timings[stage] = spent

    def all(self) -> dict[str, float]:
        """Every stage and the total, rounded to a microsecond."""
        total = sum(self.timings.values())
        return {k: round(v, 3) for k, v in (self.timings | {"total": total}).items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way to an answer.

    Attributes:
        question: What was looked up.
        hits: The passages found.
        least: Below this support the answer is withheld.
    """

    question: str
    hits: Sequence[Hit]
    least: float


def unanswered(question: str, clock: Clock) -> Answer:
    """What a question gets when no passage was found."""
    return Answer("", abstained=True, confidence=0.0, question=question, timings_ms=clock.all())


def answered(asked: Asked, reading: Reading, written: Sequence[Decoded], clock: Clock) -> Answer:
    """The answer with its evidence; the further ones are its alternatives."""
    best, generator = written[0], reading.generator
    shares = reading.shares(best)
    quotes = _quotes(asked.hits, reading, best)
    clock.mark("cite")
    abstained = best.support < asked.least
    ids = [hit.passage.id for hit in asked.hits]
    return Answer(
        text="" if abstained else _text(best, shares, quotes, generator),
        abstained=abstained,
        confidence=best.support,
        citations=() if abstained else _citations(asked.hits, shares, quotes),
        posterior=dict(zip(ids, shares.whole.tolist(), strict=True)),
        tokens=_tokens(best, shares, ids, generator),
        alternatives=() if abstained else _alternatives(asked.hits, reading, written[1:]),
        question=asked.question,
        timings_ms=clock.all(),
    )


def _alternatives(
    hits: Sequence[Hit], reading: Reading, written: Sequence[Decoded]
) -> tuple[Alternative, ...]:
    found = []
    for one in written:
        shares, quotes = reading.shares(one), _quotes(hits, reading, one)
        text = _text(one, shares, quotes, reading.generator)
        found.append(Alternative(text, one.log_likelihood))
    return tuple(found)


def _quotes(hits: Sequence[Hit], reading: Reading, one: Decoded) -> Quotes:
    if reading.passages is None:
        return [()] * len(hits)
    return [_quoted(hit, reading, row, one.ids) for row, hit in enumerate(hits)]


def _quoted(hit: Hit, reading: Reading, row: int, ids: list[int]) -> tuple[Quote, ...]:
    start, text = hit.passage.start, hit.passage.text
    return tuple(
        Quote(start + one.start, start + one.end, text[one.start : one.end])
        for one in reading.generator.locate(reading.passages, row, ids)
    )


def _text(best: Decoded, shares: Shares, quotes: Quotes, generator: Generator) -> str:
    """The answer as the passage with the largest share spells it, else as the vocabulary does."""
    for row in shares.whole.argsort(descending=True).tolist():
        if quotes[row] and len(quotes[row]) <= 1 + len(best.ids) // 3:
            parts = [quote.text for quote in quotes[row]]
            return ("" if language_of("".join(parts)) == "zh" else " ").join(parts)
    return best.text(generator)


def _citations(hits: Sequence[Hit], shares: Shares, quotes: Quotes) -> tuple[Citation, ...]:
    order = shares.whole.argsort(descending=True).tolist()
    whole = shares.whole.tolist()
    return tuple(
        Citation(hits[row].passage, whole[row], quotes[row])
        for place, row in enumerate(order)
        if place == 0 or whole[row] >= CITED_FROM
    )


def _tokens(
    best: Decoded, shares: Shares, ids: Sequence[str], generator: Generator
) -> tuple[TokenPosterior, ...]:
    return tuple(
        TokenPosterior(word, dict(zip(ids, of_token, strict=True)))
        for word, of_token in zip(generator.words(best.ids), shares.tokens.tolist(), strict=True)
    )
