"""A training run from its settings: what is opened, what moves, what is written.

    output/
      config.json        the settings
      data.txt           the card of the data
      log.jsonl          one line for every logged step and every measurement
      start/             the model before its first step, where it is cut out of a teacher or has
                         new words
      answers.jsonl      what the teacher answered, where it is asked to
      knowledge/         a copy of the store, where the passage encoder moves
      checkpoint-N/      see `checkpoint`
      model/             the trained model, as `Rag.save` writes it

Running the same settings again goes on from the newest checkpoint; a finished run is not repeated.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from consilience.encoding import Encoder
from consilience.encoding.compact import CompactEncoder, retriever_fingerprint
from consilience.encoding.folder import ModelFolder
from consilience.errors import DependencyError, UsageError
from consilience.model.loading import load_parts, tensors_of
from consilience.model.rag import Rag
from consilience.model.text_encoder import TextEncoder
from consilience.questions import Context, Question, read_questions
from consilience.store import Store, require_fingerprint
from consilience.training.batches import LengthBuckets, mixture_weights
from consilience.training.card import card_of
from consilience.training.checkpoint import latest_checkpoint
from consilience.training.collapse import CollapseLimits
from consilience.training.config import TrainConfig
from consilience.training.data import without_leaks
from consilience.training.examples import Example, make_examples
from consilience.training.learner import Learner
from consilience.training.measuring import Measurement
from consilience.training.preparing import merge_adapters, prepare
from consilience.training.proposals import PassageIndex
from consilience.training.settings import as_json
from consilience.training.student import cut_student
from consilience.training.teaching import (
    Teacher,
    answered_by,
    fit_states,
    opened_teacher,
    require_same_passages,
)
from consilience.training.trainer import RagTrainer, moving
from consilience.training.vocabulary import extend_vocabulary, read_lines
from consilience.training.watching import CollapseWatch, IndexRefresh, JsonLog, Patience, Told
from consilience.training.work import LearnerOptions, Work

MINED = 20
"""Passages that BM25 proposes for hard negatives."""

Say = Callable[[str], None]
Counter = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a run.

    Attributes:
        output: The folder of the run.
        steps: Optimiser steps taken in all.
        metrics: The last measurement, or the last training loss where nothing was measured.
        resumed_from: The checkpoint that this call went on from; None for a fresh start.
        generation: The store's sequence that the last step's passages came from; 0 without one.
    """

    output: Path
    steps: int
    metrics: Mapping[str, float]
    resumed_from: str | None
    generation: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "output": str(self.output),
            "steps": self.steps,
            "metrics": dict(self.metrics),
            "resumed_from": self.resumed_from,
            "generation": self.generation,
        }


def train(
    config: TrainConfig, *, say: Say = lambda _: None, progress: Counter | None = None
) -> Trained:
    """Train a model, or go on with a run that was interrupted.

    Args:
        config: The settings.
        say: Told what is worth knowing: the card of the data, and when retrieval collapses.
        progress: Told after every step how many are done, and how many there are.

    Raises:
        UsageError: Settings that do not fit the model or the data, a loss that is no number, a disk
            that is full.
        MissingError: A file, a store or a model is not there.
        DocumentError: A question file that cannot be read.
        ConsilienceError: Retrieval collapsed, and `collapse.action` is stop.
    """
    _require_packages(config)
    sets = [read_questions(path) for path in config.data.train]
    dev = [question for path in config.data.dev for question in read_questions(path)]
    config.output.mkdir(parents=True, exist_ok=True)
    _same_settings(config)
    card = card_of({"train": [q for one in sets for q in one], "dev": dev}).text()
    (config.output / "data.txt").write_text(card + "\n", encoding="utf-8")
    say(card)
    with _opened(config) as store, opened_teacher(config) as teacher:
        return _Run(config, store, teacher, sets, say=say, progress=progress).go(sets, dev)


class _Run:
    """A run whose store is open.

    Args:
        config: The settings.
        store: What passages come from; None for a run without.
        teacher: Who teaches; None for a run without.
        sets: The questions, which new words may come from.
        say: As `train`.
        progress: As `train`.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: Store | None,
        teacher: Teacher | None,
        sets: Sequence[Sequence[Question]],
        *,
        say: Say,
        progress: Counter | None,
    ) -> None:
        self.config, self.store, self.say, self.progress = config, store, say, progress
        self.teacher = teacher
        torch.manual_seed(config.seed)
        self.rag = Rag.load(self._start(sets))
        prepare(self.rag, config)
        self._fit_vectors()
        self.index = None if store is None else PassageIndex(store)
        options = self._options()
        self.learner = Learner(
            self.rag.model,
            _texts(self.rag),
            index=self.index,
            options=options,
            teacher=None if teacher is None else teacher.learner(options),
        )
        if teacher is not None and self.index is not None:
            require_same_passages(teacher.index, self.index)

    def _start(self, sets: Sequence[Sequence[Question]]) -> str | Path | None:
        """The model that the run starts from: named, cut out of the teacher, or with new words."""
        config = self.config
        if self.teacher is not None and config.distil.cuts:
            return cut_student(self.teacher.rag, config.distil, config.output / "start")
        if not config.vocabulary.tokens:
            return config.model
        place, origin = config.output / "start", load_parts(config.model).origin
        if not isinstance(origin, ModelFolder):
            raise UsageError(
                f"the vocabulary of {config.model} cannot be extended",
                hint="leave vocabulary out, or start from a model of this package's own format",
            )
        texts = self._texts_to_know(sets)
        found = extend_vocabulary(origin, texts, count=config.vocabulary.tokens, place=place)
        if found:
            self.say(f"{len(found)} new words, among them {', '.join(found[:10])}")
        return place

    def _texts_to_know(self, sets: Sequence[Sequence[Question]]) -> Iterator[str]:
        """What new words are looked for in."""
        if self.config.vocabulary.texts:
            for path in self.config.vocabulary.texts:
                yield from read_lines(path)
            return
        for question in (one for each in sets for one in each):
            yield from (question.question, question.context, *question.answers)
        if self.store is not None:
            with self.store.changes(0) as changes:
                for batch in changes.added:
                    yield from (f"{row.title}\n{row.text}" for row in batch)

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

    @property
    def moving(self) -> bool:
        """Whether vectors of passages change."""
        return "passage_encoder" in self.config.train

    def go(self, sets: Sequence[Sequence[Question]], dev: Sequence[Question]) -> Trained:
        """Train to the end."""
        examples = [self._examples(self._taught(without_leaks(one, dev))) for one in sets]
        if not any(examples):
            raise UsageError(
                "no question of data.train can be learned from: none has an answer",
                hint='give each line "answers", or "answers": [] for what has none',
            )
        before = latest_checkpoint(self.config.output)
        trainer, refresh, patience = self._trainer(examples, self._examples(dev))
        trainer.train(resume_from_checkpoint=None if before is None else str(before))
        refresh.finish()
        patience.restore_best()
        return self._finish(trainer, before)

    def _taught(self, questions: Sequence[Question]) -> Sequence[Question]:
        """The questions, with the teacher's answers where those are to be learned."""
        if self.teacher is None or self.config.distil.answers == "data":
            return questions
        place = self.config.output / "answers.jsonl"
        chosen = questions[: self.config.data.limit]
        return answered_by(self.teacher, chosen, place, k=self.config.k)

    def _options(self) -> LearnerOptions:
        config = self.config
        return LearnerOptions(
            objectives=config.objectives,
            k=config.k,
            over=config.refresh.over if config.refresh.mode == "proposed" else 1,
            moving=self.moving,
            temperature=config.temperature,
            lexical=None if config.mode == "dense" else self._found,
            softening=config.distil.temperature,
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

    def _examples(self, questions: Sequence[Question]) -> list[Example]:
        return make_examples(
            questions[: self.config.data.limit],
            look_up=self._look_up,
            mine=self._mine if self.store is not None else None,
            negatives=self.config.data.negatives if self._contrasting else 0,
            seed=self.config.seed,
        )

    @property
    def _contrasting(self) -> bool:
        return bool({"info_nce", "abstain"} & set(self.config.objectives))

    def _look_up(self, name: str) -> Context | None:
        place = None if self.index is None else self.index.place(name)
        if self.index is None or place is None:
            return None
        (found,) = self.index.passages([place])
        return Context(found.id, found.title, found.text)

    def _mine(self, question: str) -> list[Context]:
        assert self.store is not None
        hits = self.rag.retriever(self.store, "bm25").search(question, k=MINED)
        return [Context(h.passage.id, h.passage.title, h.passage.text) for h in hits]

    def _trainer(
        self, sets: Sequence[Sequence[Example]], dev: Sequence[Example]
    ) -> tuple[RagTrainer, IndexRefresh, Patience]:
        config, examples = self.config, [one for each in sets for one in each]
        fit_states(self.learner, Work(self.learner, examples[:1]))
        refresh = IndexRefresh(
            config.refresh,
            publish=self._publish,
            prepare=self._written_for_refresh,
            reload=self._reload,
        )
        patience = Patience(
            lambda: moving(self.learner),
            config.output / "best.safetensors",
            metric=config.metric,
            patience=config.patience,
        )
        watched = dev[: config.evaluate_limit]
        trainer = RagTrainer(
            self.learner,
            arguments(config),
            examples=examples,
            batches=_batches(config, sets),
            chunk=config.chunk,
            keep=config.keep,
            measure=Measurement(self.learner, watched, batch=config.batch) if watched else None,
            extra=self._extra,
            restore=self._restore,
            optimiser=_optimiser(self.learner, config),
            callbacks=[
                JsonLog(config.output / "log.jsonl"),
                CollapseWatch(
                    self.learner,
                    CollapseLimits(config.collapse.action, config.collapse.distinct),
                    passages=0 if self.index is None else len(self.index),
                    say=self.say,
                ),
                *([] if self.progress is None else [Told(self.progress)]),
                *([patience] if config.evaluate_every is not None else []),
                refresh,
            ],
        )
        return trainer, refresh, patience

    def _extra(self) -> dict[str, Tensor]:
        """Vectors that the store may no longer hold when the run goes on."""
        return {"vectors": self.index.vectors} if self.moving and self.index is not None else {}

    def _restore(self, extra: Mapping[str, Tensor]) -> None:
        if self.index is not None and "vectors" in extra:
            self.index.vectors = extra["vectors"]

    def _publish(self) -> None:
        """Embed the store with the model as it is now."""
        assert self.store is not None
        training = self.learner.training
        self.learner.eval()
        self.store.re_embed(current_encoder(self.rag))
        self.learner.train(training)
        self._reload()

    def _reload(self) -> None:
        if self.index is not None:
            self.index.reload()

    def _written_for_refresh(self) -> list[str]:
        assert self.store is not None
        place = self.config.output / "refresh"
        shutil.rmtree(place, ignore_errors=True)
        self.rag.save(place)
        return [str(place), str(self.store.path)]

    def _finish(self, trainer: RagTrainer, before: Path | None) -> Trained:
        metrics = trainer.evaluate() if trainer.measure is not None else trainer.last_loss()
        merge_adapters(self.rag.model)
        place = self.config.output / "model"
        shutil.rmtree(place, ignore_errors=True)
        self.rag.save(place)
        generation = 0 if self.index is None else self.index.generation
        if self.moving and self.store is not None:
            generation = self.store.re_embed(current_encoder(self.rag)).generation
        shutil.rmtree(self.config.output / "refresh", ignore_errors=True)
        return Trained(
            output=self.config.output,
            steps=trainer.state.global_step,
            metrics=metrics,
            resumed_from=None if before is None else str(before),
            generation=generation,
        )


def arguments(config: TrainConfig) -> TrainingArguments:
    """The settings as transformers' Trainer takes them."""
    measured = config.evaluate_every is not None
    return TrainingArguments(
        output_dir=str(config.output),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        max_grad_norm=config.clip,
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_steps=config.save_every,
        eval_strategy="steps" if measured else "no",
        eval_steps=config.evaluate_every,
        seed=config.seed,
        report_to=list(config.report_to),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )


def current_encoder(rag: Rag) -> Encoder:
    """The encoder of a model as it is now, under the name that it has once it is saved."""
    encoder = rag.encoder
    if isinstance(encoder, CompactEncoder):
        folder = rag.parts.origin
        assert isinstance(folder, ModelFolder)
        path = folder.path / "tokenizer.json"
        return CompactEncoder(
            encoder.config,
            encoder.words,
            embeddings=encoder.embeddings,
            layers=encoder.layers,
            asking=encoder.asking,
            fingerprint=retriever_fingerprint(folder.config, dict(tensors_of(rag.parts)), path),
        )
    assert isinstance(encoder, TextEncoder)
    return TextEncoder(encoder.questions, encoder.passages, encoder.tokenizer)


def _texts(rag: Rag) -> CompactEncoder | TextEncoder | None:
    known = isinstance(rag.encoder, CompactEncoder | TextEncoder)
    return rag.encoder if known else None  # type: ignore[return-value]


def _batches(config: TrainConfig, sets: Sequence[Sequence[Example]]) -> LengthBuckets:
    kept = [one for one in sets if one]
    weights = None
    if config.data.temperature > 1:
        each = mixture_weights([len(one) for one in kept], temperature=config.data.temperature)
        weights = [w for one, w in zip(kept, each, strict=True) for _ in one]
    lengths = [example.length for one in kept for example in one]
    return LengthBuckets(lengths, size=config.batch, seed=config.seed, weights=weights)


def _optimiser(learner: Learner, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay, encoders may have a rate of their own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            encoder = "_encoder." in name
            groups.setdefault((encoder, weight.dim() > 1), []).append(weight)
    rate = config.learning_rate if config.encoder_rate is None else config.encoder_rate
    return torch.optim.AdamW(
        [
            {
                "params": weights,
                "lr": rate if encoder else config.learning_rate,
                "weight_decay": config.decay if decays else 0.0,
            }
            for (encoder, decays), weights in groups.items()
        ]
    )


@contextmanager
def _opened(config: TrainConfig) -> Iterator[Store | None]:
    """The store of a run: the user's own, or a copy where its vectors will change."""
    if config.store is None:
        yield None
        return
    place = config.store
    if "passage_encoder" in config.train:
        place = config.output / "knowledge"
        if not place.is_dir():
            _copy(config.store, place)
    with Store.open(place, create=False) as store:
        yield store


def _copy(store: Path, place: Path) -> None:
    """A copy that is there whole or not at all."""
    Store.open(store, create=False).close()  # says what is wrong with it, and folds its log in
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(store, part)
    part.rename(place)


def _same_settings(config: TrainConfig) -> None:
    """A folder is of one run: other settings need another, or an empty one.

    Raises:
        UsageError: It is of another run.
    """
    path = config.output / "config.json"
    settings = as_json(config)
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(key for key in settings | found if settings.get(key) != found.get(key))
        # A run may be made longer, and watched in another way.
        other = [key for key in other if key not in ("steps", "report_to", "keep", "log_every")]
        if other:
            raise UsageError(
                f"{config.output} is of a run with other settings: {', '.join(other)}",
                hint="choose another output folder, or delete this one",
            )
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require_packages(config: TrainConfig) -> None:
    wanted = ["accelerate", *(["tensorboard"] if "tensorboard" in config.report_to else [])]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"training needs the package {missing[0]}", hint="pip install 'consilience[train]'"
        )
