"""A training run from its settings: what is opened, what moves, what is written.

    output/
      config.json        the settings
      data.txt           the card of the data
      log.jsonl          one line for every logged step and every measurement
      start/             the model before its first step, where it is cut out of a teacher or has
                         new words
      answers.jsonl      what the teacher answered, where it is asked to
      scores.jsonl       what the teacher of a ranking thinks of passages, where there is one
      heads.safetensors  the heads of objectives that learn from plain text, where they are kept
      knowledge/         a copy of the store, where the passage encoder moves
      checkpoint-N/      see `checkpoint`
      model/             the trained model, as `Rag.save` writes it

Running the same settings again goes on from the newest checkpoint; a finished run is not repeated.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from consilience.errors import UsageError
from consilience.questions import Question, read_questions
from consilience.training.card import card_of
from consilience.training.checkpoint import latest_checkpoint
from consilience.training.collapse import CollapseLimits
from consilience.training.config import TrainConfig
from consilience.training.heads import keep_heads
from consilience.training.opening import opened_store
from consilience.training.optimising import arguments
from consilience.training.packages import require_packages
from consilience.training.preparing import merge_adapters
from consilience.training.processes import is_first, require_shareable
from consilience.training.session import Say, Session, current_encoder
from consilience.training.settings import as_json, differences, told_differences
from consilience.training.sharding import put_together
from consilience.training.teaching import opened_teacher
from consilience.training.text_card import told_texts
from consilience.training.texts import Texts, read_texts
from consilience.training.trainer import RagTrainer, moving
from consilience.training.watching import CollapseWatch, IndexRefresh, JsonLog, Patience, Told

Counter = Callable[[int, int, float | None], None]

FREE = frozenset({"steps", "report_to", "keep", "log_every", "fsdp"})
"""What may change in a run: it may be made longer, watched, and shared out in another way."""


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
        progress: Told after every step how many are done, how many there are, and the loss that was
            logged last; None before the first.

    Raises:
        UsageError: Settings that do not fit the model or the data, a loss that is no number, a disk
            that is full.
        MissingError: A file, a store or a model is not there.
        DocumentError: A question file that cannot be read.
        ConsilienceError: Retrieval collapsed, and `collapse.action` is stop.
    """
    require_packages(config.report_to)
    require_shareable(config)
    sets = [read_questions(path) for path in config.data.train]
    dev = [question for path in config.data.dev for question in read_questions(path)]
    texts = read_texts(config.text, seed=config.seed, say=say) if config.text.train else None
    config.output.mkdir(parents=True, exist_ok=True)
    if is_first():
        _same_settings(config)
        card = _card(sets, dev, texts)
        (config.output / "data.txt").write_text(card + "\n", encoding="utf-8")
        say(card)
    with opened_store(config) as store, opened_teacher(config) as teacher:
        session = Session(config, store, sets, dev, teacher=teacher, texts=texts, say=say)
        return _Run(session, say=say, progress=progress).go()


class _Run:
    """A session that is trained once, from beginning to end.

    Args:
        session: What is trained.
        say: As `train`.
        progress: As `train`.
    """

    def __init__(self, session: Session, *, say: Say, progress: Counter | None) -> None:
        self.session, self.config, self.say, self.progress = session, session.config, say, progress
        self.refresh = refresh_of(session)
        self.patience = Patience(
            lambda: moving(session.learner),
            self.config.output / "best.safetensors",
            metric=self.config.metric,
            patience=self.config.patience,
        )

    def go(self) -> Trained:
        """Train to the end."""
        before = latest_checkpoint(self.config.output)
        trainer = self.session.trainer(arguments(self.config), callbacks=self._callbacks())
        with self.refresh:
            trainer.train(resume_from_checkpoint=None if before is None else str(before))
            self.refresh.finish()
        put_together(self.session.learner)
        trainer.accelerator.wait_for_everyone()  # the first process keeps the best weights
        self.patience.restore_best()
        return self._finish(trainer, before)

    def _callbacks(self) -> list[TrainerCallback]:
        return [
            *([JsonLog(self.config.output / "log.jsonl")] if is_first() else []),
            watch_of(self.session, self.say),
            *([] if self.progress is None else [Told(self.progress)]),
            *([self.patience] if self.config.evaluate_every is not None else []),
            self.refresh,
        ]

    def _part_with_heads(self) -> None:
        """Keep the heads in the run's folder, or let them go, and say which."""
        learner = self.session.learner
        if not learner.heads:
            return
        named = ", ".join(sorted({name.partition("-")[2] for name in learner.heads}))
        if self.config.text.heads == "keep":
            place = keep_heads(learner, self.config.output)
            self.say(f"the heads of {named} are in {place}; the model has no place for them")
        else:
            self.say(f"the heads of {named} are dropped: the model has no place for them")

    def _finish(self, trainer: RagTrainer, before: Path | None) -> Trained:
        session, place = self.session, self.config.output / "model"
        metrics = trainer.evaluate() if trainer.measure is not None else trainer.last_loss()
        merge_adapters(session.rag.model)
        if is_first():
            shutil.rmtree(place, ignore_errors=True)
            session.save(place)
            self._part_with_heads()
        trainer.accelerator.wait_for_everyone()
        generation = 0 if session.index is None else session.index.generation
        if session.moving and session.store is not None:
            generation = session.store.re_embed(current_encoder(session.rag)).generation
        if is_first():
            shutil.rmtree(self.config.output / "refresh", ignore_errors=True)
        return Trained(
            output=self.config.output,
            steps=trainer.state.global_step,
            metrics=metrics,
            resumed_from=None if before is None else str(before),
            generation=generation,
        )


def _card(sets: Sequence[Sequence[Question]], dev: Sequence[Question], texts: Texts | None) -> str:
    """What is in the data of a run, as a person reads it."""
    asked = card_of({"train": [q for one in sets for q in one], "dev": dev}).text() if sets else ""
    told = "" if texts is None else told_texts(texts)
    return "\n".join(filter(None, [asked, told]))


def refresh_of(session: Session) -> IndexRefresh:
    """What gives the index of a session newer vectors while it is trained."""
    return IndexRefresh(
        session.config.refresh,
        publish=session.publish,
        prepare=session.written_for_refresh,
        reload=session.reload,
    )


def watch_of(session: Session, say: Say) -> CollapseWatch:
    """What watches over the retrieval of a session while it is trained."""
    collapse, index = session.config.collapse, session.index
    return CollapseWatch(
        session.learner,
        CollapseLimits(collapse.action, collapse.distinct),
        passages=0 if index is None else len(index),
        say=say,
    )


def _same_settings(config: TrainConfig) -> None:
    """A folder is of one run: other settings need another, or an empty one.

    A run that an earlier version began has the defaults of the settings that came since.

    Raises:
        UsageError: It is of another run.
    """
    path = config.output / "config.json"
    settings = as_json(config)
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        every = differences(TrainConfig, found, settings)
        other = {key: values for key, values in every.items() if key not in FREE}
        if other:
            raise UsageError(
                f"{config.output} is of a run with other settings: {told_differences(other)}",
                hint="choose another output folder, or delete this one",
            )
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
