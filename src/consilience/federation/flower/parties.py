"""`Parties` over Flower: who is there, requests out, replies as they come.

Which party a node is comes from the keys that the coordinator pinned; where there are none, in a
demonstration or a simulation, each node is asked once. Every reply names its party as well, and one
of another party than was asked is no reply.

A request stays open until it is answered or given up. If the relay or the SuperLink dies meanwhile,
the engine starts them again and open requests are sent again; a party answers the same request with
the same answer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition, Event, Thread
from time import monotonic
from typing import Protocol

from consilience.errors import ConsilienceError, RemoteError
from consilience.federation.contracts import Reply, Wait
from consilience.federation.flower.app.relay.frames import Head
from consilience.federation.flower.desk import Desk, Line

_TEND = 0.5  # seconds between looks at the engine
_WHO = 120.0  # seconds that a node has to say which party it is
_RELAY = 120.0  # seconds that the first relay may take to come
_FAREWELL = 15.0


class Engine(Protocol):
    """What runs the relay."""

    def known(self) -> Mapping[int, str]:
        """Parties by the numbers of their nodes; empty where nodes are asked."""
        ...

    def tend(self, *, connected: bool) -> None:
        """Look after it: start what is not running, again where it died.

        Args:
            connected: Whether a relay is at the desk.

        Raises:
            ConsilienceError: It does not run and will not.
        """
        ...

    def close(self) -> None:
        """End all that it started."""
        ...


@dataclass(slots=True)
class _Ticket:
    """One request that is open."""

    number: int
    kind: str
    body: bytes
    ends: float
    said: SimpleQueue[Reply]
    party: str = ""
    node: int | None = None
    sent: bool = False
    begun: float = field(default_factory=monotonic)

    def reply(self, body: bytes | None, error: str = "") -> Reply:
        return Reply(self.party, body, error, monotonic() - self.begun)


class FlowerParties:
    """The coordinator's way to its parties through Flower.

    Args:
        engine: Given the socket where relays come to, starts what runs them.
    """

    def __init__(self, engine: Callable[[Path], Engine]) -> None:
        self._state = Condition()
        self._line: Line | None = None
        self._nodes: list[int] = []
        self._names: Mapping[int, str] = {}
        self._tickets: dict[int, _Ticket] = {}
        self._count = 0
        self._failed: ConsilienceError | None = None
        self._over = Event()
        self._desk = Desk(self._came, self._heard, self._went)
        try:
            self._engine = engine(self._desk.address)
        except BaseException:
            self._desk.close()
            raise
        self._keeper = Thread(target=self._keep, name="keeper of the engine", daemon=True)
        self._keeper.start()

    def present(self) -> Sequence[str]:
        """Names of the parties that can be asked now.

        Raises:
            ConsilienceError: The engine does not run.
        """
        with self._state:
            self._check()
            self._state.wait_for(lambda: self._line is not None or self._failed, _RELAY)
            self._check()
            return sorted({self._names[node] for node in self._nodes if node in self._names})

    def ask(self, requests: Mapping[str, bytes], wait: Wait) -> Iterable[Reply]:
        """Send each party its request, and give replies as they come, until `wait` is over.

        Raises:
            ConsilienceError: The engine does not run and will not.
        """
        said: SimpleQueue[Reply] = SimpleQueue()
        ends = monotonic() + wait.deadline
        with self._state:
            self._check()
            open_ = [
                self._ticket("answer", body, ends, said, party=party)
                for party, body in requests.items()
            ]
            self._post()
        return self._replies(open_, said, wait)

    def close(self) -> None:
        """Say goodbye to the relay, and end the engine."""
        if self._over.is_set():
            return
        with self._state:
            self._over.set()
            if self._line is not None:
                self._line.send({"kind": "stop"})
            self._state.wait_for(lambda: self._line is None, _FAREWELL)
        self._keeper.join()
        self._engine.close()
        self._desk.close()

    def _replies(
        self, open_: list[_Ticket], said: SimpleQueue[Reply], wait: Wait
    ) -> Iterator[Reply]:
        """Replies until all have answered, or `wait` is over; then those given up."""
        left = {ticket.party: ticket for ticket in open_}
        ends, answered = monotonic() + wait.deadline, 0
        try:
            while left and (reply := self._next(said, ends)) is not None:
                del left[reply.party]
                answered += reply.body is not None
                yield reply
                if reply.body is not None and answered == wait.quorum:
                    ends = min(ends, monotonic() + wait.grace)
            for ticket in left.values():
                yield ticket.reply(None, f"no reply within {monotonic() - ticket.begun:.0f} s")
        finally:
            self._forget(open_)

    def _next(self, said: SimpleQueue[Reply], ends: float) -> Reply | None:
        while True:
            try:
                return said.get(timeout=max(0.0, min(1.0, ends - monotonic())))
            except Empty:
                self._check()
                if monotonic() >= ends:
                    return None

    def _forget(self, tickets: Iterable[_Ticket]) -> None:
        with self._state:
            for ticket in tickets:
                if self._tickets.pop(ticket.number, None) and ticket.sent and self._line:
                    self._line.send({"kind": "forget", "ticket": ticket.number})

    def _ticket(
        self,
        kind: str,
        body: bytes,
        ends: float,
        said: SimpleQueue[Reply],
        *,
        party: str = "",
        node: int | None = None,
    ) -> _Ticket:
        self._count += 1
        ticket = _Ticket(self._count, kind, body, ends, said, party, node)
        self._tickets[ticket.number] = ticket
        return ticket

    def _post(self) -> None:
        """Hand the relay what can be sent; the rest waits for its party to come."""
        if self._line is None:
            return
        there = {self._names[node]: node for node in self._nodes if node in self._names}
        for ticket in self._tickets.values():
            node = there.get(ticket.party, ticket.node)
            if node is not None and not ticket.sent:
                ticket.sent, ticket.node = True, node
                self._line.send(self._order(ticket, node), ticket.body)

    @staticmethod
    def _order(ticket: _Ticket, node: int) -> Head:
        left = max(1.0, ticket.ends - monotonic())
        head = {"kind": "send", "ask": ticket.kind, "ticket": ticket.number}
        return head | {"node": node, "ttl": left}

    def _came(self, line: Line) -> None:
        with self._state:
            self._line, self._nodes = line, []
            for ticket in self._tickets.values():
                ticket.sent = False
            self._state.notify_all()

    def _went(self, line: Line) -> None:
        with self._state:
            if self._line is line:
                self._line, self._nodes = None, []
            self._state.notify_all()

    def _heard(self, head: Head, body: bytes) -> None:
        with self._state:
            if head["kind"] == "nodes":
                self._arrived(head["nodes"])
            else:
                self._replied(head, body)
            self._post()
            self._state.notify_all()

    def _arrived(self, nodes: list[int]) -> None:
        self._nodes = nodes
        known = self._engine.known()
        self._names = known or {n: self._names[n] for n in nodes if n in self._names}
        asked = {ticket.node for ticket in self._tickets.values() if ticket.kind == "who"}
        for node in nodes:
            if not known and node not in self._names and node not in asked:
                self._ticket("who", b"", monotonic() + _WHO, SimpleQueue(), node=node)

    def _replied(self, head: Head, body: bytes) -> None:
        ticket = self._tickets.pop(head["ticket"], None)
        if ticket is None:
            return
        party = head.get("party", "")
        if ticket.kind == "who":
            if party and party not in self._names.values():
                self._names = {**self._names, head["node"]: party}
        elif "error" in head:
            ticket.said.put(ticket.reply(None, head["error"]))
        elif party != ticket.party:
            ticket.said.put(ticket.reply(None, f"its node answers for {party!r}"))
        else:
            ticket.said.put(ticket.reply(body))

    def _keep(self) -> None:
        while not self._over.wait(_TEND):
            try:
                self._engine.tend(connected=self._line is not None)
            except ConsilienceError as error:
                with self._state:
                    self._failed = error
                    self._state.notify_all()
                return

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._over.is_set():
            raise RemoteError("the way to the parties is closed", hint="open it again")
