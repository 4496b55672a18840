"""Several processes train as one that takes their batches one after the other."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from consilience.errors import UsageError
from consilience.training.processes import are_several, is_first, require_shareable
from consilience.training.run import train
from consilience.training.settings import as_json
from tests.training.small import config_of, write_world

TRAIN = "import sys; from consilience.cli.main import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def together(config: Path, *, script: str = TRAIN) -> "subprocess.CompletedProcess[str]":
    """Two processes, as torchrun starts them."""
    place = config.with_suffix(".py")
    place.write_text(script)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*words, str(place), "train", str(config), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def test_two_processes_equal_two_batches_added_up(world: dict[str, Path], tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_text('{"question": "which number has the fee", "answers": ["1"]}\n')
    values: dict[str, Any] = {
        "batch": 2,
        "steps": 3,
        "save_every": 2,
        "data": {"train": [str(world["data"])], "dev": [str(dev)]},
        "evaluate_every": 3,
        "evaluate_limit": 4,
    }
    train(config_of(world, tmp_path / "alone", accumulate=2, **values))
    config = as_json(config_of(world, tmp_path / "both", **values))
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(config))
    done = together(path)
    assert done.returncode == 0, done.stderr[-2000:]
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(told)["steps"] == 3
    alone, both = weights(tmp_path / "alone"), weights(tmp_path / "both")
    assert alone.keys() == both.keys()
    for name, value in alone.items():
        torch.testing.assert_close(value, both[name], atol=1e-5, rtol=1e-4)
    started = load_file(Path(config["model"]) / "model.safetensors")
    assert any(not torch.equal(both[name], value) for name, value in started.items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "both/log.jsonl").open()]
    assert len(steps) == len(set(steps)) + steps.count(3) - 1  # nothing is logged twice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"train": ["passage_encoder"], "refresh": {"mode": "synchronous"}},
            "passage_encoder is in train, whose new vectors go into one store",
        ),
        (
            {"train": ["passage_encoder"], "objectives": {"info_nce": 1.0}},
            "passage_encoder is in train, whose new vectors go into one store",
        ),
        (
            {"train": ["question_encoder"], "objectives": {"info_nce": 1.0}, "chunk": 2},
            "chunk contrasts a batch in one process, and no gradient would reach the others",
        ),
        (
            {
                "train": ["passage_encoder", "generator"],
                "store": None,
                "vocabulary": {"tokens": 5},
                "objectives": {"info_nce": 1.0},
            },
            "vocabulary adds words, which are written before the first step",
        ),
        (
            {
                "model": None,
                "distil": {"teacher": "shipped", "encoder_layers": 1, "answers": "teacher"},
            },
            "distil writes a student or a teacher's answers before the first step",
        ),
    ],
)
def test_what_they_would_do_to_the_same_files_is_refused(
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    message: str,
) -> None:
    config = config_of(world, tmp_path / "run", **values)
    require_shareable(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError) as error:
        train(config)
    assert error.value.message == f"several processes cannot share a run in which {message}"
    assert not (tmp_path / "run").exists()


def test_one_process_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_first(), are_several()) == (True, False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (is_first(), are_several()) == (False, True)
