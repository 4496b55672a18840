import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.errors import DamagedError, MissingError, UsageError
from consilience.training import checkpoint as files
from consilience.training.checkpoint import (
    Snapshot,
    checkpoints,
    latest_checkpoint,
    random_states,
    read_checkpoint,
    restore_random_states,
    write_checkpoint,
)


def snapshot(step: int = 3) -> Snapshot:
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return Snapshot(
        step=step,
        weights=dict(model.named_parameters()),
        optimiser=optimiser.state_dict(),
        state={"epoch": 0.5, "history": [{"loss": 1.0}]},
        extra={"vectors": torch.arange(4.0)},
        random=random_states(),
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = snapshot()
    found = read_checkpoint(write_checkpoint(tmp_path, made))
    assert found.step == 3
    assert found.state == made.state
    for name, value in made.weights.items():
        assert torch.equal(found.weights[name], value)
    assert torch.equal(found.extra["vectors"], made.extra["vectors"])
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.3)
    optimiser.load_state_dict(dict(found.optimiser))
    again = optimiser.state_dict()
    assert again["param_groups"] == made.optimiser["param_groups"]
    for index, moments in made.optimiser["state"].items():
        for name, value in moments.items():
            assert torch.equal(again["state"][index][name], value)


def draws() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
    ]


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draws()
    place = write_checkpoint(tmp_path, snapshot())
    expected = draws() + draws()
    restore_random_states(read_checkpoint(place).random)
    assert draws() + draws() == expected


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 40, 300):
        write_checkpoint(tmp_path, snapshot(step), keep=2)
    assert [place.name for place in checkpoints(tmp_path)] == ["checkpoint-40", "checkpoint-300"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-300"


def test_folders_that_are_no_whole_checkpoint_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(MissingError, match="no checkpoint in"):
        read_checkpoint(tmp_path / "checkpoint-9")


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "random.safetensors"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    place = write_checkpoint(tmp_path, snapshot())
    data = bytearray((place / name).read_bytes())
    data[-3] ^= 1
    (place / name).write_bytes(data)
    with pytest.raises(DamagedError, match=name):
        read_checkpoint(place)


def test_a_disk_that_fills_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path, snapshot(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(UsageError, match="step 2 could not be written") as caught:
            write_checkpoint(tmp_path, snapshot(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "goes on from checkpoint-1" in caught.value.hint
    assert list(tmp_path.iterdir()) == [first]
    assert read_checkpoint(first).step == 1


def test_a_stop_at_any_write_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(BaseException):
        pass

    write_checkpoint(tmp_path, snapshot(1))
    real, stops, calls = files._reach_disk, 0, 0

    def stopping(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > stops:
            raise StopError
        real(path)

    while True:
        calls = 0

        monkeypatch.setattr(files, "_reach_disk", stopping)
        try:
            write_checkpoint(tmp_path, snapshot(2))
        except StopError:
            newest = latest_checkpoint(tmp_path)
            assert newest is not None
            assert read_checkpoint(newest).step in (1, 2)
            stops += 1
        else:
            break
    assert stops >= 6
    assert read_checkpoint(tmp_path / "checkpoint-2").step == 2
