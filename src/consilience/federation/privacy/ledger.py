"""The ledger of a party: what of its privacy was spent, by which run, for as long as it has data.

    {"format": 1,
     "spent": [{"run": …, "round": 1, "unit": "question", "sampling": 0.0625, "noise": 0.63,
                "steps": 16, "delta": 0.0005}, …],
     "digest": sha256 of the lines above it}

A round is written here, and has reached the disk, before its first gradient is taken: who is
stopped in between has spent what nobody has seen, never the other way round. Lines are only ever
added. A ledger that is not whole is refused, for a reset would give the same privacy away twice.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consilience.errors import BusyError, DamagedError, UsageError, VersionError
from consilience.federation.contracts import SpentError
from consilience.federation.durable import private_folder, write_whole
from consilience.federation.privacy.accounting import Steps, epsilon_of
from consilience.federation.privacy.records import Unit
from consilience.retrieval.derived import exclusive

FORMAT = 1
_PATIENCE = 30.0  # seconds that another process may hold the ledger


@dataclass(frozen=True, slots=True)
class Spent:
    """What a round of a run spends.

    Attributes:
        run: Name of the run.
        round: Its number, from 1.
        unit: What a record is.
        sampling: Probability with which a record is in a step.
        noise: Noise multiplier.
        steps: Of the round.
        delta: Of the run.
    """

    run: str
    round: int
    unit: Unit
    sampling: float
    noise: float
    steps: int
    delta: float


@dataclass(frozen=True, slots=True)
class Spending:
    """Where a party stands.

    Attributes:
        run: Epsilon of one run until now, at its own delta.
        total: Epsilon of all runs until now, at the least delta of any.
    """

    run: float
    total: float


class Ledger:
    """What a party has spent on its data.

    Args:
        path: The file; made with the first round that is spent.
        most: Epsilon that the party is willing to spend in all; None for no limit of its own.
    """

    def __init__(self, path: Path, *, most: float | None = None) -> None:
        self.path, self.most = path, most

    def history(self) -> tuple[Spent, ...]:
        """Everything spent, the oldest first.

        Raises:
            DamagedError: The ledger is not whole, or was changed by another hand.
            VersionError: A newer version wrote it.
        """
        try:
            return _parsed(self.path.read_bytes())
        except FileNotFoundError:
            return ()
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"the privacy ledger {self.path} is damaged: {error}",
                hint="put it back from a copy; without it nobody knows what was spent, and it is "
                "never begun anew by itself",
            ) from error

    def spend(self, spent: Spent, *, budget: float) -> Spending:
        """Write a round down before it is trained; it has reached the disk when this returns.

        A round that is trained a second time is spent a second time.

        Args:
            spent: The round.
            budget: Epsilon of its run in all.

        Returns:
            Where the party stands with it.

        Raises:
            SpentError: The round would exceed the budget of the run or of the party; nothing is
                spent.
            UsageError: Records are something else than until now, or the disk is full; likewise.
            DamagedError: As `history`.
            BusyError: Another process is writing to the ledger.
        """
        private_folder(self.path.parent)
        lock = self.path.with_name(f"{self.path.name}.lock")
        with exclusive(lock, patience=_PATIENCE) as held:
            if not held:
                raise BusyError(
                    f"another process is writing to the privacy ledger {self.path}",
                    hint="one party, one process: stop the other one",
                )
            before = self.history()
            _same_unit(before, spent)
            standing = self._within(before, spent, budget)
            write_whole(self.path, _packed((*before, spent)))
        return standing

    def _within(self, before: Sequence[Spent], spent: Spent, budget: float) -> Spending:
        """Where the party will stand, if that is within both budgets."""
        now, name = standing((*before, spent), spent.run), f"round {spent.round} of {spent.run}"
        if now.run > budget:
            earlier = standing(before, spent.run).run
            raise _exceeds(name, "the run's", now.run, budget, earlier)
        if self.most is not None and now.total > self.most:
            earlier = standing(before, spent.run).total
            raise _exceeds(name, "this party's", now.total, self.most, earlier)
        return now


def standing(history: Sequence[Spent], run: str) -> Spending:
    """What a history comes to, for one run and in all."""
    return Spending(
        run=_epsilon([one for one in history if one.run == run]), total=_epsilon(history)
    )


def _epsilon(history: Sequence[Spent]) -> float:
    if not history:
        return 0.0
    steps = [Steps(one.sampling, one.noise, one.steps) for one in history]
    return epsilon_of(steps, delta=min(one.delta for one in history))


def _same_unit(before: Sequence[Spent], spent: Spent) -> None:
    """Epsilons of different records do not add up."""
    if other := next((one for one in before if one.unit != spent.unit), None):
        raise UsageError(
            f"the privacy ledger counts what was spent on each {other.unit}, and the run "
            f"{spent.run} protects each {spent.unit}",
            hint=f"take part in runs with privacy.unit {other.unit} only",
        )


def _exceeds(name: str, whose: str, would: float, budget: float, spent: float) -> SpentError:
    return SpentError(
        f"{name} would bring the privacy spent to epsilon {would:.3f}; {whose} budget is "
        f"{budget:g}, of which {spent:.3f} is spent",
        hint="nothing was trained or spent; a larger budget is for the party to grant "
        "(most_epsilon, privacy.epsilon)",
    )


def _packed(history: Sequence[Spent]) -> bytes:
    lines = [asdict(one) for one in history]
    whole = {"format": FORMAT, "spent": lines, "digest": _digest(lines)}
    return (json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def _parsed(data: bytes) -> tuple[Spent, ...]:
    whole = json.loads(data)
    if not isinstance(whole, dict) or not isinstance(whole["format"], int):
        raise TypeError("it is no ledger")
    if whole["format"] > FORMAT:
        raise VersionError(
            f"a privacy ledger of format {whole['format']}; this version reads up to {FORMAT}",
            hint="pip install --upgrade consilience",
        )
    if whole["digest"] != _digest(whole["spent"]):
        raise ValueError("its lines are not those that were written")
    return tuple(Spent(**line) for line in whole["spent"])


def _digest(lines: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()
