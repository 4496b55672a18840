"""What a coordinator has committed, and nothing but that: the state a run goes on from.

    output/
      config.json        the settings
      run.json           the name of the run, made once
      attempt.json       how often the round under way was begun
      checkpoint-N/      after round N: weights, optimiser, who is known, the journal
      rounds.jsonl       the journal, made from the newest checkpoint
      done.json          the run is over
      model/             the model of the final weights

A checkpoint is there whole or not at all, so that a coordinator that is killed anywhere goes on
from the last committed round.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from consilience.errors import UsageError
from consilience.federation.config import FederationConfig
from consilience.federation.durable import read_table, write_table
from consilience.federation.journal import Line, write_lines
from consilience.federation.stepping import Moments
from consilience.training.checkpoint import (
    Snapshot,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from consilience.training.config import TrainConfig
from consilience.training.settings import as_json, differences, told_differences

_MAY_CHANGE = (
    "rounds",
    "parties",
    "expected",
    "quorum",
    "grace",
    "deadline",
    "engine",
    "listen",
    "keys",
)
_KEPT = 2  # checkpoints


@dataclass(frozen=True, slots=True)
class Committed:
    """A run after its last committed round.

    Attributes:
        round: Its number; 0 before the first.
        weights: The shared weights.
        moments: Of the coordinator's optimiser.
        counted: For every party the newest round in which its update counted.
        known: Parties that ever took part.
        spent: Parties whose budget is spent.
        lines: The journal.
    """

    round: int
    weights: Mapping[str, Tensor]
    moments: Moments = field(default_factory=Moments)
    counted: Mapping[str, int] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    spent: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()


def commit(output: Path, committed: Committed) -> None:
    """Write a round whole, then its journal.

    Raises:
        UsageError: It could not be written; the round before it stays committed.
    """
    state = {
        "counted": dict(committed.counted),
        "known": list(committed.known),
        "spent": list(committed.spent),
        "lines": [line.to_dict() for line in committed.lines],
    }
    snapshot = Snapshot(
        step=committed.round,
        weights=committed.weights,
        optimiser={"state": {}, "param_groups": []},
        state=state,
        extra=committed.moments.to_tensors(),
    )
    write_checkpoint(output, snapshot, keep=_KEPT)
    write_lines(output, committed.lines)


def last_committed(output: Path) -> Committed | None:
    """The newest committed round, None before the first; mends the journal if it lags behind.

    Raises:
        DamagedError: A file of it was changed.
    """
    place = latest_checkpoint(output)
    if place is None:
        return None
    found = read_checkpoint(place)
    lines = tuple(Line.parse(line) for line in found.state["lines"])
    write_lines(output, lines)
    return Committed(
        round=found.step,
        weights=found.weights,
        moments=Moments.parse(found.extra),
        counted=found.state["counted"],
        known=tuple(found.state["known"]),
        spent=tuple(found.state["spent"]),
        lines=lines,
    )


def name_of_run(output: Path) -> str:
    """The name of the run in a folder, made where there is none."""
    found = read_table(output / "run.json")
    if found is None:
        found = {"run": secrets.token_hex(8)}
        write_table(output / "run.json", found)
    return str(found["run"])


def next_attempt(output: Path, round_: int) -> int:
    """Count another beginning of a round, so that no two of them have the same masks."""
    found = read_table(output / "attempt.json") or {}
    attempt: int = found["attempt"] + 1 if found.get("round") == round_ else 1
    write_table(output / "attempt.json", {"round": round_, "attempt": attempt})
    return attempt


def require_same_settings(config: FederationConfig, recipe: Mapping[str, Any]) -> None:
    """A folder is of one run: other settings need another, or an empty one.

    A run that an earlier version began has the defaults of the settings that came since.

    Raises:
        UsageError: It is of another run.
    """
    path = config.output / "config.json"
    settings = as_json(config) | {"recipe": dict(recipe)}
    found = read_table(path)
    if found is not None:
        other = _differences(found, settings, spent=config.privacy.epsilon is not None)
        if other:
            raise UsageError(
                f"{config.output} is of a federation with other settings: "
                f"{told_differences(other)}",
                hint="choose another output folder, or delete this one",
            )
    if found != settings:
        write_table(path, settings)


def _differences(
    was: Mapping[str, Any], now: Mapping[str, Any], *, spent: bool
) -> dict[str, tuple[Any, Any]]:
    """What may not change and did; how many rounds there are may not where a budget is spent."""
    plain = [{key: one for key, one in form.items() if key != "recipe"} for form in (was, now)]
    found = differences(FederationConfig, *plain)
    free = set(_MAY_CHANGE) - ({"rounds"} if spent else set())
    other = {key: both for key, both in found.items() if key.partition(".")[0] not in free}
    recipes = differences(TrainConfig, was.get("recipe", {}), now["recipe"])
    return other | {f"recipe.{key}": both for key, both in recipes.items()}
