"""Checkpoints of a run: all or nothing, and without pickle.

    checkpoint-500/
      weights.safetensors    the weights that the run moves
      optimiser.safetensors  its moments
      extra.safetensors      whatever else the run wants back, for instance passage vectors
      random.safetensors     states of the random numbers
      state.json             everything that is not a tensor
      manifest.json          sha256 of each of the others; written last

A checkpoint is written beside its place, made to reach the disk, and renamed; a name that is there
therefore always stands for a whole. A disk that fills leaves the checkpoint before it.
"""

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from consilience.encoding.folder import digest_of
from consilience.errors import DamagedError, MissingError, UsageError

PREFIX = "checkpoint-"
TENSORS = ("weights", "optimiser", "extra", "random")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one step.

    Attributes:
        step: Optimiser steps taken.
        weights: By name.
        optimiser: As `torch.optim.Optimizer.state_dict`.
        state: Anything that JSON can hold: trainer, schedule, config.
        extra: Further tensors, by name.
        random: As `random_states`.
        texts: Further files, by name, for whoever else reads checkpoints.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    state: Mapping[str, Any]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    random: Mapping[str, Tensor] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def write_checkpoint(run: Path, snapshot: Snapshot, *, keep: int = 2) -> Path:
    """Write a checkpoint and drop the oldest beyond `keep`.

    Args:
        run: The folder of the run.
        snapshot: What is written.
        keep: How many checkpoints stay.

    Raises:
        UsageError: It could not be written whole; the checkpoints before it stay as they are.
    """
    place = run / f"{PREFIX}{snapshot.step}"
    part = run / f".{place.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _write(part, snapshot)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        _reach_disk(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UsageError(
            f"the checkpoint of step {snapshot.step} could not be written to {run}: {error}",
            hint="make room on the disk and run the same command again; it goes on from "
            + (latest.name if (latest := latest_checkpoint(run)) else "the beginning"),
        ) from error
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return place


def checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, the oldest first."""
    found = [
        place
        for place in run.glob(f"{PREFIX}*")
        if place.name.removeprefix(PREFIX).isdigit() and (place / "manifest.json").is_file()
    ]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, None when there is none."""
    found = checkpoints(run)
    return found[-1] if found else None


def read_checkpoint(place: Path) -> Snapshot:
    """Read a checkpoint back.

    Raises:
        MissingError: There is none.
        DamagedError: A file of it is missing or was changed.
    """
    if not (place / "manifest.json").is_file():
        raise MissingError(f"no checkpoint in {place}", hint="name a folder checkpoint-N of a run")
    _check(place)
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    tensors = {name: load_file(place / f"{name}.safetensors") for name in TENSORS}
    return Snapshot(
        step=state["step"],
        weights=tensors["weights"],
        optimiser=_optimiser(tensors["optimiser"], state["optimiser"]),
        state=state["state"],
        extra=tensors["extra"],
        random=tensors["random"],
        texts={name: (place / name).read_text("utf-8") for name in state["texts"]},
    )


def random_states() -> dict[str, Tensor]:
    """The states of the random numbers of Python, NumPy and torch on every device."""
    version, numbers, gauss = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    if numpy_state["bit_generator"] != "MT19937":
        raise UsageError(
            f"NumPy draws from {numpy_state['bit_generator']}",
            hint="leave NumPy's global generator as it is",
        )
    keys, position = numpy_state["state"]["key"].tolist(), numpy_state["state"]["pos"]
    found = {
        "python": torch.tensor([version, *numbers], dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*keys, position, numpy_state["has_gauss"]], dtype=torch.int64),
        "numpy.gauss": torch.tensor([numpy_state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states = torch.cuda.get_rng_state_all()
        found |= {f"cuda.{index}": state for index, state in enumerate(states)}
    return found


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Put the states of `random_states` back."""
    version, *numbers = states["python"].tolist()
    gauss = states["python.gauss"].tolist()
    random.setstate((version, tuple(numbers), gauss[0] if gauss else None))
    *keys, position, has_gauss = states["numpy"].tolist()
    cached = float(states["numpy.gauss"][0])
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    for name, state in states.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))


def _write(part: Path, snapshot: Snapshot) -> None:
    moments, settings = _flat(snapshot.optimiser)
    tensors = {
        "weights": snapshot.weights,
        "optimiser": moments,
        "extra": snapshot.extra,
        "random": snapshot.random,
    }
    for name, values in tensors.items():
        plain = {key: value.detach().cpu().contiguous().clone() for key, value in values.items()}
        save_file(plain, part / f"{name}.safetensors")
    state = {"step": snapshot.step, "state": dict(snapshot.state), "optimiser": settings}
    state["texts"] = list(snapshot.texts)
    _write_json(part / "state.json", state)
    for name, text in snapshot.texts.items():
        (part / name).write_text(text, encoding="utf-8")
    names = ["state.json", *(f"{name}.safetensors" for name in TENSORS), *snapshot.texts]
    for name in names:
        _reach_disk(part / name)
    _write_json(part / "manifest.json", {name: digest_of(part / name) for name in names})
    _reach_disk(part / "manifest.json")
    _reach_disk(part)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _reach_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flat(optimiser: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors and the rest."""
    tensors, rest = {}, {}
    for index, moments in optimiser["state"].items():
        for name, value in moments.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                rest[f"{index}.{name}"] = value
    return tensors, {"rest": rest, "groups": optimiser["param_groups"]}


def _optimiser(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *settings["rest"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    pairs = ("betas",)  # JSON has no tuples
    groups = [
        {key: tuple(value) if key in pairs else value for key, value in group.items()}
        for group in settings["groups"]
    ]
    return {"state": state, "param_groups": groups}


def _check(place: Path) -> None:
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    for name in {*manifest, "state.json", *(f"{name}.safetensors" for name in TENSORS)}:
        path = place / name
        if not path.is_file() or digest_of(path) != manifest.get(name):
            raise DamagedError(
                f"the checkpoint file {path} is missing or not what its manifest says",
                hint=f"delete {place}; the run goes on from the checkpoint before it",
            )
