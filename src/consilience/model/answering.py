"""From what was written to an `Answer`: its spelling, its quotes, its citations.

Knows passages and shares of them; how the answer was found is not its affair.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from consilience.generation import Generator
from consilience.model.answer import Alternative, Answer, Citation, Quote, TokenPosterior
from consilience.model.confidence import SUPPORT, Confidence
from consilience.model.decoding import Decoded
from consilience.model.reading import Reading, Shares
from consilience.retrieval import Hit
from consilience.text import language_of

CITED_FROM = 0.05
"""The least share of an answer for which a passage is cited; that with the largest always is."""


class Quotes:
    """Where the source of each passage has the answer's words, looked up when it is asked for.

    Most passages of most answers are neither cited nor spelled from, and looking takes as long as
    writing a token.

    Args:
        hits: The passages.
        reading: The same, read.
        ids: The answer.
    """

    def __init__(self, hits: Sequence[Hit], reading: Reading, ids: list[int]) -> None:
        self._hits, self._reading, self._ids = hits, reading, ids
        self._found: dict[int, tuple[Quote, ...]] = {}

    def __getitem__(self, row: int) -> tuple[Quote, ...]:
        if row not in self._found:
            self._found[row] = self._look(row)
        return self._found[row]

    def _look(self, row: int) -> tuple[Quote, ...]:
        reading, passage = self._reading, self._hits[row].passage
        if reading.passages is None:
            return ()
        return tuple(
            Quote(
                passage.start + one.start,
                passage.start + one.end,
                passage.text[one.start : one.end],
            )
            for one in reading.generator.locate(reading.passages, row, self._ids)
        )


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
        temperature: Of the prior, as it was measured on the store; None for the model's.
        confidence: What the confidence in the answer is made of.
        quote: Whether the answer stands in one piece in a passage.
    """

    question: str
    hits: Sequence[Hit]
    least: float
    temperature: float | None = None
    confidence: Confidence = SUPPORT
    quote: bool = False

    def sure(self, written: Decoded) -> float:
        """The confidence in an answer, from 0 to 1."""
        tokens = max(len(written.ids) + written.ended, 1)
        return self.confidence.of(written.support, written.log_likelihood, tokens)


def unanswered(question: str, clock: Clock) -> Answer:
    """What a question gets when no passage was found."""
    return Answer("", abstained=True, confidence=0.0, question=question, timings_ms=clock.all())


def answered(asked: Asked, reading: Reading, written: Sequence[Decoded], clock: Clock) -> Answer:
    """The answer with its evidence; the further ones are its alternatives."""
    best, generator = written[0], reading.generator
    shares = reading.shares(best)
    quotes = Quotes(asked.hits, reading, best.ids)
    abstained = best.support < asked.least
    source = None if abstained else _source(shares, quotes, len(best.ids), whole=asked.quote)
    text = "" if abstained else _text(best, source, quotes, generator)
    citations = () if abstained else _citations(asked, shares, quotes, source)
    clock.mark("cite")
    ids = [hit.passage.id for hit in asked.hits]
    return Answer(
        text=text,
        abstained=abstained,
        confidence=asked.sure(best),
        citations=citations,
        posterior=dict(zip(ids, shares.whole.tolist(), strict=True)),
        tokens=_tokens(best, shares, ids, generator),
        alternatives=() if abstained else _alternatives(asked, reading, written[1:]),
        question=asked.question,
        support=best.support,
        log_likelihood=best.log_likelihood,
        timings_ms=clock.all(),
    )


def chosen(
    asked: Asked, reading: Reading, found: Sequence[tuple[str, Decoded]], clock: Clock
) -> Answer:
    """As `answered`, where the answers were given; they are spelled as they were given."""
    (text, best), *others = found
    answer = answered(asked, reading, [best], clock)
    if answer.abstained:
        return answer
    rest = tuple(Alternative(other, one.log_likelihood) for other, one in others)
    return replace(answer, text=text, alternatives=rest)


def _alternatives(
    asked: Asked, reading: Reading, written: Sequence[Decoded]
) -> tuple[Alternative, ...]:
    found = []
    for one in written:
        shares, quotes = reading.shares(one), Quotes(asked.hits, reading, one.ids)
        source = _source(shares, quotes, len(one.ids), whole=asked.quote)
        text = _text(one, source, quotes, reading.generator)
        found.append(Alternative(text, one.log_likelihood))
    return tuple(found)


def _source(shares: Shares, quotes: Quotes, length: int, *, whole: bool) -> int | None:
    """The passage that spells an answer of `length` sub-words: that with the largest share.

    Args:
        shares: Of the passages in the answer.
        quotes: The answer in each passage.
        length: Of the answer.
        whole: Whether only a passage counts that has it in one piece.

    Returns:
        Its place; None where no passage does.
    """
    for row in shares.whole.argsort(descending=True).tolist():
        if spelling(quotes[row], length) and not (whole and len(quotes[row]) > 1):
            return int(row)
    return None


def _text(best: Decoded, source: int | None, quotes: Quotes, generator: Generator) -> str:
    """The answer as its source spells it, else as the vocabulary does."""
    written = best.text(generator).rstrip()
    # A stop string may begin inside the last token, of which a passage has the whole.
    if source is None or (best.stopped_text is not None and generator.decode(best.ids) != written):
        return written
    return spelling(quotes[source], len(best.ids))


def spelling(quotes: Sequence[Quote], length: int) -> str:
    """An answer of `length` sub-words as a passage spells it.

    Empty where it does not have the answer's words, or has them in too many pieces.
    """
    if not quotes or len(quotes) > 1 + length // 3:
        return ""
    parts = [quote.text for quote in quotes]
    return ("" if language_of("".join(parts)) == "zh" else " ").join(parts)


def _citations(
    asked: Asked, shares: Shares, quotes: Quotes, source: int | None
) -> tuple[Citation, ...]:
    order = shares.whole.argsort(descending=True).tolist()
    whole = shares.whole.tolist()
    quoted = source if asked.quote else None
    return tuple(
        Citation(asked.hits[row].passage, whole[row], quotes[row])
        for place, row in enumerate(order)
        if place == 0 or whole[row] >= CITED_FROM or row == quoted
    )


def _tokens(
    best: Decoded, shares: Shares, ids: Sequence[str], generator: Generator
) -> tuple[TokenPosterior, ...]:
    return tuple(
        TokenPosterior(word, dict(zip(ids, of_token, strict=True)))
        for word, of_token in zip(generator.words(best.ids), shares.tokens.tolist(), strict=True)
    )
