"""Processes that have parts of the weights train as those that have all of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from consilience.errors import UsageError
from consilience.training.checkpoint import read_checkpoint
from consilience.training.run import train
from consilience.training.settings import as_json
from consilience.training.sharding import (
    gathered,
    like,
    put_moments,
    put_together,
    uncut,
    whole,
    whole_moments,
)
from tests.training.small import config_of, logged, write_world
from tests.training.test_processes import together

HELD = """
import json, os, sys
from pathlib import Path
import yaml
from transformers import TrainerCallback
from torch.distributed.tensor import DTensor
from consilience.store import Store
from consilience.questions import read_questions
from consilience.training.config import TrainConfig
from consilience.training.optimising import arguments
from consilience.training.session import Session
from consilience.training.settings import parse_settings

path = Path(sys.argv[2])
values = yaml.safe_load(path.read_text())
config = parse_settings(TrainConfig, values, source="test")
held = {}

def size(value):
    return (value.to_local() if isinstance(value, DTensor) else value).numel()

class Looking(TrainerCallback):
    def on_step_end(self, args, state, control, optimizer=None, **_):
        weights = list(session.learner.parameters())
        moments = [m["exp_avg"] for m in optimizer.state.values()]
        held.update(
            weights=sum(map(size, weights)), all=sum(w.numel() for w in weights),
            moments=sum(map(size, moments)),
            learn=sum(w.numel() for w in weights if w.requires_grad),
        )

with Store.open(config.store, create=False) as store:
    session = Session(config, store, [read_questions(p) for p in config.data.train], [])
    session.trainer(arguments(config, saves=False), callbacks=[Looking()]).train()
path.with_name(f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
"""
"""Trains, and tells how many numbers a process holds between two steps."""

AVERAGED = """
import json, os, sys
from pathlib import Path
import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from consilience.training.sharding import average_uncut

init_process_group("gloo")
rank = int(os.environ["RANK"])
learner = nn.Module()
learner.both = nn.Parameter(torch.tensor(5.0))
learner.one = nn.Parameter(torch.tensor(5.0))
learner.still = nn.Parameter(torch.tensor(5.0), requires_grad=False)
learner.cut = nn.Parameter(torch.ones(2))
(learner.both * (1 + 2 * rank) + learner.cut.sum() * (1 + rank)).backward()
if rank:
    (learner.one * 3).backward()
average_uncut(learner)
found = {n: None if w.grad is None else w.grad.tolist() for n, w in learner.named_parameters()}
Path(sys.argv[2]).with_name(f"gradients-{rank}.json").write_text(json.dumps(found))
destroy_process_group()
"""
"""Tells the gradients of a process once those of weights that are not cut were averaged."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def values(world: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    dev = tmp_path / "dev.jsonl"
    dev.write_text('{"question": "which number has the fee", "answers": ["1"]}\n')
    return {
        "batch": 2,
        "steps": 4,
        "save_every": 2,
        "data": {"train": [str(world["data"])], "dev": [str(dev)]},
        "evaluate_every": 2,
        "evaluate_limit": 4,
        "patience": 5,
    }


def run_together(
    world: dict[str, Path], output: Path, *, script: str | None = None, **values: Any
) -> None:
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(as_json(config_of(world, output, **values))))
    done = together(path) if script is None else together(path, script=script)
    assert done.returncode == 0, done.stderr[-2000:]


def same(one: Path, other: Path) -> None:
    """Equal but for the biases of keys, whose gradient is nothing but rounding under Adam."""
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys()
    told = [name for name in left if not name.endswith(("key.bias", "pointer_key.bias"))]
    assert len(told) > 80
    for name in told:
        torch.testing.assert_close(left[name], right[name], atol=1e-5, rtol=1e-4)


def test_parts_train_as_the_whole(
    world: dict[str, Path], tmp_path: Path, values: dict[str, Any]
) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    train(config_of(world, alone, accumulate=4, **values))
    run_together(world, both, accumulate=2, fsdp=True, **values)
    same(alone / "model/model.safetensors", both / "model/model.safetensors")
    for name in ("loss", "grad_norm", "eval_loss"):
        assert logged(both, name) == pytest.approx(logged(alone, name), rel=1e-4), name
    weights, best = (
        load_file(both / name) for name in ("checkpoint-4/weights.safetensors", "best.safetensors")
    )
    assert weights.keys() == best.keys()
    started = load_file(world["model"] / "model.safetensors")
    kept = load_file(both / "model/model.safetensors")
    moved = [name for name, value in started.items() if not torch.equal(kept[name], value.float())]
    assert len(moved) > 80


def test_its_checkpoint_is_whole_and_goes_on_with_or_without_parts(
    world: dict[str, Path], tmp_path: Path, values: dict[str, Any]
) -> None:
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    train(config_of(world, through, accumulate=2, **values))
    run_together(world, stopped, fsdp=True, **values | {"steps": 2})
    own, theirs = (read_checkpoint(run / "checkpoint-2") for run in (through, stopped))
    shapes = {name: value.shape for name, value in own.weights.items()}
    assert {name: value.shape for name, value in theirs.weights.items()} == shapes
    assert theirs.optimiser["state"].keys() == own.optimiser["state"].keys()
    for index, moments in own.optimiser["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(
                value, theirs.optimiser["state"][index][name], atol=1e-5, rtol=1e-3
            )
    run_together(world, stopped, fsdp=True, **values)
    same(through / "model/model.safetensors", stopped / "model/model.safetensors")
    assert read_checkpoint(stopped / "checkpoint-4").step == 4
    longer = train(config_of(world, stopped, **values | {"steps": 5}))
    assert longer.resumed_from == str(stopped / "checkpoint-4")
    assert longer.steps == 5


def test_a_process_holds_half_of_the_weights_and_of_their_moments(
    world: dict[str, Path], tmp_path: Path
) -> None:
    run_together(world, tmp_path / "run", script=HELD, fsdp=True, steps=2, batch=2)
    held = [json.loads((tmp_path / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    for mine in held:
        assert mine["weights"] == pytest.approx(mine["all"] / 2, rel=0.05)
        assert mine["moments"] == pytest.approx(mine["learn"] / 2, rel=0.05)
    (scalar,) = {sum(one["weights"] for one in held) - held[0]["all"]}
    assert scalar == 1  # the temperature is everybody's


def test_weights_that_are_not_cut_have_the_mean_of_all_gradients(tmp_path: Path) -> None:
    """The gradients themselves: under Adam a multiple of them would take the same steps."""
    done = together(tmp_path / "run.yaml", script=AVERAGED)
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"gradients-{rank}.json").read_text())
        assert found == {"both": 2.0, "one": 1.5, "still": None, "cut": [1.0 + rank] * 2}


def test_parts_need_company(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        train(config_of(world, tmp_path / "run", fsdp=True))
    assert error.value.message == "fsdp shares weights out among processes, and there is one"
    assert error.value.hint == ("start the run with torchrun --nproc-per-node 2, or leave fsdp out")
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_shares_out_needs_the_setting(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError) as error:
        train(config_of(world, tmp_path / "run"))
    assert error.value.message == (
        "accelerate was told to share weights out (FSDP), and the settings were not"
    )
    assert error.value.hint == "set fsdp: true, or take FSDP out of accelerate's config"


def test_float16_is_not_for_parts(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        config_of(world, tmp_path / "run", fsdp=True, precision="float16")
    assert "fsdp is for float32 and bfloat16, and precision is float16" in error.value.message


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.inner = nn.Linear(2, 3)


def test_what_is_whole_already_stays_as_it_is() -> None:
    model = Small()
    before = dict(model.named_parameters())
    assert [weight is model.scale for weight in uncut(model)] == [True]
    with gathered(model):
        put_together(model)
    assert all(value is before[name] for name, value in model.named_parameters())
    value = torch.ones(3, 2)
    assert whole(value) is value
    assert like(value, model.inner.weight) is value
    optimiser = torch.optim.AdamW(model.parameters())
    model.inner(torch.ones(1, 2)).sum().mul(model.scale).backward()
    optimiser.step()
    found = whole_moments(optimiser)
    other = torch.optim.AdamW(model.parameters())
    put_moments(other, found)
    assert other.state_dict()["state"].keys() == found["state"].keys()
    assert torch.equal(other.state[model.scale]["exp_avg"], optimiser.state[model.scale]["exp_avg"])
