"""The asker's side of a question: one answer out of the stores of several parties.

    every party looks    scores of its k best passages; the k best of all parties count
    those among them     propose answers; weigh everybody's; show what they may of the one chosen

What comes out is what one store with all documents would have answered by dense search and thorough
decoding, over the parties that answered: one that is lost on the way is named with the reason, and
the k best are then those of the others. Four messages to a party at most, each waited for no longer
than `patience`.

The question itself goes to every party that is there, and the proposals of each to the others whose
passages count. Passages go nowhere.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from consilience.errors import ConsilienceError, RemoteError
from consilience.federation.asking import Asking, Tally
from consilience.federation.contracts import Parties, Wait
from consilience.federation.exchange import (
    STEPS,
    Bounds,
    Question,
    Shown,
    Weighed,
    packed,
    scores_of,
    unpacked,
)
from consilience.federation.federated_answer import FederatedAnswer, PartyShare, Source
from consilience.federation.likeness import likeness
from consilience.federation.messages import Message
from consilience.federation.mixture import Mixed, mixed, party_prior, taken
from consilience.federation.part import Ids
from consilience.model.answering import CITED_FROM, Clock
from consilience.model.asking import checked
from consilience.model.rag import Rag
from consilience.text import language_of

_LARGEST = 16 * 1024 * 1024  # bytes of a reply

Tensors = Mapping[str, Tensor]
Told = tuple[Mapping[str, Any], Tensors]
"""Content and tensors of a request."""
What = TypeVar("What")


@dataclass(frozen=True, slots=True)
class InquiryOptions:
    """How a question is put to parties.

    Attributes:
        k: How many passages of all parties are summed over.
        beams: Answers that each passage proposes.
        max_new_tokens: The longest answer, in sub-words.
        mode: How passages are found; only `dense` gives scores that stores have in common.
        asker: Who asks, for the parties' books.
        patience: Seconds that each message to a party is waited for.
    """

    k: int = 5
    beams: int = 3
    max_new_tokens: int = 48
    mode: str = "dense"
    asker: str = "coordinator"
    patience: float = 60.0

    def question(self, text: str, model: str) -> Question:
        """The question as it travels.

        Raises:
            UsageError: Something is beyond its bounds, or the mode is another.
        """
        found = Question(
            text=text,
            asker=self.asker,
            model=model,
            k=self.k,
            beams=self.beams,
            tokens=self.max_new_tokens,
            mode=self.mode,
        )
        found.check()
        return found


def inquire(
    question: str,
    rag: Rag,
    parties: Parties,
    options: InquiryOptions | None = None,
    *,
    absent: Mapping[str, str] | None = None,
) -> FederatedAnswer:
    """Answer a question out of the stores of parties.

    Args:
        question: What is asked; it goes to every party that is there.
        rag: The asker's model, the same as the parties'.
        parties: The way to them; it is not closed.
        options: How; None for the defaults.
        absent: Parties that are known and not there, with the reason.

    Raises:
        UsageError: A question or options that nobody could answer.
        RemoteError: No party answered; the message has each one's reason.
    """
    options, clock = options or InquiryOptions(), Clock()
    asked = options.question(checked(question), likeness(rag))
    return _Inquiry(asked, rag, parties, options, clock, dict(absent or {})).answer()


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the parties that are still there saw, and what of it counts.

    Attributes:
        counts: How many passages of each party are among the k best of all; parties of which none
            is are not in it.
        prior: p(i | x) of the parties in `counts`, `[parties]`.
    """

    counts: Mapping[str, int]
    prior: Tensor


@dataclass(frozen=True, slots=True)
class _Found:
    """What everybody's answers come to.

    Attributes:
        looked: Over which passages.
        answers: All that were proposed.
        mixed: The sum.
    """

    looked: _Looked
    answers: list[Ids]
    mixed: Mixed

    @property
    def best(self) -> int:
        """Where the likeliest answer stands."""
        return int(self.mixed.log_likelihoods.argmax())

    @property
    def ids(self) -> Ids:
        """The likeliest answer, its end included where it has one."""
        return self.answers[self.best]

    def shares(self) -> dict[str, float]:
        """p(i | x, y) of the likeliest answer."""
        return dict(
            zip(self.looked.counts, self.mixed.posterior[:, self.best].tolist(), strict=True)
        )


@dataclass(slots=True)
class _Inquiry:
    """One question on its way."""

    question: Question
    rag: Rag
    parties: Parties
    options: InquiryOptions
    clock: Clock
    lost: dict[str, str]
    name: str = field(default_factory=lambda: f"ask-{secrets.token_hex(8)}")
    scores: dict[str, Tensor] = field(default_factory=dict)
    rounds: int = 0

    def answer(self) -> FederatedAnswer:
        """Ask until those that are left have said all that is needed."""
        self._look()
        while looked := self._looked():
            found = self._found(looked)
            if found is not None:
                return self._answered(found)
        if not self.scores:
            raise RemoteError(
                f"no party answered: {_listed(self.lost) or 'none is there'}",
                hint="start the parties, or ask them to let themselves be asked: "
                "asking: {tells: answer}",
            )
        return self._unanswered()

    def _look(self) -> None:
        names = self.parties.present()
        content = self.question.to_dict()
        said = self._ask("look", dict.fromkeys(names, (content, {})))
        self.scores = self._read(said, lambda _, one: scores_of(one.tensors, self.question.k))
        self.clock.mark("look")

    def _looked(self) -> _Looked | None:
        """The k best passages of the parties that are left; None where there is no passage."""
        counts = taken(self.scores, self.question.k)
        if not counts:
            return None
        temperature = float(self.rag.model.temperature.detach())
        return _Looked(counts, party_prior(self.scores, counts, temperature))

    def _found(self, looked: _Looked) -> _Found | None:
        """What comes of it; None where a party was lost on the way."""
        self.rounds += 1
        answers = self._proposed(looked)
        if not answers or looked.counts.keys() - self.scores.keys():
            return None
        parts = self._weighed(looked, answers)
        if looked.counts.keys() - parts.keys():
            return None
        supports = torch.tensor([parts[name].support for name in looked.counts]).double()
        table = torch.stack([parts[name].log_likelihoods for name in looked.counts])
        return _Found(looked, answers, mixed(looked.prior, supports, table))

    def _proposed(self, looked: _Looked) -> list[Ids]:
        requests: dict[str, Told] = {
            name: ({"take": count}, {}) for name, count in looked.counts.items()
        }

        def read(name: str, said: Message) -> list[Ids]:
            return _some(unpacked(said.tensors, self._bounds(looked.counts[name])))

        found = self._read(self._ask("propose", requests), read)
        self._keep(looked.counts, found)
        self.clock.mark("propose")
        return list(dict.fromkeys(one for answers in found.values() for one in answers))

    def _weighed(self, looked: _Looked, answers: Sequence[Ids]) -> dict[str, Weighed]:
        tensors, end = packed(answers), self.rag.model.generator.end
        requests = {name: ({"take": count}, tensors) for name, count in looked.counts.items()}
        said = self._ask("weigh", requests)
        found = self._read(said, lambda _, one: Weighed.of(one.tensors, answers, end=end))
        self._keep(looked.counts, found)
        self.clock.mark("weigh")
        return found

    def _shown(self, found: _Found) -> dict[str, Shown]:
        """What the parties show of the likeliest answer; one that is lost here shows nothing."""
        counts, tensors = found.looked.counts, packed([found.ids])
        requests = {name: ({"take": count}, tensors) for name, count in counts.items()}
        said = self._ask("show", requests)
        shown = self._read(
            said, lambda name, one: Shown.of(one.content, one.tensors, passages=counts[name])
        )
        self.clock.mark("show")
        return shown

    def _ask(self, kind: str, requests: Mapping[str, Told]) -> dict[str, Message]:
        """Ask parties one thing; who does not answer is lost."""
        messages = {
            name: Message(kind, self.name, self.rounds, name, content, tensors)
            for name, (content, tensors) in requests.items()
        }
        if not messages:
            return {}
        tally, wait = Tally(), Wait(len(messages), 0.0, self.options.patience)
        asking = Asking(self.parties, most=_LARGEST)
        said = asking.ask(messages, wait, tally, kind=STEPS[kind])
        self.lost |= tally.lost
        return said

    def _read(
        self, said: Mapping[str, Message], read: Callable[[str, Message], What]
    ) -> dict[str, What]:
        """What parties said; one that says what cannot be is lost."""
        found = {}
        for name, message in said.items():
            try:
                found[name] = read(name, message)
            except ConsilienceError as error:
                self.lost[name] = error.message
        return found

    def _keep(self, asked: Mapping[str, int], found: Mapping[str, Any]) -> None:
        """Go on without those that were asked and did not answer."""
        for name in asked.keys() - found.keys():
            del self.scores[name]

    def _bounds(self, passages: int) -> Bounds:
        question, generator = self.question, self.rag.model.generator
        return Bounds(passages * question.beams, question.tokens + 1, generator.vocabulary_size)

    def _answered(self, found: _Found) -> FederatedAnswer:
        settings, support = self.rag.settings, found.mixed.support
        abstained = support < settings.threshold_for(language_of(self.question.text))
        likelihood, tokens = float(found.mixed.log_likelihoods[found.best]), len(found.ids)
        shown = {} if abstained else self._shown(found)
        return FederatedAnswer(
            text="" if abstained else self._text(found, shown),
            abstained=abstained,
            confidence=settings.confidence.of(support, likelihood, tokens),
            support=support,
            log_likelihood=likelihood,
            sources=() if abstained else _sources(found, shown),
            parties=self._shares(found),
            question=self.question.text,
            timings_ms=self.clock.all(),
        )

    def _unanswered(self) -> FederatedAnswer:
        """None of the parties that answered has a passage."""
        return FederatedAnswer(
            "",
            abstained=True,
            confidence=0.0,
            support=0.0,
            log_likelihood=None,
            parties=self._shares(None),
            question=self.question.text,
            timings_ms=self.clock.all(),
        )

    def _shares(self, found: _Found | None) -> tuple[PartyShare, ...]:
        """Every party, those that were lost with the reason."""
        counts = {} if found is None else found.looked.counts
        prior = {} if found is None else dict(zip(counts, found.looked.prior.tolist(), strict=True))
        posterior = {} if found is None else found.shares()
        return tuple(
            PartyShare(
                name=name,
                answered=name in self.scores,
                passages=counts.get(name, 0),
                prior=prior.get(name, 0.0),
                posterior=posterior.get(name, 0.0),
                reason=self.lost.get(name, ""),
            )
            for name in sorted(self.scores.keys() | self.lost.keys())
        )

    def _text(self, found: _Found, shown: Mapping[str, Shown]) -> str:
        """The answer as the passage with the largest share spells it, else as the vocabulary does.

        A spelling is taken only where it is that answer to the model: no party may put its own
        words in the place of what was weighed.
        """
        generator, ids = self.rag.model.generator, found.ids
        plain = generator.decode([one for one in ids if one != generator.end])
        shares, spelled = found.shares(), []
        for name, one in shown.items():
            if one.spelled is not None:
                row, text = one.spelled
                spelled.append((shares[name] * float(one.shares[row]), text))
        for _, text in sorted(spelled, reverse=True):
            if _alike(generator.decode(generator.answer_ids(text)[:-1]), plain):
                return text
        return plain


def _alike(one: str, other: str) -> bool:
    return "".join(one.split()) == "".join(other.split())


def _some(answers: list[Ids]) -> list[Ids]:
    if not answers:
        raise RemoteError("it has passages and proposes no answer to them")
    return answers


def _sources(found: _Found, shown: Mapping[str, Shown]) -> tuple[Source, ...]:
    """Passages that carry a twentieth of the answer at least, the largest share first."""
    whole = found.shares()
    every = [
        Source(name, place + 1, whole[name] * share, evidence)
        for name, one in shown.items()
        for place, (share, evidence) in enumerate(
            zip(one.shares.tolist(), one.evidence, strict=True)
        )
    ]
    every.sort(key=lambda source: -source.posterior)
    return tuple(s for place, s in enumerate(every) if place == 0 or s.posterior >= CITED_FROM)


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
