"""A party's side of a question: it looks in its own store, and says what its file lets it say.

    look      → scores of its k best passages
    propose   → answers that its passages among the k best of all propose
    weigh     → how likely everybody's answers are over its own passages
    show      → shares of the answer that was chosen; sources and sentences where the party tells

The steps of a question are bound together: a party shows the one answer that was chosen of those
it weighed, and takes few requests of a question, so that one question is no way to try a thousand
sentences. Questions are kept in memory only, a few at a time, and go with the process. Which
documents there are, it does not say: passages are numbered as they were found.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from consilience.errors import BusyError, UsageError
from consilience.federation.config import PartyConfig
from consilience.federation.consent import Book, Consent
from consilience.federation.exchange import (
    STEPS,
    Bounds,
    Question,
    Weighed,
    packed,
    unpacked,
)
from consilience.federation.likeness import likeness
from consilience.federation.messages import Message
from consilience.federation.part import Ids, Part, proposals, thorough, weighed
from consilience.federation.showing import shown
from consilience.model.answering import Clock
from consilience.model.asking import AskOptions
from consilience.model.decoding import DecodingOptions
from consilience.model.rag import Rag
from consilience.model.reading import Reading, read
from consilience.retrieval import Hit
from consilience.store import Store

BOOK = "asked.jsonl"

_AT_ONCE = 8  # questions that are kept
_REQUESTS = 16  # of one question; parties that are lost make it begin again

Said = tuple[Mapping[str, Any], Mapping[str, Tensor]]
"""Content and tensors of a reply."""


@dataclass(frozen=True, slots=True)
class _Weighing:
    """Answers that were weighed, over so many passages."""

    take: int
    answers: list[Ids]
    part: Part


@dataclass(slots=True)
class _Inquiry:
    """A question that is being asked.

    Attributes:
        question: As it came.
        hits: What was found, best first.
        replies: What was answered, by digest of the request.
        reading: Of the passages that counted last.
        weighing: The last one.
        shown: The answer that was shown; empty before.
    """

    question: Question
    hits: Sequence[Hit]
    replies: dict[bytes, Message] = field(default_factory=dict)
    reading: Reading | None = None
    weighing: _Weighing | None = None
    shown: Ids = ()


class Respondent:
    """Answers questions out of a party's store; implements `Responding`.

    Args:
        party: The party's own file.
    """

    def __init__(self, party: PartyConfig) -> None:
        self._party = party
        self._consent = Consent(party.name, party.asking, Book(party.state / BOOK))
        self._opened: _Opened | None = None
        self._inquiries: OrderedDict[str, _Inquiry] = OrderedDict()

    def answer(self, asked: Message, request: bytes) -> Message:
        """Answer one request.

        Raises:
            UsageError: The party does not answer, or not this.
            FingerprintError: The asker has another model.
            BusyError: Too many questions today, or too much about this one.
            ConsilienceError: As `Rag.load`, `Store.open` and `Rag.look_up`.
        """
        self._consent.require_any()
        key, inquiry = hashlib.sha256(request).digest(), self._inquiries.get(asked.run)
        if inquiry is not None and key in inquiry.replies:
            return inquiry.replies[key]
        content, tensors = self._said(asked, inquiry)
        reply = Message(
            STEPS[asked.kind], asked.run, asked.round, self._party.name, content, tensors
        )
        self._inquiries[asked.run].replies[key] = reply
        return reply

    def close(self) -> None:
        """Let go of the model and the store. A closed one can be asked again."""
        opened, self._opened = self._opened, None
        self._inquiries.clear()
        if opened is not None:
            opened.store.close()

    def _said(self, asked: Message, inquiry: _Inquiry | None) -> Said:
        if asked.kind == "look":
            return self._look(asked)
        if inquiry is None:
            raise UsageError(
                "this question is not known here any more",
                hint="ask it again from the beginning",
            )
        if len(inquiry.replies) >= _REQUESTS:
            raise BusyError("too many requests of one question", hint="ask it again")
        steps: dict[str, Callable[[Message, _Inquiry], Said]] = {
            "propose": self._propose,
            "weigh": self._weigh,
            "show": self._show,
        }
        return steps[asked.kind](asked, inquiry)

    def _look(self, asked: Message) -> Said:
        question = Question.parse(asked.content)
        if asked.run in self._inquiries:
            raise UsageError(
                "another question has this name already", hint="give each question a new one"
            )
        opened = self._open()
        self._consent.require_model(question.model, opened.model)
        self._consent.enter(question.asker)
        hits = opened.found(question, self._party.asking.access)
        self._inquiries[asked.run] = _Inquiry(question, hits)
        while len(self._inquiries) > _AT_ONCE:
            self._inquiries.popitem(last=False)
        return {}, {"scores": torch.tensor([hit.score for hit in hits], dtype=torch.float32)}

    def _propose(self, asked: Message, inquiry: _Inquiry) -> Said:
        reading = self._read(asked, inquiry)
        return {}, packed(proposals(reading, self._open().options(inquiry.question)))

    def _weigh(self, asked: Message, inquiry: _Inquiry) -> Said:
        opened, question = self._open(), inquiry.question
        options, reading = opened.options(question), self._read(asked, inquiry)
        bounds = Bounds(
            most=question.k * question.beams,
            longest=question.tokens + 1,
            vocabulary=reading.generator.vocabulary_size,
        )
        answers = unpacked(asked.tensors, bounds)
        if not answers:
            raise UsageError("there is no answer to weigh", hint="send at least one")
        part = weighed(reading, answers, options)
        inquiry.weighing = _Weighing(reading.k, answers, part)
        return {}, Weighed(part.log_likelihoods, part.support).tensors()

    def _show(self, asked: Message, inquiry: _Inquiry) -> Said:
        reading, weighing = self._read(asked, inquiry), inquiry.weighing
        bounds = Bounds(1, inquiry.question.tokens + 1, reading.generator.vocabulary_size)
        (answer,) = unpacked(asked.tensors, bounds) or ((),)
        if weighing is None or weighing.take != reading.k or answer not in weighing.answers:
            raise UsageError(
                "only an answer that was weighed is shown", hint="weigh it before it is shown"
            )
        if inquiry.shown not in ((), answer):
            raise UsageError("one answer to a question is shown", hint="ask another question")
        inquiry.shown = answer
        shares = weighing.part.shares[:, weighing.answers.index(answer)]
        hits = inquiry.hits[: reading.k]
        found = shown(hits, reading, answer, shares, tells=self._party.asking.tells)
        return found.content(), {"shares": found.shares}

    def _read(self, asked: Message, inquiry: _Inquiry) -> Reading:
        """Read the passages that count; kept for the next step, since reading is what takes time.

        Raises:
            UsageError: They are none, or more than were found.
        """
        take = asked.content.get("take")
        if type(take) is not int or not 1 <= take <= len(inquiry.hits):
            raise UsageError(
                "the passages that count must be some of those found",
                hint="run the same version everywhere",
            )
        if inquiry.reading is None or inquiry.reading.k != take:
            inquiry.reading = self._open().read(inquiry, take)
        return inquiry.reading

    def _open(self) -> "_Opened":
        if self._opened is None:
            self._opened = _Opened.of(self._party)
        return self._opened


@dataclass(slots=True)
class _Opened:
    """The model and the store that answer."""

    rag: Rag
    store: Store
    model: str

    @classmethod
    def of(cls, party: PartyConfig) -> "_Opened":
        place = party.asking.store or party.store
        if place is None:
            raise UsageError(
                "this party has no store to ask", hint="name one in its file: store: knowledge"
            )
        rag = Rag.load(party.asking.model or party.model)
        return cls(rag, Store.open(place, create=False), likeness(rag))

    def found(self, question: Question, access: Sequence[str]) -> Sequence[Hit]:
        """The best passages that an asker may be answered from."""
        options = AskOptions(k=question.k, mode="dense", access=tuple(access))
        return self.rag.look_up(question.text, self.store, options, Clock()).hits

    def options(self, question: Question) -> DecodingOptions:
        """How answers are searched."""
        base = self.rag.settings.decoding
        return thorough(base, beams=question.beams, tokens=question.tokens)

    def read(self, inquiry: _Inquiry, take: int) -> Reading:
        """Read the best passages of a question."""
        return read(
            self.rag.model,
            inquiry.question.text.strip(),
            inquiry.hits[:take],
            fusion="sequence",
            encoder=self.rag.encoder,
        )
