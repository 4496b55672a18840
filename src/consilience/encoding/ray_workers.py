"""An encoder spread over the machines of a Ray cluster, for embedding in bulk.

The encoder goes into Ray's object store once, from where each machine fetches it once; batches are
handed out as `crews` has it. Chunks are those of `WorkerEncoder`, so the vectors are too. A Ray
that is joined belongs to somebody else and is left as it was found. One that is started here is
this user's alone: it listens on the loopback address, asks for a token, has no dashboard, tells
nobody that it is used, and is gone with its files when the encoder is closed.

ray is imported when the first text is encoded.
"""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Self

from consilience.encoding.base import Encoder, Side, Vectors
from consilience.encoding.crews import PATIENCE, Batch, LostError, Team
from consilience.encoding.workers import chunks_of, end_to_end
from consilience.errors import (
    BusyError,
    ConsilienceError,
    DependencyError,
    RemoteError,
    UsageError,
    VersionError,
)
from consilience.version import __version__

_LOOPBACK = "127.0.0.1"
_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own name for "may listen for other machines"; it heeds it on every system."""
_SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How an encoder is spread over a cluster.

    Attributes:
        address: `ray://HOST:PORT` of a cluster, or what Ray's own `address` takes; empty for what
            RAY_ADDRESS names, and without that for a Ray that is started here.
        actors: How many work at once; 0 for one on each machine.
        patience: Seconds until the first must be ready.
    """

    address: str = ""
    actors: int = 0
    patience: float = PATIENCE


class RayEncoder:
    """Implements `Encoder` in actors of Ray. Use it in a `with` statement, or `close` it.

    Args:
        encoder: What is sent to every actor.
        options: Where they are, and how many; None for one on this machine.
        ready: Made of the encoder by each actor before it begins; a function that can be named
            from there, such as one that compiles for a backend.

    Raises:
        UsageError: Fewer than no actors.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: RayOptions | None = None,
        *,
        ready: Callable[[Encoder], Encoder] | None = None,
    ) -> None:
        self._options = options or RayOptions()
        if self._options.actors < 0:
            raise UsageError(
                f"actors must be at least 1, received {self._options.actors}",
                hint="Leave actors out: one on each machine.",
            )
        self._encoder, self._ready = encoder, ready
        self._lent: _Lent | None = None
        self._lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and the Ray that was started for them."""
        if self._lent is not None:
            lent, self._lent = self._lent, None
            self._lost += lent.team.lost
            lent.team.close()
            lent.leave()

    @property
    def lost(self) -> int:
        """How many actors died and had their work done again."""
        return self._lost + (0 if self._lent is None else self._lent.team.lost)

    @property
    def fingerprint(self) -> str:
        """The encoder's."""
        return self._encoder.fingerprint

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._encoder.dimension

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`; raises as the encoder does, `Team.results`, and `joined`."""
        return self._encoded("passages", passages)

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """`[questions, dimension]`; raises as the encoder does, `Team.results`, and `joined`."""
        return self._encoded("questions", questions)

    def _encoded(self, side: Side, texts: Sequence[str]) -> Vectors:
        chunks = chunks_of(side, texts)
        return end_to_end(self._team().results(chunks) if chunks else [], self.dimension)

    def _team(self) -> Team:
        if self._lent is None:
            leave = joined(self._options)
            try:
                size, threads = _sizes(self._options.actors)
                crew = RayCrew(self._encoder, self._ready, threads=threads)
                team = Team(crew, size=size, patience=self._options.patience)
            except BaseException:
                leave()
                raise
            self._lent = _Lent(team, leave)
        return self._lent.team


@dataclass(frozen=True, slots=True)
class _Lent:
    """Actors, and how the Ray that they run on is left."""

    team: Team
    leave: Callable[[], None]


class _Embedder:
    """What an actor is."""

    def __init__(self, encoder: Encoder, ready: Callable[[Encoder], Encoder] | None) -> None:
        self._encoder = encoder if ready is None else ready(encoder)
        self._where = f"on {socket.gethostname()} in process {os.getpid()}"

    def hello(self) -> tuple[str, str]:
        """Where it is, and which version of this package it has there."""
        return self._where, __version__

    def encode(self, side: Side, texts: list[str]) -> "Vectors | _Wrong":
        """`[texts, dimension]`, or what is wrong, which must not look like a death."""
        told = self._encoder
        try:
            return (
                told.encode_questions(texts) if side == "questions" else told.encode_passages(texts)
            )
        except ConsilienceError as error:
            return _Wrong(f"{error.message} ({self._where})", error.hint)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """An error of an encoder, and where it was."""

    message: str
    hint: str


class RayCrew:
    """The actors of a Ray that is joined; a `Crew`.

    Args:
        encoder: What is sent to them, once to each machine.
        ready: As `RayEncoder`'s.
        threads: Processors of each.
    """

    def __init__(
        self,
        encoder: Encoder,
        ready: Callable[[Encoder], Encoder] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        import ray

        self._ray: Any = ray
        self._sent, self._ready = self._ray.put(encoder), ready
        self._actor: Any = self._ray.remote(
            num_cpus=threads, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(_Embedder)
        self._actors: dict[int, Any] = {}
        self._greetings: set[Hashable] = set()

    def hire(self, number: int) -> Hashable:
        """As `Crew`."""
        self._actors[number] = self._actor.remote(self._sent, self._ready)
        ticket: Hashable = self._actors[number].hello.remote()
        self._greetings.add(ticket)
        return ticket

    def give(self, number: int, batch: Batch) -> Hashable:
        """As `Crew`."""
        ticket: Hashable = self._actors[number].encode.remote(batch[0], list(batch[1]))
        return ticket

    def first(self, tickets: Sequence[Hashable], *, patience: float | None) -> Hashable | None:
        """As `Crew`."""
        over, _ = self._ray.wait(list(tickets), num_returns=1, timeout=patience)
        return over[0] if over else None

    def result(self, ticket: Hashable) -> Any:
        """As `Crew`.

        Raises:
            LostError: The actor died, or the machine with the result did.
            VersionError: A machine has another version of this package.
            ConsilienceError: What the encoder says is wrong.
        """
        found = self._got(ticket)
        if isinstance(found, _Wrong):
            raise ConsilienceError(found.message, hint=found.hint)
        if ticket in self._greetings:
            self._greetings.discard(ticket)
            _same_version(*found)
        return found

    def dismiss(self, number: int) -> None:
        """As `Crew`."""
        self._ray.kill(self._actors.pop(number))

    def _got(self, ticket: Hashable) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except errors.RayTaskError as error:
            raise ConsilienceError(
                f"an actor of Ray failed: {_last_line(error)}",
                hint="It is no error of this package; look at the machine that is named.",
            ) from error
        except errors.RayError as error:
            raise LostError(f"as Ray tells: {_last_line(error)}") from error


def _same_version(where: str, version: str) -> None:
    if version != __version__:
        raise VersionError(
            f"consilience {version} is installed {where}, and {__version__} here",
            hint="install one version on all machines of the cluster",
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _sizes(actors: int) -> tuple[int, int]:
    """How many actors, and how many processors each has."""
    import ray as library

    ray: Any = library
    machines = [
        int(node["Resources"]["CPU"])
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if not machines:
        raise RemoteError(
            "no machine of the Ray cluster offers a processor", hint="ray start --num-cpus 4"
        )
    return sizes(machines, actors)


def sizes(machines: Sequence[int], actors: int) -> tuple[int, int]:
    """How many actors, and how many processors each has.

    Args:
        machines: Processors of each, at least one.
        actors: How many are wanted; 0 for one on each machine.
    """
    if not actors:
        return len(machines), min(machines)
    most = min(sum(machines) // actors, max(machines))
    fitting = (n for n in range(most, 1, -1) if sum(one // n for one in machines) >= actors)
    return actors, next(fitting, 1)


def require_ray() -> None:
    """See that ray is installed.

    Raises:
        DependencyError: It is not.
    """
    if find_spec("ray") is None:
        raise DependencyError(
            "embedding on a cluster needs the package ray, which is not installed",
            hint="pip install 'consilience[simulation]'",
        )


def joined(options: RayOptions) -> Callable[[], None]:
    """Join a Ray, or start one here; what is returned leaves it again.

    Raises:
        DependencyError: See `require_ray`.
        RemoteError: No cluster answers at the address.
        UsageError: One is to be started, and ray was imported in a way that would let other
            machines reach it.
    """
    require_ray()
    os.environ.update(_SILENT)
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    if not address and not _running():
        return _started(options.actors or 1)
    import ray

    if ray.is_initialized():
        return _nothing
    _silence()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise RemoteError(
            f"no Ray cluster answers at {address}: {_last_line(error)}",
            hint="ray start --head on the machine, and its address: ray://HOST:10001",
        ) from error
    return ray.shutdown


def _running() -> bool:
    """Whether this process is at a Ray already, which whoever joined it answers for."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _nothing() -> None:
    """Leave as it is what somebody else joined."""


def _started(actors: int) -> Callable[[], None]:
    """A Ray of this process alone."""
    if "ray" in sys.modules and os.environ.get(_ALONE) != "0":  # read when ray is imported
        raise UsageError(
            "ray was imported before, and would now listen for other machines",
            hint=f"set {_ALONE}=0 before ray is imported, or ray.init() it yourself",
        )
    processors = max(actors, len(os.sched_getaffinity(0)))
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets are in it
    os.environ[_ALONE] = "0"
    with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}):
        try:
            _begin(num_cpus=processors, _temp_dir=folder)
        except BusyError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def leave() -> None:
        sys.modules["ray"].shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    return leave


def _begin(**settings: Any) -> None:
    """Start Ray where nobody but this process can reach it.

    Raises:
        BusyError: It did not start.
    """
    import ray

    _silence()
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=_LOOPBACK,
            **settings,
        )
    except Exception as error:  # this very class is what Ray raises when it has waited too long
        raise BusyError(
            f"Ray did not start on this machine: {_last_line(error)}",
            hint="Try again when less is going on, or name processes in its place: --workers 2.",
        ) from error


def _silence() -> None:
    """Ray tells of dead actors on standard output, which belongs to whoever asked for vectors.

    It has no setting for that; what matters of it is told by `Team`.
    """
    import ray._private.worker

    worker: Any = ray._private.worker
    worker.print_to_stdstream = _unsaid


def _unsaid(*_: object, **__: object) -> None:
    """Say nothing."""


@cache
def _token() -> str:
    """One for the whole process: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for what is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
