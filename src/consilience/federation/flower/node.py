"""A party's side of Flower: the SuperNode and its helper, started, looked after, ended.

The node opens no port to the outside: it asks the coordinator, over TLS, whether there is something
to do, and proves with its key who it is. It runs one app only, see `noding`.
"""

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consilience.errors import ConsilienceError, RemoteError, VersionError
from consilience.federation import keys, places
from consilience.federation.durable import private_folder
from consilience.federation.flower import checks, children
from consilience.federation.flower.children import Child

_EXIT = re.compile(r"Exit Code: (\d+)")
_REFUSED, _OTHER_VERSION = 305, 606


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a node runs, and for whom.

    Attributes:
        state: Folder of the party's own.
        coordinator: Its address.
        keys: Folder of the party's keys; None for a demonstration.
        agent: The socket of its agent.
    """

    state: Path
    coordinator: checks.Address
    keys: Path | None
    agent: Path


@dataclass(frozen=True, slots=True)
class Node:
    """A SuperNode that runs, and its helper."""

    seat: Seat
    children: tuple[Child, ...]

    @property
    def alive(self) -> bool:
        """Whether all of it runs."""
        return all(child.alive for child in self.children)

    @property
    def processes(self) -> tuple[int, ...]:
        """Numbers of what was started: the SuperNode, its helper."""
        return tuple(child.process.pid for child in self.children)

    def refusal(self) -> ConsilienceError | None:
        """Why the coordinator will not have it; None where it may be tried again."""
        said = self.children[0].said()
        codes = [int(code) for code in _EXIT.findall(said)]
        if codes and codes[-1] == _OTHER_VERSION:
            return VersionError(
                "the coordinator runs another version of Flower", hint=_installing(said)
            )
        if codes and codes[-1] == _REFUSED and self.seat.keys is not None:
            return RemoteError(
                f"{self.seat.coordinator} does not accept the key of this party",
                hint="send NAME.public.json to the coordinator; there: "
                "consilience federate keys accept NAME.public.json, and start it again",
                status=403,
            )
        return None


@contextmanager
def running(seat: Seat) -> Iterator[Node]:
    """A node, from its start to its end.

    Raises:
        DependencyError: flwr is missing, or another version.
    """
    checks.installed("flwr", "federation")
    folder = private_folder(seat.state / "flower")
    secret = places.private_file(folder / "helper.secret", secrets.token_hex(32).encode("ascii"))
    environment, port = children.environment(folder / "home"), _free_port()
    (folder / "node.log").unlink(missing_ok=True)
    started: list[Child] = []
    try:
        started.append(_node(seat, folder, environment, port))
        started.append(_helper(folder, environment, port, secret))
        yield Node(seat, tuple(started))
    finally:
        for child in started:
            child.stop()
        secret.unlink(missing_ok=True)


def _node(seat: Seat, folder: Path, environment: dict[str, str], port: int) -> Child:
    arguments = ["--superlink", str(seat.coordinator), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--isolation", "process"]
    arguments += ["--superexec-auth-secret-file", str(folder / "helper.secret")]
    arguments += ["--node-config", f'agent="{seat.agent}"', *_security(seat.keys)]
    told = {"arguments": arguments, "trusted": str(folder / "trusted.yaml")}
    return Child.start(children.module("noding"), environment, folder / "node.log", told)


def _security(folder: Path | None) -> list[str]:
    if folder is None:
        return ["--insecure"]
    own, authority = str(folder / keys.NODE_KEY), str(folder / keys.CA)
    return ["--root-certificates", authority, "--auth-supernode-private-key", own]


def _helper(folder: Path, environment: dict[str, str], port: int, secret: Path) -> Child:
    command = [children.program("flower-superexec"), "--insecure"]
    command += ["--runtime-api-address", f"127.0.0.1:{port}", "--parent-pid", str(os.getpid())]
    command += ["--superexec-auth-secret-file", str(secret)]
    return Child.start(command, environment, folder / "helper.log")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _installing(said: str) -> str:
    """The line that installs the coordinator's version, where the refusal names it."""
    named = re.search(r"SuperLink[^0-9]*(\d+\.\d+)", said)
    wanted = f"{named[1]}.*" if named else "THE COORDINATOR'S"
    return f"pip install 'flwr=={wanted}'"
