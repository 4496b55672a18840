"""Flower's simulation runtime, on Ray: the same app, and the agents of this process."""

import pytest
import torch

from consilience.errors import DependencyError
from consilience.federation.combining import PlainGathering
from consilience.federation.flower import checks, simulate_on_flower
from consilience.federation.local import LocalParties
from consilience.federation.rounds import Coordinator
from consilience.training.checkpoint import latest_checkpoint, read_checkpoint
from tests.federation.fakes import RECIPE, Pull, Start, config_of, party_of
from tests.federation.flower.deployed import left_of, until

GOALS = {"bank": 0.0, "lab": 1.0, "ward": 2.0}


def made(folder):
    config = config_of(folder, rounds=2, expected=3, deadline=150, seed=5)
    parties = [party_of(folder, name, Pull(goal)) for name, goal in GOALS.items()]

    def run(way):
        return Coordinator(
            config, RECIPE, parties=way, model=Start(), gathering=PlainGathering(config)
        ).run()

    return config, parties, run


def weights(folder):
    return dict(read_checkpoint(latest_checkpoint(folder / "run")).weights)


def test_a_simulation_comes_to_the_same_weights_as_in_one_process(tmp_path):
    config, parties, run = made(tmp_path / "ray")
    found = simulate_on_flower(config, parties, run)
    _, local, alone = made(tmp_path / "local")
    alone(LocalParties(local))
    assert [line.round for line in found.rounds] == [1, 2]
    assert found.without_model == {}
    one, other = weights(tmp_path / "ray"), weights(tmp_path / "local")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    until(lambda: not left_of(tmp_path), 30)


def test_without_ray_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(checks, "version", missing)
    with pytest.raises(DependencyError, match="the package ray is not installed") as caught:
        checks.installed("ray", "simulation")
    assert caught.value.hint == "pip install 'consilience[simulation]'"


def missing(package):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(package)
