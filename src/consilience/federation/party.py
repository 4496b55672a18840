"""A party: what it is asked, what it answers, and what it refuses.

    join ──▶ (train ──▶ further…)…  ──▶ end
    look ──▶ propose ──▶ weigh ──▶ show

The party is resident: its trainee is made when it joins and stays. Before an answer is given it is
written down, so that the same request has the same answer, also after a restart; a round is trained
once, however often it is asked for; a round that is over, and any round of another run, is refused.
A party never raises. What it tells of an error is `faults`'s to say. What is learned and in which
form it leaves, it does not know: that is its `Trainee` and its `Sealing`. The second line is a
question, which has nothing to do with any run; it is handed to whom `Responding` describes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from time import time
from typing import Any, Protocol, runtime_checkable

from consilience.errors import BusyError, UsageError, VersionError
from consilience.federation.answered import Answered, beginning
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import (
    PROTOCOL,
    Description,
    Orders,
    Sealing,
    SpentError,
    Trainee,
    Update,
    Weights,
)
from consilience.federation.durable import (
    PRIVATE_FILE,
    private_folder,
    read_table,
    write_table,
)
from consilience.federation.exchange import STEPS
from consilience.federation.faults import message_of, trace_of, whole_of
from consilience.federation.messages import Message
from consilience.federation.payload import Counting
from consilience.federation.terms import Limits, differences, parse_terms, run_folder
from consilience.version import __version__

Recipe = Mapping[str, Any]
MakeTrainee = Callable[[Recipe, FederationConfig], Trainee]
MakeSealing = Callable[[FederationConfig, Path], Sealing]

_LONGEST_LOG = 2**20  # bytes; one older log is kept
_KINDS = ("join", "train", "further", "end")


@runtime_checkable
class Closing(Protocol):
    """A trainee that holds something open."""

    def close(self) -> None:
        """Let go of it."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """A sealing whose sums are secret."""

    @property
    def key(self) -> str:
        """The public key that it seals by."""
        ...


class Responding(Protocol):
    """Answers questions out of the party's own documents, as far as the party lets it."""

    def answer(self, asked: Message, request: bytes) -> Message:
        """Answer one request of `exchange.STEPS`; the same bytes have the same answer."""
        ...

    def close(self) -> None:
        """Let go of the model. A closed one can be asked again."""
        ...


@dataclass(frozen=True, slots=True)
class _Member:
    """A party in one run."""

    run: str
    terms: Mapping[str, Any]
    config: FederationConfig
    trainee: Trainee
    sealing: Sealing
    answered: Answered


class ResidentParty:
    """A party whose model stays in memory between rounds.

    Args:
        name: In the federation.
        make_trainee: Makes what learns, from the recipe and the terms of a federation.
        make_sealing: Makes what seals, from the terms and a folder for this run.
        state: The party's own folder.
        limits: What it will not do.
        responding: What answers questions; None answers none.
    """

    def __init__(
        self,
        name: str,
        make_trainee: MakeTrainee,
        make_sealing: MakeSealing,
        *,
        state: Path,
        limits: Limits,
        responding: Responding | None = None,
    ) -> None:
        self._name, self._state, self._limits = name, state, limits
        self._responding = responding
        self._make_trainee, self._make_sealing = make_trainee, make_sealing
        self._member: _Member | None = None
        self._busy = Lock()
        private_folder(state)

    @property
    def name(self) -> str:
        """Its name in the federation."""
        return self._name

    def answer(self, request: bytes) -> bytes:
        """Answer one request. The same request again has the same answer and no other effect."""
        with self._busy:
            asked: Message | None = None
            try:
                asked = Message.unpack(request, most=self._limits.most_bytes)
                return self._answer(asked, request)
            except Exception as error:  # noqa: BLE001 - the edge: a party never raises
                self._log(error, asked)
                return self._fault(error, asked)

    def close(self) -> None:
        """Let go of the model. A closed party makes it anew when it is asked again."""
        with self._busy:
            self._leave()
            if self._responding is not None:
                self._responding.close()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None and isinstance(member.trainee, Closing):
            member.trainee.close()

    def _answer(self, asked: Message, request: bytes) -> bytes:
        self._require_mine(asked)
        if asked.kind in STEPS and self._responding is not None:
            return self._responding.answer(asked, request).pack()
        if asked.kind == "join":
            return self._join(asked).pack()
        member = self._member_of(asked.run)
        self._require_new(asked, member)
        known = member.answered.reply(request)
        if known is not None:
            return known
        steps = {"train": self._train, "further": self._further, "end": self._end}
        reply = steps[asked.kind](asked, member)
        return member.answered.answer(request, reply.pack())

    def _require_mine(self, asked: Message) -> None:
        known = _KINDS if self._responding is None else (*_KINDS, *STEPS)
        if asked.kind not in known:
            raise VersionError(
                f"{self.name} is asked to {asked.kind!r}, and knows {', '.join(known)}",
                hint="run the same version everywhere",
            )
        if asked.party != self.name:
            raise UsageError(
                f"a request to {asked.party!r} reached {self.name!r}",
                hint="give every party the name that its keys were made for",
            )

    def _require_new(self, asked: Message, member: _Member) -> None:
        newest = member.answered.round
        # A run may end while its newest round came to nothing.
        if asked.round < newest - (asked.kind == "end"):
            raise UsageError(
                f"{self.name} is asked for round {asked.round} of run {member.run}, which is over: "
                f"it is in round {newest}",
                hint="a replay, or a coordinator that was put back to an older copy",
            )

    def _join(self, asked: Message) -> Message:
        content = asked.content
        _require_protocol(content.get("protocol"), self.name)
        self._enter(asked.run, {"terms": content["terms"], "recipe": content["recipe"]})
        return self._reply(asked, "description", {"description": self._described().to_dict()})

    def _enter(self, run: str, terms: Mapping[str, Any]) -> _Member:
        """Become a member of a run, or stay one."""
        answered = Answered(run_folder(self._state, run))
        before = answered.joined()
        if before is not None:
            _require_same(before, terms, run)
        if self._member is None or self._member.run != run or self._member.terms != terms:
            self._leave()
            self._member = self._made(run, terms, answered)
        if before != terms:
            answered.join(terms)
        write_table(self._state / "run.json", {"run": run})
        return self._member

    def _made(self, run: str, terms: Mapping[str, Any], answered: Answered) -> _Member:
        config = parse_terms(terms["terms"])
        self._limits.require(config, self.name)
        trainee = self._make_trainee(terms["recipe"], config)
        sealing = self._make_sealing(config, private_folder(answered.folder))
        return _Member(run, terms, config, trainee, sealing, answered)

    def _member_of(self, run: str) -> _Member:
        """The member of a run that was joined, in this process or before it."""
        if self._member is not None and self._member.run == run:
            return self._member
        mine = (read_table(self._state / "run.json") or {}).get("run")
        terms = Answered(run_folder(self._state, run)).joined()
        if terms is None or mine != run:
            other = "no run" if mine is None else f"run {mine}"
            raise BusyError(
                f"{self.name} takes part in {other}, and is asked for run {run}",
                hint="a coordinator asks its parties to join first",
            )
        return self._enter(run, terms)

    def _described(self) -> Description:
        assert self._member is not None
        trainee, sealing = self._member.trainee, self._member.sealing
        model, tokenizer = trainee.describe()
        return Description(
            party=self.name,
            version=__version__,
            protocol=PROTOCOL,
            model=model,
            tokenizer=tokenizer,
            shared={name: tuple(value.shape) for name, value in trainee.shared().items()},
            clock=time(),
            key=sealing.key if isinstance(sealing, Keyed) else "",
        )

    def _train(self, asked: Message, member: _Member) -> Message:
        orders = _orders(asked)
        self._limits.require_company(len(set(orders.parties)), member.config, self.name)
        self._begin(orders, asked, member)
        update = member.answered.update() or self._learned(orders, asked.tensors, member)
        sealed = member.sealing.seal(update, replace(orders, begins=member.answered.began))
        return self._reply(asked, "update", sealed.about, sealed.tensors)

    def _begin(self, orders: Orders, asked: Message, member: _Member) -> None:
        began, answered = beginning(orders, asked.tensors), member.answered
        if orders.round == answered.round:
            if began != answered.began:
                raise UsageError(
                    f"round {orders.round} of run {member.run} is asked for again from other "
                    "weights; a round is trained once",
                    hint="go on from the coordinator's last committed round",
                )
            return
        counted = asked.content.get("counted")
        if isinstance(counted, int) and isinstance(member.sealing, Counting):
            member.sealing.counted(member.run, counted)
        answered.begin(orders.round, began)

    def _learned(self, orders: Orders, weights: Weights, member: _Member) -> Update:
        update = member.trainee.fit(orders, weights)
        member.answered.learned(update)
        return update

    def _further(self, asked: Message, member: _Member) -> Message:
        if asked.round != member.answered.round:
            raise UsageError(
                f"{self.name} has not trained round {asked.round} of run {member.run} yet",
                hint="a round begins with its weights",
            )
        orders = replace(_orders(asked), begins=member.answered.began)
        told = member.sealing.further(asked.parcel, orders)
        return self._reply(asked, "further", told.about, told.tensors)

    def _end(self, asked: Message, member: _Member) -> Message:
        if asked.round > member.answered.round:
            member.answered.begin(asked.round, "")
        member.trainee.keep(asked.tensors)
        return self._reply(asked, "kept", {})

    def _reply(
        self, asked: Message, kind: str, content: Mapping[str, Any], tensors: Weights | None = None
    ) -> Message:
        return Message(kind, asked.run, asked.round, self.name, content, tensors or {})

    def _fault(self, error: Exception, asked: Message | None) -> bytes:
        content = {
            "message": message_of(error),
            "traceback": trace_of(error),
            "spent": isinstance(error, SpentError),
        }
        run, round_ = ("unknown", 0) if asked is None else (asked.run, asked.round)
        return Message("fault", run, round_, self.name, content).pack()

    def _log(self, error: Exception, asked: Message | None) -> None:
        """Keep the whole of an error where only this party reads."""
        path = self._state / "errors.log"
        what = "?" if asked is None else f"{asked.kind}, round {asked.round} of run {asked.run}"
        try:
            if path.is_file() and path.stat().st_size > _LONGEST_LOG:
                path.replace(path.with_name("errors.old.log"))
            path.touch(PRIVATE_FILE)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"--- {time():.0f} {what}\n{whole_of(error)}")
        except OSError:  # a full disk must not keep the party from saying so
            return


def _orders(asked: Message) -> Orders:
    orders = asked.orders
    if orders is None or (orders.run, orders.round) != (asked.run, asked.round):
        raise UsageError(
            f"a request of round {asked.round} without orders of that round",
            hint="run the same version everywhere",
        )
    return orders


def _require_protocol(found: Any, name: str) -> None:
    if found != PROTOCOL:
        raise VersionError(
            f"the coordinator speaks protocol {found!r}, {name} speaks {PROTOCOL}",
            hint="run the same version everywhere",
        )


def _require_same(before: Mapping[str, Any], terms: Mapping[str, Any], run: str) -> None:
    other = differences(before["terms"], terms["terms"])
    if before["recipe"] != terms["recipe"]:
        other.append("recipe")
    if other:
        raise UsageError(
            f"run {run} was joined with other terms: {', '.join(other)}",
            hint="begin a new run in another output folder",
        )
