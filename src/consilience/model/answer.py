"""What a question gets back: an answer, how sure it is, and exactly what it rests on.

Plain frozen data with a JSON form; needs neither torch nor a store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consilience.documents import Passage


@dataclass(frozen=True, slots=True)
class Quote:
    """Characters of a source that the answer repeats: `source_text[start:end] == text`."""

    start: int
    end: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"start": self.start, "end": self.end, "text": self.text}


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that the answer rests on.

    Attributes:
        passage: The passage; `start` and `end` count characters of the source's text.
        posterior: p(d | x, y), its share of the answer, from 0 to 1.
        quotes: Where in the source the answer's own words stand, in the order of the answer; empty
            when the answer was not taken from this passage word for word.
    """

    passage: Passage
    posterior: float
    quotes: tuple[Quote, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "passage_id": self.passage.id,
            "source": self.passage.source,
            "title": self.passage.title,
            "page": self.passage.page,
            "start": self.passage.start,
            "end": self.passage.end,
            "text": self.passage.text,
            "posterior": self.posterior,
            "quotes": [quote.to_dict() for quote in self.quotes],
        }


@dataclass(frozen=True, slots=True)
class TokenPosterior:
    """One token of the answer and which passage it came from: passage id to p(d | x, y_t, y_<t)."""

    text: str
    posterior: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"text": self.text, "posterior": dict(self.posterior)}


@dataclass(frozen=True, slots=True)
class Alternative:
    """A further answer to the same question.

    Attributes:
        text: Of it.
        log_likelihood: log p(y | x) in nats; None when a remote model does not tell it.
    """

    text: str
    log_likelihood: float | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"text": self.text, "log_likelihood": self.log_likelihood}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence.

    Attributes:
        text: The answer; empty when there is none.
        abstained: Whether the passages gave too little support for an answer.
        confidence: How sure the answer is, from 0 to 1, see `consilience.model.confidence`.
        citations: Passages that carry at least a twentieth of the answer, the largest share first.
        posterior: p(d | x, y) of every passage in the sum, by passage id.
        tokens: The posterior of every token.
        alternatives: Further answers, the best first, when more than one was asked for.
        question: What was looked up, after history was taken into account.
        support: p(there is an answer | x), by which an answer is withheld or not.
        log_likelihood: log p(y | x) given that there is an answer, in nats; None without a passage
            and from a model behind an endpoint.
        timings_ms: Milliseconds by stage.
    """

    text: str
    abstained: bool
    confidence: float
    citations: tuple[Citation, ...] = ()
    posterior: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[TokenPosterior, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    question: str = ""
    support: float = 0.0
    log_likelihood: float | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """The JSON form; with `explain` the posterior of every token and passage too."""
        found: dict[str, Any] = {
            "answer": self.text,
            "abstained": self.abstained,
            "confidence": self.confidence,
            "support": self.support,
            "log_likelihood": self.log_likelihood,
            "question": self.question,
            "citations": [citation.to_dict() for citation in self.citations],
            "timings_ms": dict(self.timings_ms),
        }
        if self.alternatives:
            found["alternatives"] = [one.to_dict() for one in self.alternatives]
        if explain:
            found["posterior"] = dict(self.posterior)
            found["tokens"] = [token.to_dict() for token in self.tokens]
        return found


@dataclass(frozen=True, slots=True)
class Piece:
    """An answer that is being written.

    Attributes:
        text: What is written so far.
        posterior: Of the last token, by passage id; empty where the fusion has none on the way.
        answer: The whole; set on the last piece only, whose `text` is the answer's.
    """

    text: str
    posterior: Mapping[str, float]
    answer: Answer | None = None
