"""Real parties under the real coordinator, in this process: the seams fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.encoding.folder import open_folder
from consilience.federation.central import CoordinatorModel
from consilience.federation.combining import PlainGathering
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.local import LocalParties
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing
from consilience.federation.rounds import Coordinator, Federated
from consilience.federation.terms import Limits
from consilience.federation.trainee import RagTrainee
from consilience.training.run import train
from tests.federation.small import RECIPE, federation, party, questions_of
from tests.training.small import THINGS, config_of, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in open_folder(folder).tensors().items()}


def resident(mine: PartyConfig) -> ResidentParty:
    return ResidentParty(
        mine.name,
        lambda recipe, config: RagTrainee(recipe, mine, config),
        lambda config, place: PlainSealing(config.travel.precision, place),
        state=mine.state,
        limits=Limits.of(mine),
    )


def federated(config: FederationConfig, recipe: Mapping[str, Any], *mine: PartyConfig) -> Federated:
    parties = LocalParties([resident(one) for one in mine])
    try:
        return Coordinator(
            config,
            recipe,
            parties=parties,
            model=CoordinatorModel(recipe, config),
            gathering=PlainGathering(config),
        ).run()
    finally:
        parties.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "full"},
        {"kind": "alternate"},
        {"kind": "frozen-a"},
        {"kind": "average"},
        {"kind": "stack"},
        {"kind": "subset", "names": ["generator."]},
        {"kind": "alternate", "scaffold": True},
        {"kind": "stack", "proximal": 0.5},
        {"kind": "alternate", "privacy": {"epsilon": 8}},
    ],
    ids=lambda one: "-".join(map(str, one)) + "-" + one["kind"],
)
def test_two_parties_end_with_the_coordinators_model(
    world: dict[str, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = federation(tmp_path, rounds=2, steps=2, **settings)
    recipe = RECIPE | {"model": str(world["model"]), "learning_rate": 1e-2}
    parties = [
        party(world, tmp_path, name, data=questions_of(world, tmp_path / f"{name}.jsonl", *things))
        for name, things in (("a", THINGS[:4]), ("b", THINGS[4:]))
    ]
    found = federated(config, recipe, *parties)
    assert [line.round for line in found.rounds] == [1, 2]
    assert not found.without_model
    ends = weights(Path(found.model))
    begun = weights(world["model"])
    for one in parties:
        own = weights(one.state / "model")
        assert all(torch.equal(value, ends[name]) for name, value in own.items())
    assert any(not torch.equal(value, ends[name]) for name, value in begun.items())


@pytest.mark.parametrize(
    ("steps", "settings"),
    [(1, {"batch": 32, "decay": 0}), (4, {"batch": 8, "learning_rate": 3e-2}), (8, {"batch": 4})],
)
def test_one_party_is_central_training(
    world: dict[str, Path], tmp_path: Path, steps: int, settings: dict[str, Any]
) -> None:
    """An epoch of several steps, some of which turn weights round, to the last bit."""
    train(config_of(world, tmp_path / "central", steps=steps, **settings))
    recipe = RECIPE | settings | {"model": str(world["model"])}
    found = federated(federation(tmp_path, rounds=1), recipe, party(world, tmp_path))
    central, ends = weights(tmp_path / "central" / "model"), weights(Path(found.model))
    assert central.keys() == ends.keys()
    assert all(torch.equal(value, ends[name]) for name, value in central.items())
