"""Losses of every step as they were when they were written down, through the command line.

A change that moves one of them changes what people's runs learn: that is either meant, and then the
numbers here are made again and the change is told in CHANGELOG.md, or it is a mistake.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from consilience.cli.main import run
from tests.training.small import write_world

STEPS, HALF = 6, 3
LOSSES: Mapping[str, list[float]] = {
    "sequence": [18.77035, 25.11336, 11.09683, 15.34198, 12.08647, 20.50988],
    "token": [18.67589, 25.04332, 11.0934, 15.33561, 12.05751, 20.43079],
    "emdr2": [18.77035, 26.23659, 14.11246, 21.82041, 19.2576, 26.37012],
    "perplexity": [0.74476, 0.78013, 0.6924, 0.75485, 0.73175, 0.71633],
    "leave_one_out": [0.68727, 0.59008, 0.61579, 0.71143, 0.68238, 0.54357],
    "fid": [18.65064, 25.04694, 11.21744, 17.6584, 13.22687, 20.31534],
    "info_nce": [2.19661, 1.69742, 2.13042, 2.34065, 2.09677, 1.13686],
    "reader": [14.07387, 13.47442, 8.11158, 9.61791, 6.60697, 9.21679],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def trained(world: dict[str, Path], folder: Path, objective: str, steps: int) -> list[float]:
    """The losses that stand in the log after the command ended."""
    settings = {
        "output": str(folder / "run"),
        "model": str(world["model"]),
        "store": str(world["store"]),
        "data": {"train": [str(world["data"])]},
        "objectives": {objective: 1},
        "steps": steps,
        "batch": 8,
        "k": 3,
        "learning_rate": 1e-3,
        "warmup": 0,
        "schedule": "constant",
        "log_every": 1,
        "save_every": HALF,
        "report_to": [],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert run(["train", str(path)]) == 0
    lines = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize("objective", LOSSES)
def test_losses_are_those_that_were_written_down(
    world: dict[str, Path], tmp_path: Path, objective: str
) -> None:
    found = trained(world, tmp_path, objective, STEPS)
    assert found == pytest.approx(LOSSES[objective], rel=5e-4)


@pytest.mark.parametrize("objective", ["sequence", "info_nce"])
def test_so_they_are_when_the_run_ended_half_way_and_went_on(
    world: dict[str, Path], tmp_path: Path, objective: str
) -> None:
    first = trained(world, tmp_path, objective, HALF)
    assert first == pytest.approx(LOSSES[objective][:HALF], rel=5e-4)
    found = trained(world, tmp_path, objective, STEPS)
    assert found == pytest.approx(LOSSES[objective], rel=5e-4)
