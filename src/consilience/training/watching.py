"""What looks on while a run trains: the log, the watch over collapse, patience, index refresh.

Each is a callback of the trainer and keeps a state that JSON can hold, so that a run that goes on
looks on from where it was.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from consilience.errors import UsageError
from consilience.training.collapse import CollapseLimits, Watch, observe, refuse_collapse
from consilience.training.config import RefreshSettings
from consilience.training.learner import Learner
from consilience.training.processes import is_first


@runtime_checkable
class Noting(Protocol):
    """A callback with a state that belongs into checkpoints."""

    def note(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        ...

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        ...


class JsonLog(TrainerCallback):
    """One line of JSON for everything that is logged.

    Args:
        path: The file; lines of steps that a resumed run repeats are taken out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the lines up to the step that the run goes on from."""
        del args, control
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= state.global_step]
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Add a line."""
        del args, control
        line = json.dumps({"step": state.global_step, **(logs or {})})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _step_of(line: str) -> float:
    """The step of a line; a torn line is of no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


class Told(TrainerCallback):
    """Tells whoever waits how many steps are done, and where the loss stands.

    Args:
        progress: Told how many are done, how many there are, and the loss that was logged last.
    """

    def __init__(self, progress: Callable[[int, int, float | None], None]) -> None:
        self.progress = progress
        self.loss: float | None = None

    def on_log(self, *_: Any, logs: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Remember the loss; measurements on dev questions are logged without one."""
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell."""
        del args, control
        self.progress(state.global_step, state.max_steps, self.loss)


class CollapseWatch(TrainerCallback):
    """Warns or stops when retrieval collapses.

    Args:
        learner: Says what each batch retrieved.
        limits: When it has collapsed.
        passages: How many there are.
        say: Told when it begins and when it is over.
    """

    def __init__(
        self, learner: Learner, limits: CollapseLimits, *, passages: int, say: Callable[[str], None]
    ) -> None:
        self.learner, self.limits, self.passages, self.say = learner, limits, passages, say
        self.watch = Watch()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Look at the last batch.

        Raises:
            ConsilienceError: Retrieval has collapsed, and that is to be the end.
        """
        if self.learner.retrieved is None:
            return
        seen = self.learner.retrieved
        self.watch = observe(self.watch, seen, self.limits, passages=self.passages)
        if self.watch.changed:
            self.say("; ".join(self.watch.reasons) or "retrieval tells questions apart again")
        refuse_collapse(self.watch)

    def note(self) -> dict[str, Any]:
        """What was seen last."""
        return self.watch.to_dict()

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.watch = Watch.of_dict(state)


class Patience(TrainerCallback):
    """Keeps the best weights of a run, and ends it after too many measurements without progress.

    Args:
        weights: The weights that move, by name.
        path: Where the best are kept.
        metric: What is looked at; `loss` is better when smaller, all others when larger.
        patience: Measurements without progress; None never ends a run.
    """

    def __init__(
        self,
        weights: Callable[[], Mapping[str, torch.Tensor]],
        path: Path,
        *,
        metric: str,
        patience: int | None,
    ) -> None:
        self.weights, self.path, self.metric, self.patience = weights, path, metric, patience
        self.best: float | None = None
        self.waited = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **told: Any,
    ) -> TrainerControl:
        """Compare with the best so far.

        Raises:
            UsageError: The metric was not measured.
        """
        del args, state
        metrics: Mapping[str, float] = told["metrics"]
        found = metrics.get(f"eval_{self.metric}")
        if found is None:
            raise UsageError(
                f"metric is {self.metric}, and it was not measured",
                hint=f"measured: {', '.join(name.removeprefix('eval_') for name in metrics)}",
            )
        worth = -found if self.metric == "loss" else found
        if self.best is None or worth > self.best:
            self.best, self.waited = worth, 0
            self._keep()
        else:
            self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            control.should_training_stop = True
        return control

    def _keep(self) -> None:
        if not is_first():
            return
        part = self.path.with_suffix(".part")
        here = {name: value.detach().cpu().clone() for name, value in self.weights().items()}
        save_file(here, part)
        part.replace(self.path)

    def restore_best(self) -> None:
        """Put the best weights in the place of the last."""
        if self.best is None or not self.path.is_file():
            return
        kept = load_file(self.path)
        with torch.no_grad():
            for name, value in self.weights().items():
                value.copy_(kept[name])

    def note(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {"best": self.best, "waited": self.waited}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.best, self.waited = state["best"], state["waited"]


class IndexRefresh(TrainerCallback):
    """Gives the index vectors of the passage encoder as it is now.

    In the background means: another process embeds with the weights of one refresh while the run
    goes on, and its vectors are taken at the next. So when they change does not depend on how fast
    that process is, and a run can be repeated.

    A run stands in its context, and takes the last vectors at the end of it with `finish`.

    Args:
        settings: How and how often.
        publish: Embeds the store with the model as it is, and has the index read it again.
        prepare: Writes the model as it is after a step for the other process; returns its
            arguments.
        reload: Has the index read the store again.
    """

    def __init__(
        self,
        settings: RefreshSettings,
        *,
        publish: Callable[[], None],
        prepare: Callable[[int], list[str]],
        reload: Callable[[], None],
    ) -> None:
        self.settings, self.publish = settings, publish
        self.prepare, self.reload = prepare, reload
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments: list[str] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refresh, when it is time."""
        del args, control
        if state.global_step % self.settings.every:
            return
        if self.settings.mode == "synchronous":
            self.publish()
        elif self.settings.mode == "background":
            self.finish()
            self._arguments = self.prepare(state.global_step)
            self._start()

    def _start(self) -> None:
        module = "consilience.training.refreshing"
        command = [sys.executable, "-m", module, *self._arguments, str(os.getpid())]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def finish(self) -> None:
        """Wait for the other process and take its vectors.

        Raises:
            UsageError: It failed.
        """
        if self._process is None:
            return
        _, told = self._process.communicate()
        code, self._process, self._arguments = self._process.returncode, None, []
        if code:
            last = told.decode(errors="replace").strip().splitlines()[-1:]
            raise UsageError(
                f"the index refresh in the background ended with code {code}: {' '.join(last)}",
                hint="set refresh.mode to synchronous to see where",
            )
        self.reload()

    def __enter__(self) -> "IndexRefresh":
        return self

    def __exit__(self, *_: object) -> None:
        """A run that breaks off leaves no other process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def note(self) -> dict[str, Any]:
        """What the other process was started with, if it has not been waited for."""
        return {"arguments": self._arguments}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Start it again."""
        self._arguments = list(state["arguments"])
        if self._arguments:
            self._start()
