"""The coordinator's side of Flower: the SuperLink and its helper, started, looked after, ended.

    state/flower/       only the coordinator's user may look
      link.db           Flower's state: nodes, runs, messages in flight, as they were sealed
      link.log          what the SuperLink said
      helper.log        what its helper, and the relay, said
      home/             Flower's own folder

Refuses to start where anything is unhardened, looks at itself as a stranger would once it runs, and
starts again what dies, a few times.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from consilience.errors import RemoteError, UsageError
from consilience.federation import keys, places
from consilience.federation.durable import private_folder
from consilience.federation.flower import checks, children
from consilience.federation.flower.bundle import bundle
from consilience.federation.flower.children import Child
from consilience.federation.flower.control import Control, SilentError, simulation

_STARTS = 5  # in a row, without a relay that comes
_COMING = 90.0  # seconds until a relay has come
_DESK = "CONSILIENCE_DESK"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a SuperLink runs, and for whom.

    Attributes:
        state: Folder of its own.
        listen: Where parties reach it; None for a simulation.
        keys: Folder of the coordinator's keys; None for a demonstration.
        demo: Whether it may run without.
        agents: With a simulation: folder of the agents' sockets, by number.
        simulated: How many there are.
        cores: Cores that a simulation takes.
    """

    state: Path
    listen: checks.Address | None
    keys: Path | None = None
    demo: bool = False
    agents: Path | None = None
    simulated: int = 0
    cores: int = 1


class Link:
    """A SuperLink that is looked after; the `Engine` of `FlowerParties`.

    Args:
        place: Where and for whom.
        desk: The socket that relays come to.

    Raises:
        ConsilienceError: It cannot start, or is not guarded; see `checks`.
    """

    def __init__(self, place: Place, desk: Path) -> None:
        _check(place)
        self._place = place
        self._folder = private_folder(place.state / "flower")
        self._environment = children.environment(self._folder / "home", **{_DESK: str(desk)})
        self._secret = secrets.token_hex(32)
        self._secret_file = places.private_file(
            self._folder / "helper.secret", self._secret.encode("ascii")
        )
        self._bundle = bundle()
        self._known: dict[int, str] = {}
        self._children: list[Child] = []
        self._control: Control | None = None
        self._run: int | None = None
        self._begun, self._tries, self._end, self._broken = 0.0, 0, "", False
        try:
            self._start()
            self._look_at_itself()
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> tuple[int, ...]:
        """Numbers of what it started: the SuperLink, its helper."""
        return tuple(child.process.pid for child in self._children)

    def known(self) -> Mapping[int, str]:
        """Parties by the numbers of their nodes, from the keys; empty without keys."""
        return self._known

    def tend(self, *, connected: bool) -> None:
        """Start what is not running, and a relay where none has come.

        Raises:
            RemoteError: It was started too often.
        """
        try:
            self._tend(connected=connected)
        except SilentError as error:  # it died just now, or stopped answering
            self._broken, self._end = True, error.message

    def close(self) -> None:
        """End the processes."""
        if self._control is not None:
            self._control.close()
        for child in reversed(self._children):
            child.stop()
        self._secret_file.unlink(missing_ok=True)

    def _start(self) -> None:
        """The SuperLink, then its helper, which needs to know the port."""
        link = Child.start(
            children.module("linking"), self._environment, self._folder / "link.log", self._told()
        )
        self._children = [link]
        ready = link.answer()
        if ready is None:
            raise SilentError(
                f"the SuperLink ended at its start: {_last(link.said())}",
                hint=f"see {link.log}",
            )
        self._children.append(self._helper(ready["port"]))
        self._control = Control(ready["port"], self._secret)
        self._control.stop_all()
        self._register(self._control)
        self._run = None

    def _told(self) -> dict[str, object]:
        place, pinned = self._place, self._pinned()
        public = None if place.listen is None else self._public(place.listen)
        return {
            "public": public,
            "keys": None if place.keys is None else [pem.decode() for pem in pinned],
            "secret": self._secret,
            "database": str(self._folder / "link.db"),
        }

    def _public(self, listen: checks.Address) -> dict[str, object]:
        folder = self._place.keys
        return {
            "host": listen.host,
            "port": listen.port,
            "certificate": None if folder is None else str(folder / keys.SERVER),
            "key": None if folder is None else str(folder / keys.SERVER_KEY),
        }

    def _helper(self, port: int) -> Child:
        command = [children.program("flower-superexec"), "--insecure"]
        command += ["--runtime-api-address", f"127.0.0.1:{port}", "--parent-pid", str(os.getpid())]
        command += ["--superexec-auth-secret-file", str(self._secret_file)]
        return Child.start(command, self._environment, self._folder / "helper.log")

    def _pinned(self) -> dict[bytes, str]:
        """Names of the parties that may connect, by their public keys in PEM."""
        if self._place.keys is None:
            return {}
        return {keys.node_pem(key): name for name, key in keys.nodes(self._place.keys).items()}

    def _register(self, control: Control) -> None:
        pinned, there = self._pinned(), control.nodes()
        for pem, name in pinned.items():
            if pem not in there:
                control.register(pem, name)
        numbers = control.nodes() if pinned else {}
        self._known = {numbers[pem]: name for pem, name in pinned.items()}

    def _look_at_itself(self) -> None:
        listen = self._place.listen
        if listen is not None:
            host = "127.0.0.1" if listen.host in ("0.0.0.0", "localhost") else listen.host
            own = checks.Address("::1" if host == "::" else host, listen.port)
            checks.guarded(own, self._place.keys, any_name=True)

    def _tend(self, *, connected: bool) -> None:
        if self._broken or not all(child.alive for child in self._children):
            self._again()
        elif connected:
            self._tries = 0
        elif not self._waiting():
            self._begin()

    def _waiting(self) -> bool:
        """Whether the relay that was begun may still come."""
        if self._run is None or self._control is None:
            return False
        self._end = self._control.over(self._run)
        return not self._end and monotonic() - self._begun < _COMING

    def _begin(self) -> None:
        self._count()
        place = self._place
        simulated = simulation(place.simulated, place.cores) if place.simulated else None
        if self._control is not None:
            self._control.stop_all()
            self._run = self._control.begin(self._bundle, simulated, str(place.agents or ""))
        self._begun = monotonic()

    def _again(self) -> None:
        """Start all anew; Flower keeps its nodes on disk, and parties come back by themselves."""
        self._count()
        for child in self._children:
            child.kill()
        self._start()
        self._broken = False

    def _count(self) -> None:
        self._tries += 1
        if self._tries > _STARTS:
            last = self._end or _last(self._children[0].said())
            raise RemoteError(
                f"the SuperLink or its relay was started {_STARTS} times and did not stay: {last}",
                hint=f"see link.log and helper.log in {self._folder}",
            )


def _check(place: Place) -> None:
    checks.installed("flwr", "federation")
    if place.listen is None:
        checks.installed("ray", "simulation")
        return
    checks.server_keys(place.keys, place.listen, demo=place.demo)
    if place.keys is not None and not keys.nodes(place.keys):
        raise UsageError(
            f"{place.keys} knows no party yet",
            hint="consilience federate keys accept NAME.public.json",
        )
    checks.free(place.listen)


def _last(said: str) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
