"""Requests to parties and what came back: who answered, who is lost and why, and what it cost.

A reply counts once, and only if it names the run, the round and the party that were asked. It
knows nothing of what is inside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consilience.errors import ConsilienceError
from consilience.federation.contracts import Parties, Reply, Wait
from consilience.federation.journal import PartyLine
from consilience.federation.messages import Message

MOST_TEXT = 4000
"""Characters of a reason or a traceback that are kept."""


@dataclass(slots=True)
class Tally:
    """What a round has cost so far, over all its attempts.

    Attributes:
        up: Bytes from each party.
        down: Bytes to each party.
        seconds: Until the last reply of each.
        lost: Why a party's reply does not count.
        traces: Where its own code failed.
        losses: Its own mean loss, where it may be read.
        epsilons: Privacy that it has spent.
        spent: Parties that said that their budget is.
        budgets: In their own words.
    """

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    epsilons: dict[str, float] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    budgets: dict[str, str] = field(default_factory=dict)

    def afresh(self) -> None:
        """Another attempt begins: nobody is lost in it yet."""
        self.lost.clear()
        self.traces.clear()

    def lose(self, reasons: Mapping[str, str]) -> None:
        """Name parties that do not count; a hostile one may give a reason of any length."""
        self.lost.update({name: reason[:MOST_TEXT] for name, reason in reasons.items()})

    def lines(self) -> dict[str, PartyLine]:
        """Each party's part of the journal."""
        return {
            name: PartyLine(
                bytes_up=self.up.get(name, 0),
                bytes_down=self.down[name],
                seconds=round(self.seconds.get(name, 0.0), 3),
                loss=self.losses.get(name),
                epsilon=self.epsilons.get(name),
                traceback=self.traces.get(name, ""),
            )
            for name in sorted(self.down)
        }


class Asking:
    """The coordinator's requests.

    Args:
        parties: The way to them.
        most: The largest reply that is read, in bytes.
    """

    def __init__(self, parties: Parties, *, most: int) -> None:
        self.parties, self.most = parties, most

    def ask(
        self, requests: Mapping[str, Message], wait: Wait, tally: Tally, *, kind: str
    ) -> dict[str, Message]:
        """Ask each party and wait.

        Args:
            requests: By party.
            wait: How long.
            tally: Told what it costs, and who is lost.
            kind: Of the replies that are wanted.

        Returns:
            The replies that are what was asked for, in the order of the parties' names.
        """
        bodies = {name: requests[name].pack() for name in sorted(requests)}
        for name, body in bodies.items():
            tally.down[name] = tally.down.get(name, 0) + len(body)
        found: dict[str, Message] = {}
        heard: set[str] = set()
        for reply in self.parties.ask(bodies, wait):
            if reply.party not in requests or reply.party in heard:
                continue  # of nobody that was asked, or the same once more
            heard.add(reply.party)
            message = self._read(reply, requests[reply.party], tally, kind)
            if message is not None:
                found[reply.party] = message
        for name in requests.keys() - heard:
            tally.lost[name] = "no reply"
        return dict(sorted(found.items()))

    def _read(self, reply: Reply, asked: Message, tally: Tally, kind: str) -> Message | None:
        name = reply.party
        tally.seconds[name] = tally.seconds.get(name, 0.0) + reply.seconds
        if reply.body is None:
            tally.lost[name] = reply.error or "no reply"
            return None
        tally.up[name] = tally.up.get(name, 0) + len(reply.body)
        try:
            message = Message.unpack(reply.body, most=self.most)
        except ConsilienceError as error:
            tally.lost[name] = error.message
            return None
        if message.kind == "fault":
            _note_fault(message, name, tally)
        elif reason := _other_than_asked(message, asked, kind):
            tally.lost[name] = reason
        else:
            return message
        return None


def _note_fault(message: Message, name: str, tally: Tally) -> None:
    tally.lost[name] = str(message.content.get("message", "it failed"))[:MOST_TEXT]
    tally.traces[name] = str(message.content.get("traceback", ""))[:MOST_TEXT]
    if message.content.get("spent") is True:
        tally.spent.add(name)


def _other_than_asked(message: Message, asked: Message, kind: str) -> str:
    """Why a reply is none to what was asked; empty where it is one."""
    found = message.kind, message.run, message.round, message.party
    wanted = kind, asked.run, asked.round, asked.party
    if found == wanted:
        return ""
    said = [f"{new!r}, not {old!r}" for new, old in zip(found, wanted, strict=True) if new != old]
    return f"a reply to something else (a replay?): {'; '.join(said)}"
