"""What is open while a model is trained: model, store, examples, and the learner over them.

A session can be trained more than once. What a run writes, when it stops and which of its weights
are kept is for those who hold it: `run` for a run from beginning to end, a party of a federation
for one round after another. The loop is `RagTrainer`'s for both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from consilience.encoding import Encoder
from consilience.encoding.compact import CompactEncoder, retriever_fingerprint
from consilience.encoding.folder import ModelFolder
from consilience.errors import UsageError
from consilience.model.loading import tensors_of
from consilience.model.rag import Rag
from consilience.model.text_encoder import TextEncoder
from consilience.questions import Context, Question
from consilience.retrieval import HybridWeights
from consilience.retrieval.opening import lexical_ranker
from consilience.store import Store, require_fingerprint
from consilience.training.checkpoint import latest_checkpoint
from consilience.training.config import TrainConfig
from consilience.training.data import without_leaks
from consilience.training.examples import Example, learnable, make_examples
from consilience.training.heads import fit_heads
from consilience.training.hybrid import LANGUAGES, LearnedShares, WordHalf
from consilience.training.learner import Learner
from consilience.training.measuring import Measurement
from consilience.training.names import PLAIN, RANKED
from consilience.training.opening import starting_model
from consilience.training.optimising import batches_of, optimiser_of
from consilience.training.plain_text import Redrawn, require_food
from consilience.training.preparing import merged_adapters, prepare
from consilience.training.proposals import PassageIndex
from consilience.training.ranking import judge_of, taught
from consilience.training.refreshing import fresh_place
from consilience.training.teaching import Teacher, answered_by, fit_states, require_same_passages
from consilience.training.texts import Texts, passages_of
from consilience.training.trainer import RagTrainer
from consilience.training.work import LearnerOptions, Work

MINED = 20
"""Passages that BM25 proposes for hard negatives."""

Say = Callable[[str], None]
Questions = Sequence[Question]


class Session:
    """A model with what it is trained on.

    Args:
        config: The settings; only weights that they name learn.
        store: What passages come from; None for a run without. It stays open as long as this.
        sets: The questions to learn from, file by file.
        dev: The questions that are measured, and not learned from.
        teacher: Who teaches; None for a run without.
        texts: Plain text to learn from and to measure on; None for a run without.
        say: Told which words are new to the model.

    Attributes:
        rag: The model.
        index: The store's passages; None without a store.
        learner: Model, index and objectives.
        questions: Those that are learned from, set by set.
        examples: What is made of each of them, in the same order; then the plain text, place by
            place.
        dev: What is made of the questions to measure, then the plain text.

    Raises:
        UsageError: Settings that do not fit the model, or no question that can be learned from.
        FingerprintError: The store's vectors are another encoder's.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: Store | None,
        sets: Sequence[Questions],
        dev: Questions,
        *,
        teacher: Teacher | None = None,
        texts: Texts | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self.config, self.store, self.teacher = config, store, teacher
        torch.manual_seed(config.seed)
        texts = texts or Texts(train=())
        plain = (document.text for each in texts.train for document in each)
        start, words = starting_model(config, teacher=teacher, store=store, sets=sets, texts=plain)
        if words:
            say(f"{len(words)} new words, among them {', '.join(words[:10])}")
        self.rag = Rag.load(start, precision="float32")
        prepare(self.rag, config)
        self._fit_vectors()
        self.index = None if store is None else PassageIndex(store)
        self.learner = self._learner()
        self._tell_of_tuning(say)
        if teacher is not None and self.index is not None:
            require_same_passages(teacher.index, self.index)
        self.questions = [self._chosen(without_leaks(one, dev)) for one in sets]
        self.examples = [self._examples(one) for one in self.questions]
        self.dev = self._examples(dev[: config.data.limit])
        if config.asking and not any(self.examples):
            raise UsageError(
                "no question of data.train can be learned from: none has an answer",
                hint='give each line "answers", or "answers": [] for what has none',
            )
        self._know_positives()
        self._rank()
        fit_states(self.learner, Work(self.learner, self.all_examples[:1]))
        self._take_texts(texts)

    @property
    def all_examples(self) -> list[Example]:
        """Those of all sets, one set after the other."""
        return [one for each in self.examples for one in each]

    @property
    def moving(self) -> bool:
        """Whether vectors of passages change."""
        return "passage_encoder" in self.config.train

    @property
    def measurement(self) -> Measurement | None:
        """Measures the model as it is; None without questions for it."""
        most, plain = self.config.evaluate_limit, [one for one in self.dev if one.plain]
        asked = [one for one in self.dev if one.plain is None]
        watched = [*asked[:most], *_spread(plain, most)]
        return Measurement(self.learner, watched, batch=self.config.batch) if watched else None

    def trainer(
        self,
        arguments: TrainingArguments,
        *,
        optimiser: torch.optim.Optimizer | None = None,
        pull: Callable[[], Tensor] | None = None,
        callbacks: Iterable[TrainerCallback] = (),
    ) -> RagTrainer:
        """A loop over the examples, from the weights as they are.

        Args:
            arguments: Its length, rates and seed.
            optimiser: Over the weights that learn; None for AdamW as the settings have it.
            pull: A term of the loss that depends on the weights alone.
            callbacks: What looks on.
        """
        batches = batches_of(self.config, self.examples, seed=arguments.seed)
        return RagTrainer(
            self.learner,
            arguments,
            examples=Redrawn(self.all_examples, batches),
            batches=batches,
            chunk=self.config.chunk,
            keep=self.config.keep,
            measure=self.measurement,
            extra=self._extra,
            restore=self._restore,
            optimiser=optimiser_of(self.learner, self.config) if optimiser is None else optimiser,
            pull=pull,
            callbacks=list(callbacks),
        )

    def follow(self) -> None:
        """Make the index that of the store and of the model as they are now.

        Raises:
            UsageError: The store has become empty.
            FingerprintError: Its vectors have become another encoder's.
        """
        if self.store is None or self.index is None:
            return
        if self.moving and self.config.joint:
            self.publish()
        elif self.store.sequence != self.index.generation:
            self._fit_vectors()
            self.reload()

    def publish(self) -> None:
        """Embed the store with the model as it is now."""
        assert self.store is not None
        training = self.learner.training
        self.learner.eval()
        self.store.re_embed(current_encoder(self.rag))
        self.learner.train(training)
        self.reload()

    def reload(self) -> None:
        """Read what the store holds now."""
        if self.index is not None:
            self.index.reload()

    def save(self, place: Path) -> None:
        """Write the model as it is now, as `Rag.save` does, with the shares that it learned."""
        if self.learner.shares is not None:
            learned = asdict(self.learner.shares.weights)
            settings = replace(self.rag.settings, hybrid_weights=learned)
            self.rag = Rag(replace(self.rag.parts, settings=settings))
        self.rag.save(place)

    def written_for_refresh(self, step: int) -> list[str]:
        """Arguments of `training.refreshing`: a folder with the model as it is, and the store.

        Args:
            step: After which the refresh begins.
        """
        assert self.store is not None
        place = fresh_place(self.config.output, step)
        with merged_adapters(self.rag.model):
            self.save(place)
        return [str(place), str(self.store.path)]

    def _fit_vectors(self) -> None:
        """The store's vectors must be those of the encoder that learns, before the first step.

        Raises:
            FingerprintError: They are another encoder's, and the run may not make them anew.
        """
        encoder = self.rag.encoder
        if self.store is None or encoder is None or not self.config.joint:
            return
        if not self.moving:
            require_fingerprint(self.store, encoder)
        elif latest_checkpoint(self.config.output) is None:
            self.store.re_embed(current_encoder(self.rag))

    def _learner(self) -> Learner:
        options, teacher = self._options(), self.teacher
        return Learner(
            self.rag.model,
            _texts(self.rag),
            index=self.index,
            options=options,
            teacher=None if teacher is None else teacher.learner(options),
            shares=self._shares(),
        )

    def _tell_of_tuning(self, say: Say) -> None:
        """Numbers that were measured on a store go before those of any model."""
        if self.learner.shares is None or self.store is None:
            return
        kept = self.rag.tuning(self.store).to_dict().keys() & {*LANGUAGES, "temperature"}
        if kept:
            say(
                f"the store keeps {', '.join(sorted(kept))} as measured on it, and is searched "
                "with these and not with what is learned"
            )

    def _shares(self) -> LearnedShares | None:
        """The shares of hybrid search as the model has them, where they learn.

        Raises:
            UsageError: The model has no encoder, or is saved in a format that has no place for
                them.
        """
        if "hybrid_weights" not in self.config.train:
            return None
        if self.rag.encoder is None or self.rag.model.checkpoint is not None:
            raise UsageError(
                "train names hybrid_weights, and this model has none that could be saved",
                hint="leave it out of `train`, or start from a model of this package's own format",
            )
        return LearnedShares(HybridWeights(**self.rag.settings.hybrid_weights))

    def _options(self) -> LearnerOptions:
        config = self.config
        return LearnerOptions(
            objectives=config.objectives,
            k=config.k,
            over=config.refresh.over if config.refresh.mode == "proposed" else 1,
            add_positive=config.add_positive,
            moving=self.moving,
            temperature=config.temperature,
            smoothing=config.smoothing,
            lexical=None if config.mode == "dense" else self._found,
            by_words=self._by_words(),
            softening=config.distil.temperature,
            ranking=config.ranking.temperature,
            share=config.text.share,
            span=config.text.span,
        )

    def _know_positives(self) -> None:
        """Raise when passages are to be added, and the store holds none of them."""
        if not self.config.add_positive or self.index is None:
            return
        if not any(map(self.index.right, self.all_examples)):
            raise UsageError(
                f"add_positive is on, and the store {self.config.store} holds the passage of none "
                f"of {len(self.all_examples)} questions",
                hint="name passages of the store under positive_ids, or leave add_positive out",
            )

    def _found(self, questions: Sequence[str], k: int) -> Tensor:
        """Places of passages as a retriever finds them, `[b, k]`, -1 where there are fewer."""
        assert self.store is not None
        assert self.index is not None
        rows = []
        for question in questions:
            hits = self.rag.retriever(self.store, self.config.mode).search(question, k=k)
            places = [self.index.place(hit.passage.id) for hit in hits]
            known = [place for place in places if place is not None]
            rows.append([*known, *[-1] * (k - len(known))])
        return torch.tensor(rows)

    def _by_words(self) -> WordHalf | None:
        """The lexical half of hybrid search, where a share of it learns."""
        if "hybrid_weights" not in self.config.train:
            return None
        assert self.store is not None
        assert self.index is not None
        ranker = lexical_ranker(self.store, self.rag.tuning(self.store))
        return WordHalf(self.store, self.index, ranker)

    def _chosen(self, questions: Questions) -> Questions:
        """Those that can be learned from, with the teacher's answers where those are learned."""
        chosen = questions[: self.config.data.limit]
        if self.teacher is not None and self.config.distil.answers == "teacher":
            place = self.config.output / "answers.jsonl"
            chosen = answered_by(self.teacher, chosen, place, k=self.config.k)
        return [question for question in chosen if learnable(question)]

    def _examples(self, questions: Questions) -> list[Example]:
        return make_examples(
            questions,
            look_up=self.look_up,
            mine=self._mine if self.store is not None else None,
            negatives=self.config.data.negatives if self._contrasting else 0,
            seed=self.config.seed,
        )

    @property
    def _contrasting(self) -> bool:
        return bool({"info_nce", "abstain", *RANKED} & set(self.config.objectives))

    def _rank(self) -> None:
        """Ask the teacher of a ranking what it thinks of every question's passages."""
        name = self.config.ranking.teacher
        if name is None:
            return
        judge, every = judge_of(name, self.learner, self.rag), [*self.examples, self.dev]
        *self.examples, self.dev = (taught(one, judge, self.config.output) for one in every)
        if not any(one.taught for one in self.all_examples):
            raise UsageError(
                "no question of data.train has two passages that a teacher could rank",
                hint="raise data.negatives, or take a store in which more is found",
            )

    def _take_texts(self, texts: Texts) -> None:
        """Put plain text beside the questions, and give its objectives their heads."""
        if not self.config.active(PLAIN):
            return
        limit = self.config.text.limit
        plain = [passages_of(one, limit=limit) for one in texts.train]
        require_food([one for each in plain for one in each], self.config.active(PLAIN))
        self.examples += plain
        self.dev = [*self.dev, *passages_of(texts.dev, limit=limit)]
        fit_heads(self.learner)

    def look_up(self, name: str) -> Context | None:
        """A passage by its name; None when the store does not hold it."""
        place = None if self.index is None else self.index.place(name)
        if self.index is None or place is None:
            return None
        (found,) = self.index.passages([place])
        return Context(found.id, found.title, found.text)

    def _mine(self, question: str) -> list[Context]:
        assert self.store is not None
        hits = self.rag.retriever(self.store, "bm25").search(question, k=MINED)
        return [Context(h.passage.id, h.passage.title, h.passage.text) for h in hits]

    def _extra(self) -> dict[str, Tensor]:
        """Vectors that the store may no longer hold when the run goes on."""
        return {"vectors": self.index.vectors} if self.moving and self.index is not None else {}

    def _restore(self, extra: Mapping[str, Tensor]) -> None:
        if self.index is not None and "vectors" in extra:
            self.index.vectors = extra["vectors"]


def current_encoder(rag: Rag) -> Encoder:
    """The encoder of a model as it is now, under the name that it has once it is saved."""
    encoder = rag.encoder
    if isinstance(encoder, CompactEncoder):
        folder = rag.parts.origin
        assert isinstance(folder, ModelFolder)
        path = folder.path / "tokenizer.json"
        tensors = {name: value.cpu() for name, value in tensors_of(rag.parts)}
        return CompactEncoder(
            encoder.config,
            encoder.words,
            embeddings=encoder.embeddings,
            layers=encoder.layers,
            asking=encoder.asking,
            fingerprint=retriever_fingerprint(folder.config, tensors, path),
        )
    assert isinstance(encoder, TextEncoder)
    return TextEncoder(encoder.questions, encoder.passages, encoder.tokenizer)


def _spread(examples: Sequence[Example], most: int) -> Sequence[Example]:
    """At most so many, at even distances."""
    if len(examples) <= most:
        return examples
    return [examples[place * len(examples) // most] for place in range(most)]


def _texts(rag: Rag) -> CompactEncoder | TextEncoder | None:
    known = isinstance(rag.encoder, CompactEncoder | TextEncoder)
    return rag.encoder if known else None  # type: ignore[return-value]
