"""`Rag`: a retriever and a generator joined, loaded, asked and saved.

The way of a question: history joins it, the retriever proposes passages, their scores become the
prior, the generator reads all of them at once, the sum is searched, and what it wrote is found
again in the sources. It knows no files of documents and no screen.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from consilience.encoding.compact import CompactEncoder, build_encoder
from consilience.encoding.folder import ModelConfig, ModelFolder, open_folder, write_folder
from consilience.errors import MissingError, UsageError
from consilience.generation import CompactGenerator, Pair
from consilience.generation.compact import build_generator
from consilience.model.answer import Answer, Citation, Quote, TokenPosterior
from consilience.model.decoding import Decoded, DecodingOptions, decode
from consilience.model.fusion import FUSIONS, Fusion, log_prior
from consilience.model.rag_model import RagModel
from consilience.retrieval import Hit, HybridWeights, Mode, Retriever, open_retriever
from consilience.text import language_of

if TYPE_CHECKING:
    from consilience.store import Store

CITED_FROM = 0.05
LONGEST_QUESTION = 4000


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier question of a conversation and the answer it got."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How a question is answered.

    Attributes:
        k: How many passages are summed over.
        mode: How they are found.
        fusion: Where the sum stands.
        beams: Answers kept at each step; 1 is greedy.
        max_new_tokens: The longest answer, in sub-words.
        history: Earlier turns, the oldest first.
        access: Labels that the reader holds; None reads everything.
        abstain: Whether an answer without support is withheld.
    """

    k: int = 5
    mode: Mode = "hybrid"
    fusion: Fusion = "sequence"
    beams: int = 3
    max_new_tokens: int = 48
    history: tuple[Turn, ...] = ()
    access: Collection[str] | None = None
    abstain: bool = True

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise UsageError(
                f"unknown fusion {self.fusion!r}", hint=f"choose one of: {', '.join(FUSIONS)}"
            )
        for name in ("k", "beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, received {getattr(self, name)}",
                    hint=f"leave {name} out for its default",
                )


@dataclass(slots=True)
class _Clock:
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


class Rag:
    """A whole model: `Rag.load()`, `rag.ask(question, store)`, `rag.save(folder)`.

    Args:
        config: Sizes and settings.
        encoder: The retriever's half.
        model: The sum with its generator.
        folder: Where it was loaded from.
    """

    def __init__(
        self, config: ModelConfig, *, encoder: CompactEncoder, model: RagModel, folder: ModelFolder
    ) -> None:
        self.config, self.encoder, self.model = config, encoder, model
        self._folder = folder
        self._store: Store | None = None
        self._retrievers: dict[Mode, Retriever] = {}

    @classmethod
    def load(cls, name: str | Path | None = None) -> "Rag":
        """Load a model.

        Args:
            name: A folder that `save` wrote; None for the model that ships with the package.

        Raises:
            MissingError: There is no such folder.
            DamagedError: A file of it is missing or was changed.
            VersionError: A newer version wrote it.
        """
        path = Path(name) if name is not None else None
        if path is not None and not path.is_dir():
            raise MissingError(
                f"no model folder {str(path)!r}",
                hint="name a folder that `Rag.save` wrote, or leave out --model",
            )
        folder = open_folder(path)
        tensors = folder.tensors()
        encoder = build_encoder(folder, tensors)
        generator = build_generator(folder, tensors, embeddings=encoder.embeddings)
        model = RagModel(generator, temperature=folder.config.prior_temperature)
        return cls(folder.config, encoder=encoder, model=model.eval(), folder=folder)

    def save(self, path: str | Path) -> None:
        """Write the model as it is now, trained further or not, as a folder that `load` reads.

        Raises:
            UsageError: The folder is the one that the model was loaded from.
        """
        path = Path(path)
        if path.resolve() == self._folder.path.resolve():
            raise UsageError(f"the model was loaded from {path}", hint="save it to another folder")
        tokenizer = (self._folder.path / "tokenizer.json").read_text(encoding="utf-8")
        config = replace(
            self.config, prior_temperature=float(self.model.log_temperature.detach().exp())
        )
        write_folder(path, config, dict(self._tensors()), tokenizer)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights under the names of a model folder."""
        generator = self.model.generator
        parts = {
            "embeddings": self.encoder.embeddings,
            "retriever": self.encoder.layers,
            "reader": generator.reader,
            "decoder": generator.decoder,
        }
        for part, module in parts.items():
            for name, value in module.state_dict().items():
                yield f"{part}.{name}", value.detach().contiguous()

    def retriever(self, store: "Store", mode: Mode = "hybrid") -> Retriever:
        """The retriever of a store with this model's encoder; that of the last store is kept.

        Raises:
            FingerprintError: The store's vectors are another encoder's.
        """
        if store is not self._store:
            self._store, self._retrievers = store, {}
        if mode not in self._retrievers:
            self._retrievers[mode] = open_retriever(
                store,
                mode=mode,
                encoder=None if mode == "bm25" else self.encoder,
                weights=HybridWeights(**self.config.hybrid_weights),
            )
        return self._retrievers[mode]

    def ask(self, question: str, store: "Store", options: AskOptions | None = None) -> Answer:
        """Answer a question from a store.

        Args:
            question: What is asked, in Chinese or English.
            store: The knowledge base.
            options: How; None for the defaults.

        Raises:
            UsageError: An empty or an overlong question.
            FingerprintError: The store's vectors are another encoder's.
        """
        options = options or AskOptions()
        clock = _Clock()
        asked = standalone(_checked(question), options.history)
        hits = self.retriever(store, options.mode).search(asked, k=options.k, access=options.access)
        clock.mark("retrieve")
        if not hits:
            return Answer(
                "", abstained=True, confidence=0.0, question=asked, timings_ms=clock.all()
            )
        return self._answer(asked, hits, options, clock)

    def _answer(
        self, asked: str, hits: Sequence[Hit], options: AskOptions, clock: _Clock
    ) -> Answer:
        generator = self.model.generator
        memory = generator.read([Pair(asked, h.passage.title, h.passage.text) for h in hits])
        clock.mark("read")
        scores = torch.tensor([[hit.score for hit in hits]])
        with torch.inference_mode():
            prior = log_prior(scores, self.model.log_temperature.exp())
        how = DecodingOptions(
            fusion=options.fusion, beams=options.beams, max_new_tokens=options.max_new_tokens
        )
        best = decode(generator, memory, prior, options=how)[0]
        clock.mark("write")
        quotes = self._quotes(memory, hits, best)
        clock.mark("cite")
        least = self.config.threshold_for(language_of(asked))
        abstained = options.abstain and best.support < least
        ids = [hit.passage.id for hit in hits]
        return Answer(
            text="" if abstained else _text(best, quotes, generator),
            abstained=abstained,
            confidence=best.support,
            citations=() if abstained else _citations(hits, best, quotes),
            posterior=dict(zip(ids, best.posterior.tolist(), strict=True)),
            tokens=_tokens(best, ids, generator),
            question=asked,
            timings_ms=clock.all(),
        )

    def _quotes(self, memory: Any, hits: Sequence[Hit], best: Decoded) -> list[tuple[Quote, ...]]:
        """For each passage, where its source has the answer's words."""
        found = []
        for row, hit in enumerate(hits):
            stretches = self.model.generator.locate(memory, row, best.ids)
            start, text = hit.passage.start, hit.passage.text
            found.append(
                tuple(
                    Quote(start + one.start, start + one.end, text[one.start : one.end])
                    for one in stretches
                )
            )
        return found


def standalone(question: str, history: Sequence[Turn]) -> str:
    """A follow-up question with what it follows: the last question and its answer before it."""
    if not history:
        return question
    last = history[-1]
    return f"{last.question} {last.answer} {question}".strip()


def _checked(question: str) -> str:
    if not question.strip():
        raise UsageError("the question is empty", hint='ask something: consilience ask "…"')
    if len(question) > LONGEST_QUESTION:
        raise UsageError(
            f"the question has {len(question)} characters; {LONGEST_QUESTION} are read at most",
            hint="ask a shorter question; add long text as a document",
        )
    return question.strip()


def _text(best: Decoded, quotes: Sequence[tuple[Quote, ...]], generator: CompactGenerator) -> str:
    """The answer as the passage with the largest share spells it, else as the vocabulary does."""
    for row in best.posterior.argsort(descending=True).tolist():
        if quotes[row] and len(quotes[row]) <= 1 + len(best.ids) // 3:
            parts = [quote.text for quote in quotes[row]]
            return ("" if language_of("".join(parts)) == "zh" else " ").join(parts)
    return generator.decode(best.ids)


def _citations(
    hits: Sequence[Hit], best: Decoded, quotes: Sequence[tuple[Quote, ...]]
) -> tuple[Citation, ...]:
    order = best.posterior.argsort(descending=True).tolist()
    shares = best.posterior.tolist()
    return tuple(
        Citation(hits[row].passage, shares[row], quotes[row])
        for place, row in enumerate(order)
        if place == 0 or shares[row] >= CITED_FROM
    )


def _tokens(
    best: Decoded, ids: Sequence[str], generator: CompactGenerator
) -> tuple[TokenPosterior, ...]:
    words = generator.words(best.ids)
    return tuple(
        TokenPosterior(word, dict(zip(ids, shares, strict=True)))
        for word, shares in zip(words, best.token_posteriors.tolist(), strict=True)
    )
