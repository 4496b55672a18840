"""What a question gets back from several parties: an answer, and how much of it is whose.

Plain frozen data with a JSON form that has the keys of an `Answer`. What a party does not show is
None: of such a passage only its party is known, and its place among what that party found.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from consilience.federation.exchange import Evidence


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that the answer rests on.

    Attributes:
        party: Whose.
        number: Its place among what that party found, from 1; it names nothing beyond this answer.
        posterior: p(d | x, y), its share of the answer, from 0 to 1.
        evidence: What the party shows of it.
    """

    party: str
    number: int
    posterior: float
    evidence: Evidence

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as a citation's."""
        shown = self.evidence.to_dict()
        quotes = shown["quotes"]
        return {
            "party": self.party,
            "passage_id": f"{self.party}:{self.number}",
            **shown,
            "start": quotes[0]["start"] if quotes else None,
            "end": quotes[-1]["end"] if quotes else None,
            "posterior": self.posterior,
        }


@dataclass(frozen=True, slots=True)
class PartyShare:
    """What a party had to do with the answer.

    Attributes:
        name: Of the party.
        answered: Whether it is in the sum.
        passages: How many of its passages are among the k best of all.
        prior: p(i | x), its share of the prior.
        posterior: p(i | x, y), its share of the answer; where the answer is withheld, of the one
            that would have been given.
        reason: Why it is not in the sum, or shows nothing; empty where all is well.
    """

    name: str
    answered: bool
    passages: int
    prior: float
    posterior: float
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FederatedAnswer:
    """An answer out of the stores of several parties.

    Attributes:
        text: The answer; empty when there is none.
        abstained: Whether the passages gave too little support for an answer.
        confidence: How sure the answer is, over the passages of all parties together.
        support: p(there is an answer | x) over the same, by which an answer is withheld or not.
        log_likelihood: log p(y | x) given that there is an answer, in nats; None without a passage.
        sources: Passages that carry at least a twentieth of the answer, the largest share first.
        parties: Every party, by name.
        question: What was asked.
        timings_ms: Milliseconds by step.
    """

    text: str
    abstained: bool
    confidence: float
    support: float
    log_likelihood: float | None
    sources: tuple[Source, ...] = ()
    parties: tuple[PartyShare, ...] = ()
    question: str = ""
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "answer": self.text,
            "abstained": self.abstained,
            "confidence": self.confidence,
            "support": self.support,
            "log_likelihood": self.log_likelihood,
            "question": self.question,
            "citations": [source.to_dict() for source in self.sources],
            "parties": [party.to_dict() for party in self.parties],
            "timings_ms": dict(self.timings_ms),
        }
