"""Parties of the tiny world that training is tested in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.contracts import Orders
from consilience.federation.messages import Message
from consilience.federation.party import ResidentParty
from consilience.federation.travelling import moving_in
from consilience.training.settings import parse_settings

RECIPE: dict[str, Any] = {"batch": 8, "k": 3, "learning_rate": 3e-3, "log_every": 1}
"""What `tests.training.small.config_of` has, as far as a party does not put in its own."""


def federation(folder: Path, **values: Any) -> FederationConfig:
    """Settings of a federation; `kind` and other names of `travel` may be given plainly."""
    travel = {n: values.pop(n) for n in ("kind", "names", "personal") if n in values}
    settings = {
        "output": str(folder / "run"),
        "recipe": "recipe.yaml",
        "travel": {"kind": "full", **travel},
        **values,
    }
    return parse_settings(FederationConfig, settings, source="test", verb="federate")


def party(world: Mapping[str, Path], folder: Path, name: str = "a", **values: Any) -> PartyConfig:
    """A party with the world's store, model and questions."""
    settings = {
        "name": name,
        "state": str(folder / name),
        "store": str(world["store"]),
        "model": str(world["model"]),
        "data": {"train": [str(world["data"])]},
        **values,
    }
    return parse_settings(PartyConfig, settings, source="test", verb="federate")


def orders(
    config: FederationConfig, names: Any, round_: int = 1, parties: tuple[str, ...] = ("a",)
) -> Orders:
    """Of a round in which everything moves that its kind of travel lets."""
    moving = moving_in(config.travel.kind, round_, tuple(names))
    return Orders("run", round_, moving, parties, config.seed)


def questions_of(world: Mapping[str, Path], path: Path, *things: str) -> dict[str, list[str]]:
    """Data of a party that asks about these things only."""
    lines = [json.loads(line) for line in world["data"].read_text("utf-8").splitlines()]
    chosen = [one for one in lines if one["question"].split()[-1] in things]
    path.write_text("".join(json.dumps(one) + "\n" for one in chosen), encoding="utf-8")
    return {"train": [str(path)]}


def said(party: ResidentParty, request: bytes) -> Message:
    """What a party replies."""
    return Message.unpack(party.answer(request))


def fault(party: ResidentParty, request: bytes) -> str:
    """What a party refuses with."""
    reply = said(party, request)
    assert reply.kind == "fault", reply
    return str(reply.content["message"])
