"""The rounds of a federation, from the coordinator's side.

    admit ─▶ ask ─▶ gather ─▶ step ─▶ commit ─┐
      ▲                                       │
      └───────────── next round ◀─────────────┘

A round is committed whole or not at all, and nothing but the last committed one is ever gone on
from. Parties that are late, gone, broken or hostile are named with the reason, and the round ends
with the others; with too few of them it is begun again, and those that have trained answer what
they answered before. How bytes reach a party, what is in them and how updates are added up, it does
not know.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from torch import Tensor

from consilience.errors import ConsilienceError, RemoteError, UsageError
from consilience.federation.admitting import Admission, House
from consilience.federation.answered import beginning
from consilience.federation.asking import Asking, Tally
from consilience.federation.committed import (
    Committed,
    commit,
    last_committed,
    name_of_run,
    next_attempt,
    require_same_settings,
)
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import (
    Ask,
    Gathered,
    Gathering,
    Orders,
    Parties,
    Wait,
    Weights,
)
from consilience.federation.durable import read_table, write_table
from consilience.federation.journal import Line
from consilience.federation.messages import Message
from consilience.federation.parcels import Parcel
from consilience.federation.stepping import stepped

REPEATS = 3
"""How often a round is begun again before the run stops."""

PARTY_DELTA = 1e-5
"""Delta of noise for whole parties, where none is set."""

_PAUSE = 0.25  # seconds between two looks at who is here
_MOST_COPIES = 3  # of the weights in float32: a reply has numbers, and rests with their places
_ENVELOPES = 16 * 1024 * 1024  # bytes around the weights of a reply: names, metrics, shares of keys


class SharedModel(Protocol):
    """The coordinator's own copy of what is trained."""

    def describe(self) -> tuple[str, str]:
        """Fingerprints of what does not travel, and of the tokenizers."""
        ...

    def shared(self) -> dict[str, Tensor]:
        """The weights that travel, as the run begins with them."""
        ...

    def moving(self, number: int) -> tuple[str, ...]:
        """Names of those that are trained in a round."""
        ...

    def keep(self, weights: Weights) -> str:
        """Save the model of these weights; returns where."""
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how a run goes.

    Attributes:
        say: What is worth knowing, in words.
        line: Every round when it is committed.
    """

    say: Callable[[str], None] = lambda _: None
    line: Callable[[Line], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Federated:
    """What came of a federation.

    Attributes:
        output: The folder of the run.
        run: Its name.
        rounds: The journal.
        model: Where the coordinator's model is.
        resumed_from: The round that this call went on from; None for a fresh start.
        reason: Why it ended before its last round; empty where it did not.
        without_model: Parties that did not get the final weights, with the reason.
    """

    output: Path
    run: str
    rounds: tuple[Line, ...]
    model: str
    resumed_from: int | None
    reason: str
    without_model: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "output": str(self.output),
            "run": self.run,
            "rounds": [line.to_dict() for line in self.rounds],
            "model": self.model,
            "resumed_from": self.resumed_from,
            "reason": self.reason,
            "without_model": dict(self.without_model),
        }


class Coordinator:
    """Runs a federation.

    Args:
        config: Its settings.
        recipe: What every party trains by, fit for JSON.
        parties: The way to them.
        model: The coordinator's own.
        gathering: How updates become one.
        watch: Who is told.
    """

    def __init__(
        self,
        config: FederationConfig,
        recipe: Mapping[str, Any],
        *,
        parties: Parties,
        model: SharedModel,
        gathering: Gathering,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.recipe, self.parties = config, recipe, parties
        self.model, self.gathering, self.watch = model, gathering, watch or Watch()

    def run(self) -> Federated:
        """Run to the end, or go on with a run that was interrupted.

        Raises:
            UsageError: Other settings than those of the run in this folder, a budget that the first
                round would exceed, a disk that is full.
            RemoteError: Too few parties came, or were left in a round after all repeats; what was
                committed stays.
        """
        config = self.config
        require_same_settings(config, self.recipe)
        run, before = name_of_run(config.output), last_committed(config.output)
        done = read_table(config.output / "done.json")
        resumed = None if before is None else before.round
        committed = before or Committed(0, self.model.shared())
        if done is not None and (done["reason"] or committed.round >= config.rounds):
            return _federated(config.output, run, committed, done, resumed)
        (config.output / "done.json").unlink(missing_ok=True)
        under_way = _UnderWay(self, run, committed)
        committed, reason = under_way.to_the_end(committed)
        done = self._finish(under_way, committed, reason)
        return _federated(config.output, run, committed, done, resumed)

    def _finish(self, under_way: "_UnderWay", committed: Committed, reason: str) -> dict[str, Any]:
        model = self.model.keep(committed.weights)
        without = under_way.farewell(committed)
        done = {"model": model, "reason": reason, "without_model": without}
        write_table(self.config.output / "done.json", done)
        return done


class _TooFewError(Exception):
    """A round has too few updates; it may be begun again."""


class _UnopenedError(_TooFewError):
    """Updates were there, and could not be added up."""


class _AllSpentError(Exception):
    """No party has a budget left; with what each says."""


class _UnderWay:
    """A run that goes on, with the parties that joined it."""

    def __init__(self, coordinator: Coordinator, run: str, committed: Committed) -> None:
        self.config, self.model = coordinator.config, coordinator.model
        self.gathering, self.watch = coordinator.gathering, coordinator.watch
        self.run, self.spent = run, set(committed.spent)
        fingerprint, tokenizer = self.model.describe()
        shapes = {name: tuple(value.shape) for name, value in committed.weights.items()}
        house = House(run, self.config, coordinator.recipe, fingerprint, tokenizer, shapes)
        size = sum(4 * value.numel() for value in committed.weights.values())
        self.asking = Asking(coordinator.parties, most=_MOST_COPIES * size + _ENVELOPES)
        self.admission = Admission(house, self.asking)

    def to_the_end(self, committed: Committed) -> tuple[Committed, str]:
        """Every round that is left; with the reason where the last ones could not be done."""
        tally = Tally()
        if committed.round < self.config.rounds:
            self._wait_for_expected(tally)
        while committed.round < self.config.rounds:
            try:
                committed = self._round(committed, tally)
            except _AllSpentError as error:
                return committed, _spent_reason(committed, error)
            self.watch.line(committed.lines[-1])
            tally = Tally()
        return committed, ""

    def farewell(self, committed: Committed) -> dict[str, str]:
        """Give every party that is here the final weights; who did not take them, and why."""
        tally = Tally()
        self.admission.look(tally, first=False)
        requests = {
            name: Message("end", self.run, committed.round, name, {}, committed.weights)
            for name in self.admission.joined
        }
        wait = Wait(len(requests), self.config.grace, self.config.deadline)
        kept = self.asking.ask(requests, wait, tally, kind="kept") if requests else {}
        gone = set(committed.known) - kept.keys()
        return {name: tally.lost.get(name, "it is not here") for name in sorted(gone)}

    def _wait_for_expected(self, tally: Tally) -> None:
        """Let parties join until those that are expected are here.

        Raises:
            RemoteError: They did not come in time, or do not fit.
        """
        admission, expected = self.admission, self.config.expected or 1
        ends = monotonic() + self.config.deadline
        admission.look(tally, first=True)
        while len(admission.here) < expected and monotonic() < ends:
            sleep(_PAUSE)
            admission.look(tally, first=True)
        for name, reason in sorted(admission.refused.items()):
            self.watch.say(f"{name} takes no part: {reason}")
        least = self.config.quorum or _half(max(expected, len(admission.here)))
        if len(admission.joined) < least:
            raise RemoteError(
                f"{len(admission.joined)} parties take part, at least {least} must: "
                + (_listed(admission.refused) or "nobody else came"),
                hint="mend or start the missing parties, and start the same command again",
            )

    def _round(self, committed: Committed, tally: Tally) -> Committed:
        """One round, begun again where too few are left.

        Raises:
            RemoteError: Too few were left in every attempt.
        """
        begun, round_, last, unopened = monotonic(), committed.round + 1, "", False
        for attempt in range(1, 2 + REPEATS):
            try:
                counting, gathered = self._attempt(committed, tally)
            except _TooFewError as error:
                last, unopened = str(error), isinstance(error, _UnopenedError)
                self.watch.say(f"round {round_}: {last}")
                continue
            line = _line(
                committed,
                gathered.metrics,
                tally,
                config=self.config,
                attempts=attempt,
                since=begun,
            )
            return self._commit(committed, counting, gathered, line)
        if unopened and self.config.secure.sums:
            return self._give_up(committed, tally, begun)
        raise RemoteError(
            f"round {round_} failed {1 + REPEATS} times; the last time {last}",
            hint="start the same command again when the parties are back; it goes on after round "
            f"{committed.round}",
        )

    def _give_up(self, committed: Committed, tally: Tally, begun: float) -> Committed:
        """Let a round count without an update.

        In secret sums, parties tell for one sum a round and for no other afterwards; where they
        have told and too few were heard, no repeat of this round can be opened.
        """
        line = _line(committed, {}, tally, config=self.config, attempts=1 + REPEATS, since=begun)
        self.watch.say(f"round {line.round} is given up; the next begins from the same weights")
        after = replace(committed, round=line.round, lines=(*committed.lines, line))
        commit(self.config.output, after)
        return after

    def _attempt(self, committed: Committed, tally: Tally) -> tuple[tuple[str, ...], Gathered]:
        """Ask and add up once; with the parties whose updates count.

        Raises:
            _TooFewError: Nothing has changed.
            _AllSpentError: There is nobody to ask any more.
        """
        tally.afresh()
        orders = self._orders(committed, self._askable(committed, tally))
        sealed = self._sealed(orders, committed, tally)
        least = self.config.quorum or _half(len(orders.parties))
        _require_enough(sealed.keys(), least, tally)
        try:
            gathered = self.gathering.gather(
                orders, sealed, committed.weights, self._further(orders, tally)
            )
        except ConsilienceError as error:
            raise _UnopenedError(error.message) from error
        tally.lose(gathered.refused)
        counting = tuple(name for name in sealed if name not in gathered.refused)
        for name in counting:  # silent later on, but in the sum
            tally.lost.pop(name, None)
        _require_enough(counting, least, tally)
        _require_sound(gathered, orders, committed.weights)
        return counting, gathered

    def _askable(self, committed: Committed, tally: Tally) -> tuple[str, ...]:
        """Who is here and has a budget left; waited for until there are enough."""
        least, ends = self.config.quorum or 1, monotonic() + self.config.deadline
        while True:
            self.admission.look(tally, first=False)
            names = self.admission.joined - self.spent
            known = self.admission.joined | set(committed.known)
            if known and known <= self.spent:
                raise _AllSpentError(_listed(tally.budgets))
            if len(names) >= least or monotonic() >= ends:
                break
            sleep(_PAUSE)
        for name in known - names:
            spent = tally.budgets.get(name, "its budget of privacy is spent")
            tally.lost.setdefault(name, spent if name in self.spent else "it is not here")
        if not names:
            raise _TooFewError("nobody is here")
        return tuple(sorted(names))

    def _orders(self, committed: Committed, names: tuple[str, ...]) -> Orders:
        round_ = committed.round + 1
        orders = Orders(
            run=self.run,
            round=round_,
            moving=self.model.moving(round_),
            parties=names,
            seed=self.config.seed,
            attempt=next_attempt(self.config.output, round_),
        )
        return replace(orders, begins=beginning(orders, committed.weights))

    def _sealed(self, orders: Orders, committed: Committed, tally: Tally) -> dict[str, Parcel]:
        requests = {
            name: Message(
                "train",
                self.run,
                orders.round,
                name,
                {"counted": committed.counted.get(name, 0)},
                committed.weights,
                orders,
            )
            for name in orders.parties
        }
        least = self.config.quorum or len(requests)
        wait = Wait(min(least, len(requests)), self.config.grace, self.config.deadline)
        replies = self.asking.ask(requests, wait, tally, kind="update")
        self.spent |= tally.spent
        tally.budgets.update({name: tally.lost[name] for name in tally.spent & tally.lost.keys()})
        for name, reply in replies.items():
            _note_told(name, reply.content, tally)
        return {name: reply.parcel for name, reply in replies.items()}

    def _further(self, orders: Orders, tally: Tally) -> Ask:
        def ask(requests: Mapping[str, Parcel]) -> Mapping[str, Parcel]:
            asked = {
                name: Message(
                    "further", self.run, orders.round, name, said.about, said.tensors, orders
                )
                for name, said in requests.items()
            }
            wait = Wait(len(asked), self.config.grace, self.config.deadline)
            replies = self.asking.ask(asked, wait, tally, kind="further")
            return {name: reply.parcel for name, reply in replies.items()}

        return ask

    def _commit(
        self, committed: Committed, counting: tuple[str, ...], gathered: Gathered, line: Line
    ) -> Committed:
        known = tuple(sorted(self.admission.joined | set(committed.known)))
        weights, moments = stepped(
            committed.weights,
            gathered.delta,
            committed.moments,
            settings=self.config.mean,
            share=len(counting) / len(known),
        )
        after = Committed(
            round=line.round,
            weights=weights,
            moments=moments,
            counted={**committed.counted, **dict.fromkeys(counting, line.round)},
            known=known,
            spent=tuple(sorted(self.spent)),
            lines=(*committed.lines, line),
        )
        commit(self.config.output, after)
        return after


def _line(
    committed: Committed,
    metrics: Mapping[str, float],
    tally: Tally,
    *,
    config: FederationConfig,
    attempts: int,
    since: float,
) -> Line:
    """The round after what is committed, as the journal has it."""
    before = committed.lines[-1].epsilon if committed.lines else None
    spent = [*tally.epsilons.values(), *([] if before is None else [before])]
    if config.secure.sums and config.privacy.epsilon is not None:
        spent = [config.privacy.epsilon]  # which no party exceeds; what each spent stays with it
    return Line(
        round=committed.round + 1,
        metrics=dict(metrics),
        bytes_up=sum(tally.up.values()),
        bytes_down=sum(tally.down.values()),
        epsilon=max(spent, default=None),
        party_epsilon=_party_epsilon(config, committed.round + 1),
        lost=dict(sorted(tally.lost.items())),
        seconds=round(monotonic() - since, 3),
        attempts=attempts,
        parties=tally.lines(),
    )


def _party_epsilon(config: FederationConfig, rounds: int) -> float | None:
    """What so many rounds cost a whole party; none of them is told for two sums."""
    if not config.privacy.party_noise:
        return None
    from consilience.federation.secure.noise import party_epsilon

    delta = config.privacy.delta or PARTY_DELTA
    return party_epsilon(config.privacy.party_noise, rounds=rounds, delta=delta)


def _federated(
    output: Path, run: str, committed: Committed, done: Mapping[str, Any], resumed: int | None
) -> Federated:
    return Federated(
        output=output,
        run=run,
        rounds=committed.lines,
        model=done["model"],
        resumed_from=resumed,
        reason=done["reason"],
        without_model=done["without_model"],
    )


def _spent_reason(committed: Committed, error: _AllSpentError) -> str:
    """Why a run ends early.

    Raises:
        UsageError: It has not even begun.
    """
    if committed.round == 0:
        raise UsageError(
            f"the first round would exceed every budget of privacy: {error}",
            hint="raise privacy.epsilon, or lower steps or rounds",
        ) from error
    return f"the privacy budgets of all parties are spent after round {committed.round}"


def _require_enough(names: Collection[str], least: int, tally: Tally) -> None:
    if len(names) < least:
        raise _TooFewError(
            f"{len(names)} updates count, at least {least} must: {_listed(tally.lost)}"
        )


def _require_sound(gathered: Gathered, orders: Orders, weights: Weights) -> None:
    """Whatever was gathered must fit the weights, or nothing is done with it."""
    if set(gathered.delta) != set(orders.moving):
        raise _TooFewError("the sum is not of the weights that were asked for")
    for name, change in gathered.delta.items():
        if change.shape != weights[name].shape or not bool(change.isfinite().all()):
            raise _TooFewError(f"the sum for {name} has another shape or a number that is none")
    if not all(isfinite(value) for value in gathered.metrics.values()):
        raise _TooFewError("the metrics hold a number that is none")


def _note_told(name: str, content: Mapping[str, Any], tally: Tally) -> None:
    """What an update tells in the clear, for the journal."""
    metrics = content.get("metrics")
    loss = metrics.get("loss") if isinstance(metrics, dict) else None
    for found, place in ((loss, tally.losses), (content.get("epsilon"), tally.epsilons)):
        if isinstance(found, int | float) and not isinstance(found, bool) and isfinite(found):
            place[name] = float(found)


def _half(parties: int) -> int:
    """So many that no more than a minority is lost, and at least one."""
    return max(1, (parties + 1) // 2)


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons))
