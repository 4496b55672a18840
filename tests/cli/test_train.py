import json
from pathlib import Path

import pytest

from consilience.cli.main import run
from consilience.training.config import TrainConfig
from consilience.training.settings import leaves, read_settings
from tests.cli.terminal import Typist
from tests.house.tree import ROOT
from tests.training.small import write_world

CONFIGS = sorted((ROOT / "recipes/configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def config(world: dict[str, Path], folder: Path) -> Path:
    path = folder / "run.yaml"
    lines = [
        f"output: {folder / 'run'}",
        f"model: {world['model']}",
        f"store: {world['store']}",
        f"data: {{train: ['{world['data']}']}}",
        "steps: 2",
        "k: 2",
        "report_to: []",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_json_is_all_there_is_on_standard_output(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(config(world, tmp_path)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"output", "steps", "metrics", "resumed_from", "generation"}
    assert found["steps"] == 2
    assert found["resumed_from"] is None


def test_flags_win_over_the_file_and_the_run_goes_on(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(world, tmp_path)
    assert run(["train", str(path), "--save_every", "1"]) == 0
    assert "2 steps; the model is in" in capsys.readouterr().out
    assert run(["train", str(path), "--save_every", "1", "--steps", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3
    assert found["resumed_from"].endswith("checkpoint-2")


def test_every_mistake_of_file_and_flags_is_told_at_once(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(world, tmp_path)
    path.write_text(path.read_text("utf-8") + "stepz: 3\n", encoding="utf-8")
    words = ["train", str(path), "--k", "0", "--adapter.kind", "lore", "--json"]
    assert run(words) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    for part in ("3 mistakes", "did you mean steps", "k is '0'", "adapter.kind is 'lore'"):
        assert part in message


def test_every_setting_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    told = capsys.readouterr().out
    for leaf in leaves(TrainConfig):
        assert f"--{leaf.path}" in told


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_that_ship_are_sound(path: Path) -> None:
    assert isinstance(read_settings(TrainConfig, path), TrainConfig)


def test_a_student_is_taught_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path)
    path = config(world, tmp_path)
    words = ["distil", str(path), "--json", "--steps", "2"]
    assert run(words) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert message == f"{path} names no teacher"
    teacher = ["--distil.teacher", str(world["model"]), "--objectives", "distil=1"]
    assert run([*words, *teacher]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["resumed_from"]) == (2, None)
    assert (Path(told["output"]) / "model" / "manifest.json").is_file()


def test_what_a_run_tells_stands_line_by_line(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(config(world, tmp_path))]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("train: 32 questions")
    assert told[1].startswith("  ")
    assert not any("\\n" in line for line in told)


def test_steps_are_counted_on_a_terminal(world: dict[str, Path], tmp_path: Path) -> None:
    typist = Typist(("train", str(config(world, tmp_path)), "--log_every", "1"), cwd=tmp_path)
    shown = typist.read_until("the model is in")
    assert "/2 steps" in shown
    assert "2/2 steps · loss " in shown
    assert typist.leave() == 0
