"""`RagTrainer`: transformers' Trainer with batches of like length, honest checkpoints and watching.

The loop, accumulation, schedules, mixed precision and distribution are the library's. Ours are: the
order of the batches, which depends on seed and epoch alone; the checkpoint (all or nothing, no
pickle), from which a run on a processor goes on bit for bit; the stop on a loss that is no number,
with its batch kept; the refresh of the index and the watch over collapse. What is learned, it asks
the learner.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import (  # type: ignore[import-untyped]
    DistributedType,
    FullyShardedDataParallelPlugin,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import PredictionOutput

from consilience.errors import UsageError
from consilience.training.batches import LengthBuckets
from consilience.training.checkpoint import (
    Snapshot,
    random_states,
    read_checkpoint,
    restore_random_states,
    write_checkpoint,
)
from consilience.training.contrasting import contrast_in_chunks
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.sharding import (
    average_uncut,
    gathered,
    like,
    put_moments,
    uncut,
    whole,
    whole_moments,
)
from consilience.training.watching import Noting

Extra = Callable[[], Mapping[str, Tensor]]
"""Further tensors of a run that belong into its checkpoints."""

Measure = Callable[[], Mapping[str, float]]
"""Measures the model as it is now."""


class RagTrainer(Trainer):
    """Trains a `Learner`.

    Args:
        learner: Model, index and objectives.
        args: transformers' own arguments.
        examples: What is learned from.
        batches: Which of them stand together.
        chunk: Texts encoded at once while a whole batch is contrasted; None for all.
        keep: Checkpoints that are kept.
        measure: What `evaluate` reports; None for nothing.
        extra: What checkpoints hold beside weights and optimiser.
        restore: Takes `extra` back when a run goes on.
        optimiser: Over the learner's weights; None for transformers' own.
        pull: A term of the loss that depends on the weights alone; its gradient joins those of
            every step before they are clipped.
        callbacks: As transformers'; those that are `Noting` are in the checkpoints.
    """

    def __init__(
        self,
        learner: Learner,
        args: TrainingArguments,
        *,
        examples: Sequence[Example],
        batches: LengthBuckets,
        chunk: int | None = None,
        keep: int = 2,
        measure: Measure | None = None,
        extra: Extra = dict,
        restore: Callable[[Mapping[str, Tensor]], None] = lambda _: None,
        optimiser: torch.optim.Optimizer | None = None,
        pull: Callable[[], Tensor] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model=learner,
            args=args,
            train_dataset=examples,
            # `evaluate` asks `measure`; the library wants to see a set nevertheless.
            eval_dataset=examples if measure is not None else None,
            data_collator=_as_inputs,
            callbacks=list(callbacks),
        )
        self.optimizer = optimiser
        if self.is_fsdp_enabled:
            learner.to(self.args.device)
            self.accelerator.state.fsdp_plugin.ignored_modules = [uncut(learner)]
        # Standard output belongs to whoever asked for the run.
        self.remove_callback(PrinterCallback)
        self.learner, self.examples, self.batches = learner, examples, batches
        self.measure, self.extra, self.restore = measure, extra, restore
        self.keep, self.chunk, self.pull = keep, chunk, pull
        self.parts: dict[str, float] = {}
        self._resumed: tuple[str, Snapshot] | None = None
        # The learner's loss is a mean over the batch, which accumulation has to divide.
        self.model_accepts_loss_kwargs = False

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers'; accelerate shares weights out among GPUs alone, and says nothing."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.accelerator.state.fsdp_plugin = plugin
            self.accelerator.state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the order of `batches`."""
        loader: DataLoader[Any] = DataLoader(
            self.examples,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=_as_inputs,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _run_epoch(self, model: nn.Module, epoch: int, *args: Any, **kwargs: Any) -> Any:
        self.batches.set_epoch(epoch)
        return super()._run_epoch(model, epoch, *args, **kwargs)  # type: ignore[no-untyped-call]

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """As transformers', or the contrast of a batch in chunks; then the pull, once a step."""
        loss = self._learned(model, inputs, num_items_in_batch)
        if self.pull is not None and self.accelerator.sync_gradients:
            self.accelerator.backward(self.pull())
        if self.is_fsdp_enabled and self.accelerator.sync_gradients:
            average_uncut(self.learner)
        return loss

    def _learned(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        if self.chunk is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        scale = 1.0 / self.current_gradient_accumulation_steps
        with self.compute_loss_context_manager(), self._keeping(inputs["batch"]):
            found = contrast_in_chunks(self.learner, inputs["batch"], chunk=self.chunk, scale=scale)
        self.parts = found["parts"]
        loss: Tensor = found["loss"]
        return loss * scale

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The learner's loss; one that is no number ends the run, its batch kept.

        Raises:
            UsageError: The loss is NaN or infinite.
        """
        del num_items_in_batch
        with self._keeping(inputs["batch"]):
            found = model(**inputs)
        self.parts = found["parts"]
        return (found["loss"], found) if return_outputs else found["loss"]

    @contextmanager
    def _keeping(self, batch: Sequence[Example]) -> Iterator[None]:
        """Whatever is wrong with a batch is told with the place where the batch was kept."""
        try:
            yield
        except UsageError as error:
            raise self._kept(error, batch) from error

    def _kept(self, error: UsageError, batch: Sequence[Example]) -> UsageError:
        """The error, with the place where its batch was saved for inspection."""
        folder = Path(str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"batch-of-step-{self.state.global_step + 1}.json"
        examples = [asdict(example) for example in batch]
        path.write_text(json.dumps(examples, ensure_ascii=False, indent=1), encoding="utf-8")
        return UsageError(
            f"at step {self.state.global_step + 1}: {error.message}; the batch is in {path}",
            hint=error.hint,
        )

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """What `measure` finds, under `eval_` names, logged."""
        self.learner.eval()
        with gathered(self.learner):
            with torch.no_grad():
                found = {} if self.measure is None else self.measure()
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics

    def predict(self, *_: Any, **__: Any) -> PredictionOutput:
        """Not what a learner does.

        Raises:
            UsageError: Always.
        """
        raise UsageError("a learner answers nothing", hint="save the model and use Rag.ask")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with the value of each objective and what the prior is made of."""
        if "loss" in logs:
            logs = logs | {f"loss_{name}": value for name, value in self.parts.items()}
            logs |= self._prior()
        super().log(logs, start_time)

    def _prior(self) -> dict[str, float]:
        """The weights of ranks, the shares of hybrid search and the temperature, as they learn."""
        model, shares = self.learner.model, self.learner.shares
        learns = model.ranks is not None and model.ranks.log_weights.requires_grad
        ranks = model.ranks if learns else None
        if shares is None and ranks is None:
            return {}
        with gathered(self.learner):
            found = {} if ranks is None else ranks.told()
            if shares is not None:
                found |= shares.told() | {"temperature": float(model.temperature.detach())}
            return found

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.is_deepspeed_enabled:
            super()._save_checkpoint(model, trial)  # its weights need the library's own
            return
        # What is shared out is put together by all processes, and written by one.
        snapshot = self._snapshot() if self.args.should_save or self.is_fsdp_enabled else None
        if self.args.should_save and snapshot is not None:
            write_checkpoint(Path(str(self.args.output_dir)), snapshot, keep=self.keep)

    def _snapshot(self) -> Snapshot:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        # What a resumed run does not repeat, the callbacks have to remember.
        state = asdict(self.state) | {"stateful_callbacks": _callback_states(self)}
        return Snapshot(
            step=self.state.global_step,
            weights={name: whole(value) for name, value in moving(self.learner).items()},
            optimiser=whole_moments(self.optimizer),
            state={
                "schedule": self.lr_scheduler.state_dict(),
                "notes": {type(one).__name__: one.note() for one in self._noting()},
            },
            extra=self.extra(),
            random=random_states(),
            texts={TRAINER_STATE_NAME: json.dumps(state, indent=1)},
        )

    def _noting(self) -> list[Noting]:
        return [one for one in self.callback_handler.callbacks if isinstance(one, Noting)]

    def once(self) -> float:
        """Train to the end and leave the learner as it was found, but for its weights.

        Whoever trains a learner again makes another trainer for it: this one's mixed precision
        must not stay wrapped around it.

        Returns:
            The mean of the loss over the steps.
        """
        try:
            return float(self.train().training_loss)
        finally:
            self._unwrap()
            self.learner.zero_grad(set_to_none=True)

    def _unwrap(self) -> None:
        """Take the mixed precision off again, with the mark that would keep the next one away."""
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        for name in ("forward", "_is_accelerate_prepared"):
            vars(self.learner).pop(name, None)

    def last_loss(self) -> dict[str, float]:
        """The last training loss that was logged."""
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return {"loss": losses[-1]} if losses else {}

    def _read(self, checkpoint: str) -> Snapshot:
        """A checkpoint, read and checked once, though the library asks for it in three parts."""
        if self._resumed is None or self._resumed[0] != checkpoint:
            self._resumed = checkpoint, read_checkpoint(Path(checkpoint))
        return self._resumed[1]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        snapshot = self._read(resume_from_checkpoint)
        load_moving(self.learner, snapshot.weights, source=resume_from_checkpoint)
        self.restore(snapshot.extra)
        for one in self._noting():
            one.recall(snapshot.state["notes"][type(one).__name__])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        snapshot = self._read(checkpoint)
        put_moments(self.optimizer, snapshot.optimiser)
        self.lr_scheduler.load_state_dict(snapshot.state["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not self.is_deepspeed_enabled:
            restore_random_states(self._read(checkpoint).random)


def moving(learner: Learner) -> dict[str, Tensor]:
    """The weights that the run moves, each once, by name."""
    return {name: value for name, value in learner.named_parameters() if value.requires_grad}


def load_moving(learner: Learner, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights back.

    Raises:
        UsageError: They are of another architecture, or other parts were trained.
    """
    own = moving(learner)
    missing, unknown = own.keys() - weights.keys(), weights.keys() - own.keys()
    other = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    wrong = sorted([*missing, *unknown, *other])
    if wrong:
        raise UsageError(
            f"the checkpoint {source} is of another model or of other trained parts: {wrong[0]}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            hint="train into another output folder, or with the config that wrote the checkpoint",
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(like(weights[name], value))


def _as_inputs(examples: Sequence[Example]) -> dict[str, Any]:
    return {"batch": list(examples)}


def _callback_states(trainer: RagTrainer) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(one, ExportableState):
            name = type(one).__name__
            found[name] = [*found[name], one.state()] if name in found else one.state()
    return found
