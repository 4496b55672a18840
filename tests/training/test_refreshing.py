"""Vectors made beside a run: which weights they are of, and that a run goes on with the same."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from consilience.training.config import RefreshSettings
from consilience.training.refreshing import fresh_place
from consilience.training.run import train
from consilience.training.watching import IndexRefresh
from tests.processes import is_over, require_end
from tests.training.small import StopError, config_of, train_until, write_world

ALL_PARTS = ["question_encoder", "passage_encoder", "generator", "temperature"]
_AFTER_ONE = TrainerState(global_step=1)
BACKGROUND: dict[str, Any] = {
    "train": ALL_PARTS,
    "refresh": {"mode": "background", "every": 2},
    "steps": 5,
    "save_every": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    place = tmp_path_factory.mktemp("whole") / "run"
    train(config_of(world, place, **BACKGROUND))
    return place


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_with_the_refresh_that_was_under_way_at_its_checkpoint(
    world: dict[str, Path], whole: Path, tmp_path: Path, stop: int
) -> None:
    # Stopped after step 4 was logged and before its checkpoint: a later refresh has begun.
    config = config_of(world, tmp_path / "run", **BACKGROUND)
    train_until(config, stop)
    found = train(config)
    assert found.resumed_from is not None
    assert found.resumed_from.endswith(f"checkpoint-{stop - 1}")
    one, other = (load_file(run / "model" / "model.safetensors") for run in (whole, config.output))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (config.output / "refresh").exists()


def test_a_run_that_breaks_off_leaves_no_refresh_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An interpreter that only waits stands for the one that embeds.
    waiting = tmp_path / "waiting"
    waiting.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import time; time.sleep(60)'\n")
    waiting.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(waiting))
    refresh = IndexRefresh(
        RefreshSettings(mode="background", every=1),
        publish=lambda: None,
        prepare=lambda _: [],
        reload=lambda: None,
    )
    before, started = _children(), set[int]()

    def broken_off() -> None:
        with refresh:
            refresh.on_step_end(TrainingArguments(str(tmp_path)), _AFTER_ONE, TrainerControl())
            started.update(_children() - before)
            raise StopError

    with pytest.raises(StopError):
        broken_off()
    assert started
    assert all(map(is_over, started))


def _children() -> set[int]:
    """Processes that this one has started."""
    task = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children")
    return {int(pid) for pid in task.read_text("utf-8").split()}


def test_weights_stay_for_as_long_as_a_checkpoint_follows_them(tmp_path: Path) -> None:
    folder = tmp_path / "refresh"
    for step in (2, 4, 6):
        (folder / str(step)).mkdir(parents=True)
    for step in (5, 7):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "manifest.json").touch()
    assert fresh_place(tmp_path, 8) == folder / "8"
    assert sorted(place.name for place in folder.iterdir()) == ["4", "6"]
    assert fresh_place(tmp_path, 6) == folder / "6"
    assert sorted(place.name for place in folder.iterdir()) == ["4"]


def test_a_refresh_ends_with_its_run() -> None:
    child = (
        "import os, time; from consilience.training.refreshing import end_with; "
        "end_with(os.getppid()); print(os.getpid(), flush=True); time.sleep(60)"
    )
    run = (
        "import subprocess, sys, os; "
        f"made = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "print(made.stdout.readline().decode(), end='', flush=True); os._exit(0)"
    )
    ended = subprocess.run([sys.executable, "-c", run], capture_output=True, timeout=60, check=True)
    require_end(int(ended.stdout))
