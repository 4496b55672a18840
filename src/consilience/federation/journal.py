"""The journal of a federation: one line for every committed round, and what a table shows of it.

`rounds.jsonl` is made from the newest checkpoint, so that the two never differ. Whoever shows a run
that is under way reads it; nobody reads it to go on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from consilience.errors import DamagedError, MissingError
from consilience.federation.durable import read_table, write_whole

JOURNAL = "rounds.jsonl"


@dataclass(frozen=True, slots=True)
class PartyLine:
    """What a party had to do with a round.

    Attributes:
        bytes_up: From it, in all attempts.
        bytes_down: To it.
        seconds: Until its last reply.
        loss: Its own mean, where its update may be read.
        epsilon: Privacy that it has spent until then.
        traceback: Where its own code failed, without values; empty where it did not.
    """

    bytes_up: int
    bytes_down: int
    seconds: float
    loss: float | None = None
    epsilon: float | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A committed round.

    Attributes:
        round: Its number, from 1.
        metrics: Means over the parties by weight.
        bytes_up: From all parties, in all attempts.
        bytes_down: To all parties.
        epsilon: The most that a party has spent on a record until then; with secure sums, which
            hide it, the budget that no party exceeds. None without a budget.
        lost: Parties whose update does not count, with the reason.
        seconds: From asking to commit.
        attempts: How often it was asked for.
        parties: Each party's part.
        party_epsilon: What the rounds until then cost a whole party; None without `party_noise`.
    """

    round: int
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    epsilon: float | None
    lost: Mapping[str, str]
    seconds: float
    attempts: int = 1
    parties: Mapping[str, PartyLine] = field(default_factory=dict)
    party_epsilon: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; what a party had not is left out."""
        found = asdict(self)
        for part in found["parties"].values():
            for name in [name for name, value in part.items() if value in (None, "")]:
                del part[name]
        return found

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made; raises KeyError or TypeError where it is not."""
        parties = {name: PartyLine(**part) for name, part in found["parties"].items()}
        return cls(**{**found, "parties": parties})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands.

    Attributes:
        output: Its folder.
        run: Its name.
        rounds: Committed.
        of: Rounds in all.
        ended: Whether it is over.
        reason: Why it ended early; empty where it did not.
        parties: Every party that was in a round, in order.
        budget: Epsilon that the run may spend in all; None without.
        secure: Whether what each party spent is hidden, so that only the budget is known.
    """

    output: Path
    run: str
    rounds: tuple[Line, ...]
    of: int
    ended: bool
    reason: str
    parties: tuple[str, ...]
    budget: float | None = None
    secure: bool = False

    @property
    def lost(self) -> dict[str, str]:
        """Whom the newest round lost, and why."""
        return dict(self.rounds[-1].lost) if self.rounds else {}

    @property
    def epsilon(self) -> float | None:
        """The most that a party has spent."""
        return self.rounds[-1].epsilon if self.rounds else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "output": str(self.output),
            "run": self.run,
            "rounds": [line.to_dict() for line in self.rounds],
            "of": self.of,
            "ended": self.ended,
            "reason": self.reason,
            "parties": list(self.parties),
            "budget": self.budget,
            "secure": self.secure,
        }


def read_standing(output: Path) -> Standing:
    """How the run in a folder stands; it may be under way.

    Raises:
        MissingError: There is no run.
        DamagedError: A file of it holds something else.
    """
    run, config = read_table(output / "run.json"), read_table(output / "config.json")
    if run is None or config is None:
        raise MissingError(
            f"no federation in {str(output)!r}", hint="name the output folder of its coordinator"
        )
    lines, done = read_lines(output), read_table(output / "done.json")
    names = {name for line in lines for name in (*line.parties, *line.lost)}
    return Standing(
        output=output,
        run=run["run"],
        rounds=tuple(lines),
        of=config["rounds"],
        ended=done is not None,
        reason="" if done is None else done["reason"],
        parties=tuple(sorted(names)),
        budget=config["privacy"]["epsilon"],
        secure=config["secure"]["sums"],
    )


def read_lines(output: Path) -> list[Line]:
    """The committed rounds of a run, in order; none where none is committed."""
    path = output / JOURNAL
    if not path.is_file():
        return []
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
        return [Line.parse(json.loads(row)) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} holds a line that is no round", hint="run the coordinator; it writes it anew"
        ) from error


def write_lines(output: Path, lines: Sequence[Line]) -> None:
    """Write the journal whole."""
    rows = [json.dumps(line.to_dict(), ensure_ascii=False, allow_nan=False) for line in lines]
    write_whole(output / JOURNAL, "".join(f"{row}\n" for row in rows).encode())
