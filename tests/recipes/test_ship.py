"""The recipe of the shipped model, whole: from data sets to packed weights, and once more killed.

Sizes are tiny and the data made up, so what is learned means nothing; that every stage runs, that
the weights load, and that a killed run ends with the same bytes, does.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consilience import Rag
from consilience.encoding import load_encoder
from consilience.encoding.folder import open_folder
from tests.recipes import conftest  # noqa: F401 - makes the recipe importable
from tests.recipes.open_sets import write_open_sets

pack = pytest.importorskip("pack", exc_type=ImportError)
pytestmark = pytest.mark.timeout(900)  # three whole runs

ROOT = Path(__file__).parents[2]
SHIP = ROOT / "recipes" / "shipped_model" / "ship.py"
LEARNING = ("pretrain", "questions", "supervised", "joint", "tasks")
STAGES = (
    *("vocabulary", "pretrain", "questions", "knowledge", "supervised", "joint", "tasks"),
    *("pack", "settings"),
)
TINY: dict[str, Any] = {
    "tokens": {
        "pretrain": 4000,
        "questions": 3000,
        "supervised": 6000,
        "joint": 1500,
        "tasks": 600,
    },
    "sizes": {
        "vocabulary_size": 400,
        "hidden_size": 16,
        "heads": 2,
        "intermediate_size": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "passage_tokens": 64,
    },
    "start": "random",
    "batch": 400,
    "plain": 12,
    "paragraphs": 60,
    "negatives": 1,
    "joint_batch": 2,
    "k": 2,
    "refresh_every": 2,
    "save_every": 2,
    "threads": 1,
}


def command(world: Path, run: str, *more: str) -> list[str]:
    schedule = str(world / "tiny.json")
    return [
        sys.executable,
        str(SHIP),
        str(world / "data"),
        str(world / run),
        "--schedule",
        schedule,
        *more,
    ]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def ship(world: Path, run: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(world, run, *more), env=environment(), capture_output=True, text=True, check=False
    )


def state(world: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world / run / "state.json").read_text("utf-8"))
    return found["stages"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a schedule, and one run that nobody disturbed."""
    place = tmp_path_factory.mktemp("ship")
    write_open_sets(place / "data")
    (place / "tiny.json").write_text(json.dumps(TINY), "utf-8")
    done = ship(place, "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def test_every_stage_is_done_and_says_what_it_read(world: Path) -> None:
    stages = state(world, "whole")
    assert tuple(stages) == STAGES
    assert {one["state"] for one in stages.values()} == {"done"}
    assert {one["attempts"] for one in stages.values()} == {1}
    for name in ("pretrain", "questions", "supervised"):
        assert (
            TINY["tokens"][name] <= stages[name]["ids"] < TINY["tokens"][name] + 2 * TINY["batch"]
        )
    for name in LEARNING:
        assert stages[name]["steps"] >= 2


def test_the_weights_are_packed_and_answer(world: Path) -> None:
    folder = open_folder(world / "whole" / "model")
    assert folder.storage == "int8"
    assert folder.config.hidden_size == 16
    rag = Rag.load(folder.path)
    assert rag.encoder is not None
    assert rag.encoder.encode_questions(["what did it cost"]).shape == (1, 16)


def test_settings_are_chosen_on_what_was_kept_back(world: Path) -> None:
    found = state(world, "whole")["settings"]
    config = open_folder(world / "whole" / "model").config
    assert set(config.support_thresholds) == {"zh", "en", "other"}
    assert set(config.hybrid_weights) == {"zh", "en", "other"}
    assert found["support_thresholds"] == dict(config.support_thresholds)


def test_every_learning_stage_moves_weights(world: Path) -> None:
    name = "reader.layer.0.intermediate.dense.weight"
    seen = [
        open_folder(world / "whole" / stage / "model").tensors()[name].float() for stage in LEARNING
    ]
    for before, after in pairwise(seen):
        assert not bool((before == after).all())


def test_nothing_of_a_dev_set_or_of_what_is_kept_back_was_asked(world: Path) -> None:
    import gzip

    from tests.recipes.open_sets import is_kept_back

    asked = [
        json.loads(line) for line in (world / "whole/joint.jsonl").read_text("utf-8").splitlines()
    ]
    with gzip.open(world / "data/squad_v11/dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        dev = {json.loads(line)["context"] for line in lines}
    assert asked
    assert not any(one["context"] in dev or is_kept_back(one["context"]) for one in asked)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(world: Path) -> None:
    for stage in ("supervised/checkpoint.pt", "joint/checkpoint-2"):
        process = subprocess.Popen(
            command(world, "killed"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (world / "killed" / stage).exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert "settings" not in state(world, "killed")
    done = ship(world, "killed")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum(one["attempts"] for one in state(world, "killed").values()) == len(STAGES) + 2
    for name in ("pack", "settings"):
        place = {"pack": "packed", "settings": "model"}[name]
        both = [open_folder(world / run / place).digests for run in ("whole", "killed")]
        assert both[0] == both[1]


def test_a_finished_run_is_not_repeated(world: Path) -> None:
    before = open_folder(world / "whole" / "model").digests
    stood = (world / "whole" / "state.json").read_bytes()
    assert ship(world, "whole").returncode == 0
    assert (world / "whole" / "state.json").read_bytes() == stood
    assert open_folder(world / "whole" / "model").digests == before


def test_a_model_is_taught_further_without_moving_its_vectors(world: Path) -> None:
    start = world / "start"
    own = {"zh": 0.77, "en": 0.66, "other": 0.55}  # as no search of weights comes to
    pack.pack(world / "whole" / "model", start, {"hybrid_weights": own})
    tokens = dict.fromkeys(LEARNING, 0) | {"supervised": 1000}
    told = TINY | {"tokens": tokens, "start": str(start), "parts": ["reader", "decoder"]}
    (world / "further.json").write_text(json.dumps(told), "utf-8")
    done = ship(world, "further", "--schedule", str(world / "further.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("vocabulary", "knowledge", "supervised", "pack", "settings")
    assert tuple(state(world, "further")) == names
    before, after = open_folder(start), open_folder(world / "further" / "supervised" / "model")
    for name, weight in after.tensors().items():
        stays = name.startswith(("embeddings.", "retriever."))
        assert bool((weight == before.tensors()[name].float()).all()) is stays, name
    packed = open_folder(world / "further" / "model")
    assert packed.config.hybrid_weights == before.config.hybrid_weights == own
    assert packed.config.prior_temperature == before.config.prior_temperature
    assert load_encoder(before.path).fingerprint == load_encoder(packed.path).fingerprint


def test_a_folder_of_another_schedule_is_refused(world: Path) -> None:
    other = world / "other.json"
    other.write_text(json.dumps(TINY | {"batch": 500}), "utf-8")
    done = ship(world, "whole", "--schedule", str(other))
    assert done.returncode == 1
    assert "was begun with another schedule" in done.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(world: Path) -> None:
    done = ship(world, "planned", "--dry-run", "--rate", "100")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert set(STAGES) <= set(lines)
    assert lines["pretrain"][1:] == ["waiting", "4,000", "0.01"]
    assert lines["together"][1:] == ["15,100", "0.04"]
    assert not (world / "planned").exists()
    measured = ship(world, "planned", "--dry-run")
    assert "ids a second" in measured.stdout
