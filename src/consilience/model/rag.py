"""`Rag`: a retriever and a generator joined, loaded, asked and saved.

The way of a question: history joins it, the retriever proposes passages, their scores become the
prior, the generator reads them, the sum is searched, and what it wrote is found again in the
sources. It knows no files of documents and no screen.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from consilience.encoding import Encoder
from consilience.encoding.narrow import ForMany
from consilience.errors import UsageError
from consilience.generation import TrainableGenerator
from consilience.model.answer import Answer, Piece
from consilience.model.answering import Asked, Clock, answered, chosen, unanswered
from consilience.model.asking import AskOptions, checked, standalone
from consilience.model.cohort import Cohort, Member
from consilience.model.decoding import decode
from consilience.model.decoding.choices import choose
from consilience.model.decoding.streaming import require_one_answer
from consilience.model.loading import Parts, Settings, load_parts, save_parts
from consilience.model.precision import Precision, set_precision
from consilience.model.rag_model import RagModel
from consilience.model.reading import Reading, read
from consilience.retrieval import (
    HybridWeights,
    Mode,
    Refinement,
    Retriever,
    Tuning,
    open_retriever,
    refined,
)
from consilience.retrieval.refining import AS_FOUND
from consilience.text import language_of

if TYPE_CHECKING:
    from consilience.generation.remote import RemoteGenerator
    from consilience.retrieval.engines import Copy
    from consilience.store import Store


class Rag:
    """A whole model: `Rag.load()`, `rag.ask(question, store)`, `rag.save(folder)`.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._store: Store | Copy | None = None
        self._retrievers: dict[tuple[Mode, Refinement], Retriever] = {}
        self._tuning = Tuning()
        self._opening = threading.RLock()

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        precision: Precision | None = None,
        device: str | None = None,
    ) -> "Rag":
        """Load a model.

        Args:
            name: A folder that `save` wrote, a folder or hub id of a checkpoint of transformers'
                RAG classes, or None for the model that ships with the package.
            precision: In which numbers it computes, see `model.precision`; None for what is fastest
                on this processor. With `float32` no stored weight is rounded.
            device: Where it computes: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the accelerator
                that torch finds; None for what `CONSILIENCE_DEVICE` says, else the processor.

        Raises:
            UsageError: An unknown precision, or a device that is not there.
            MissingError: There is no such model.
            DamagedError: A file of it is missing or was changed.
            VersionError: A newer version wrote it.
        """
        rag = cls(load_parts(name, device=device, exact=precision == "float32"))
        if precision is not None:
            set_precision(rag.model, precision)
        return rag

    @classmethod
    def of(
        cls,
        generator: "TrainableGenerator | RagModel | RemoteGenerator",
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
        temperature: float = 1.0,
    ) -> "Rag":
        """Join any generator with stores.

        Args:
            generator: What writes, a `RagModel` around it, with its attention and its ranks, or a
                model behind an endpoint, which then sees the passages.
            encoder: The encoder of the stores' vectors; without one passages are found by words.
            settings: How it answers; None for passages by words without an encoder, else hybrid.
            temperature: Of the prior, when the generator comes without a `RagModel`.
        """
        mode: Mode = "bm25" if encoder is None else "hybrid"
        settings = settings or Settings(mode=mode, temperature=temperature)
        return cls(Parts(_summing(generator, temperature), encoder, settings))

    @property
    def model(self) -> RagModel:
        """The sum with its generator.

        Raises:
            UsageError: The generator is behind an endpoint.
        """
        if isinstance(self.parts.model, RagModel):
            return self.parts.model
        raise UsageError(
            "this model is behind an endpoint: it has no weights here",
            hint="ask it with the fusion sequence or concat",
        )

    @property
    def encoder(self) -> Encoder | None:
        """The retriever's half; None for a model that searches by words only."""
        return self.parts.encoder

    @property
    def settings(self) -> Settings:
        """How it answers."""
        return self.parts.settings

    def save(self, path: str | Path) -> None:
        """Write the model as it is now, trained further or not, as a folder that `load` reads.

        Raises:
            UsageError: The folder is the one that the model was loaded from, or the model was
                joined from parts in Python.
        """
        save_parts(self.parts, Path(path))

    def narrow(self) -> None:
        """Get ready for many questions, which takes as long as one or two of them.

        Where float16 holds the weights as they are, as it does those of the model that ships, a
        copy in it halves what a step of an answer reads; see `encoding.narrow`. Answers differ in
        the order of sums only.
        """
        for half in (self.encoder, getattr(self.parts.model, "generator", None)):
            if isinstance(half, ForMany):
                half.narrow()

    def retriever(
        self, store: "Store | Copy", mode: Mode | None = None, refinement: Refinement | None = None
    ) -> Retriever:
        """The retriever of a store with this model's encoder; those of the last store are kept.

        Args:
            store: The knowledge base, or a published copy of one; what was measured on it counts,
                as of the first time.
            mode: How passages are found; None for what suits the model.
            refinement: What is done to their ranking; None for nothing.

        Raises:
            UsageError: The mode or the refinement needs an encoder and this model has none, or the
                store keeps numbers that cannot be used.
            FingerprintError: The store's vectors are another encoder's.
        """
        mode = mode or self.settings.mode
        if mode != "bm25" and self.encoder is None:
            raise UsageError(
                f"this model has no encoder, so it cannot search in the mode {mode}",
                hint="take the mode bm25, or join it with an encoder: Rag.of(…, encoder=…)",
            )
        with self._opening:
            tuning, key = self.tuning(store), (mode, refinement or AS_FOUND)
            if key not in self._retrievers:
                plain = open_retriever(
                    store,
                    mode=mode,
                    encoder=None if mode == "bm25" else self.encoder,
                    weights=HybridWeights(**self.settings.hybrid_weights),
                    tuning=tuning,
                )
                self._retrievers[key] = refined(plain, key[1], store=store, encoder=self.encoder)
            return self._retrievers[key]

    def tuning(self, store: "Store | Copy") -> Tuning:
        """How a store is searched, as it was when it was searched first; see `retriever`."""
        with self._opening:
            if store is not self._store:
                self._tuning = Tuning.of(store)
                self._store, self._retrievers = store, {}
            return self._tuning

    def ask(
        self, question: str, store: "Store | Copy", options: AskOptions | None = None
    ) -> Answer:
        """Answer a question from a store.

        Args:
            question: What is asked, in Chinese or English.
            store: The knowledge base.
            options: How; None for the defaults.

        Raises:
            UsageError: An empty or an overlong question, or something that this model cannot do.
            FingerprintError: The store's vectors are another encoder's.
        """
        options, clock = options or AskOptions(), Clock()
        return self.answer(self.look_up(question, store, options, clock), options, clock)

    def answer(self, asked: Asked, options: AskOptions, clock: Clock) -> Answer:
        """Answer a question whose passages were found; raises as `ask`."""
        if not asked.hits:
            return unanswered(asked.question, clock)
        if not isinstance(self.parts.model, RagModel):
            return self._from_afar(self.parts.model, asked, options, clock)
        reading = self.read(asked, options, clock)
        if options.among:
            return self._chosen(asked, reading, options, clock)
        written = decode(
            reading.generator,
            reading.memory,
            reading.log_weights,
            options=options.decoding(self.settings.decoding),
        )[0]
        clock.mark("write")
        return answered(asked, reading, written, clock)

    def _chosen(self, asked: Asked, reading: Reading, options: AskOptions, clock: Clock) -> Answer:
        """The likeliest of the answers that there are."""
        found = choose(
            self.model.generator,
            reading.memory,
            reading.log_weights,
            options.among,
            fusion=options.decoding().fusion,
        )
        clock.mark("write")
        return chosen(asked, reading, found, clock)

    def stream(
        self, question: str, store: "Store | Copy", options: AskOptions | None = None
    ) -> Iterator[Piece]:
        """Answer a question token by token; raises as `ask`.

        Yields:
            What is written so far, and at the end a piece with the whole `Answer`, spelled as its
            source spells it. A model behind an endpoint has that last piece only.
        """
        options, clock = options or AskOptions(), Clock()
        asked = self.look_up(question, store, options, clock)
        if not asked.hits or options.among or not isinstance(self.parts.model, RagModel):
            whole = self.answer(asked, options, clock)
            yield Piece(whole.text, whole.posterior, whole)
            return
        how = options.decoding(self.settings.decoding)
        require_one_answer(1, how)
        member = Member(asked, self.read(asked, options, clock), clock)
        yield from _pieces(Cohort([member], how))

    def _from_afar(
        self, generator: "RemoteGenerator", asked: Asked, options: AskOptions, clock: Clock
    ) -> Answer:
        from consilience.model.afar import ask_from_afar

        return ask_from_afar(
            generator,
            asked,
            options,
            temperature=asked.temperature or self.settings.temperature,
            clock=clock,
        )

    def look_up(
        self, question: str, store: "Store | Copy", options: AskOptions, clock: Clock
    ) -> Asked:
        """Find the passages of a question, the first stage of `ask`; threads may do it at once."""
        looked_up = standalone(checked(question), options.history)
        retriever = self.retriever(store, options.mode, options.refinement)
        tuning = self.tuning(store)
        hits = retriever.search(
            looked_up,
            k=tuning.proposed(options.k),
            access=options.access,
            where=options.where,
        )
        clock.mark("retrieve")
        least = self.settings.threshold_for(language_of(looked_up)) if options.abstain else 0.0
        # It was measured on fused scores; those of one half alone have another scale.
        fused = (options.mode or self.settings.mode) == "hybrid"
        heat = tuning.temperature if fused else None
        return Asked(looked_up, hits, least, heat, self.settings.confidence, options.quote)

    def read(self, asked: Asked, options: AskOptions, clock: Clock) -> Reading:
        """Read the passages of a question, the second stage of `ask`; there is at least one."""
        reading = read(
            self.model,
            asked.question,
            asked.hits,
            fusion=options.fusion,
            encoder=self.encoder,
            temperature=asked.temperature,
        )
        clock.mark("read")
        return reading


def _summing(
    generator: "TrainableGenerator | RagModel | RemoteGenerator", temperature: float
) -> "RagModel | RemoteGenerator":
    """A generator that runs here with a sum around it; a remote one as it is."""
    from consilience.generation.remote import RemoteGenerator

    if isinstance(generator, RagModel):
        return generator.eval()
    if isinstance(generator, RemoteGenerator):
        return generator
    return RagModel(generator, temperature=temperature).eval()


def _pieces(alone: Cohort) -> Iterator[Piece]:
    """What is shown of a question that is written alone."""
    while alone.open:
        for member, written in alone.step():
            piece = alone.piece(member, written)
            if piece is not None:
                yield piece
