"""Connections to PostgreSQL: how long they are waited for, and how their errors are told.

Every statement has the server's own time limit; a server that does not keep it, because it or the
network hangs, has the line cut by a guard. Nothing here knows what the statements are.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from consilience.errors import BusyError, ConsilienceError, DependencyError, RemoteError
from consilience.retrieval.engines.address import PASSWORD, Address
from consilience.retrieval.engines.base import Limits, UnavailableError
from consilience.retrieval.engines.failing import late, unreached
from consilience.retrieval.engines.persistence import persistently

if TYPE_CHECKING:
    from psycopg import Connection

_IDLE = 8  # connections that are kept open
_GRACE = 2.0  # seconds beyond the server's own time limit, for its answer to arrive


class Connections:
    """Connections to one database. Threads may share it.

    Args:
        address: Where it is.
        limits: How long it is waited for.

    Raises:
        DependencyError: psycopg or pgvector is not installed.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        _require_packages()
        self._address = address
        self._limits = limits
        self._idle: list[Connection[Any]] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def snapshot(self) -> "Iterator[Connection[Any]]":
        """A transaction that reads one state of the database."""
        from psycopg import IsolationLevel

        connection = self._borrowed()
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        try:
            with self._transaction(connection, self._limits.search):
                yield connection
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    @contextmanager
    def change(self) -> "Iterator[tuple[Connection[Any], Guard]]":
        """A transaction that writes, on a connection of its own, and what cuts it when it hangs."""
        connection = persistently(self._opened, self._limits)
        try:
            with self._transaction(connection, self._limits.publish) as guard:
                yield connection, guard
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections that nobody uses, and the others when they come back."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _transaction(self, connection: "Connection[Any]", seconds: float) -> "Iterator[Guard]":
        guard = Guard(connection, seconds + _GRACE)
        try:
            with self._translated(guard), connection.transaction():
                limit = f"{int(seconds * 1000)}ms"
                connection.execute(
                    "SELECT set_config('statement_timeout', %s, true), "
                    # Compiling a statement costs more than any of ours takes.
                    "set_config('lock_timeout', %s, true), set_config('jit', 'off', true)",
                    (limit, limit),
                )
                yield guard
        finally:
            guard.end()

    def _borrowed(self) -> "Connection[Any]":
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return self._opened()

    def _opened(self) -> "Connection[Any]":
        with self._translated(None):
            return _connected(self._address, self._limits)

    def _give_back(self, connection: "Connection[Any]") -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _translated(self, guard: "Guard | None") -> Iterator[None]:
        """Errors of the server and of the way to it as ours.

        The driver's own are left out of the chain, as they hold what it was given to connect.
        """
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            told = _told(error, self._address)
            cut = guard is not None and guard.has_cut
        else:
            return
        raise late(self._address.shown, "it stopped answering") if cut else told from None


class Guard:
    """Cuts a connection's line when nothing was heard of it for so many seconds."""

    def __init__(self, connection: "Connection[Any]", seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._timer = threading.Timer(0, self._cut)
        self.has_cut = False
        self.rest()

    def rest(self) -> None:
        """Begin to count anew: a statement has ended."""
        self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Count no longer."""
        self._timer.cancel()

    def _cut(self) -> None:
        self.has_cut = True
        with suppress(OSError, ValueError, _driver_error()):
            line = socket.socket(fileno=os.dup(self._connection.fileno()))
            with line:
                line.shutdown(socket.SHUT_RDWR)


def _driver_error() -> type[Exception]:
    import psycopg

    return psycopg.Error


def _require_packages() -> None:
    try:
        import pgvector  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "PostgreSQL needs the packages psycopg and pgvector, which are not installed",
            hint="pip install 'consilience[postgres]'",
        ) from error


def _connected(address: Address, limits: Limits) -> "Connection[Any]":
    import psycopg

    given: dict[str, Any] = {
        "host": address.options.get("host") or address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
        "dbname": address.path,
        "sslmode": address.options.get("sslmode"),
        "sslrootcert": address.options.get("sslrootcert"),
        "application_name": "consilience",
        "connect_timeout": max(2, round(limits.connect)),  # the least that the driver knows
    }
    return psycopg.connect(
        autocommit=True, **{name: value for name, value in given.items() if value}
    )


def _told(error: Exception, address: Address) -> ConsilienceError:
    """An error of the driver as one of ours; what may pass by itself is an `UnavailableError`."""
    import psycopg
    from psycopg import errors

    text, shown = address.concealed(error), address.shown
    match error:
        case errors.LockNotAvailable():
            return BusyError(
                f"someone else is publishing to {shown}", hint="Publish again in a moment."
            )
        case errors.QueryCanceled() | errors.ConnectionTimeout():
            return late(shown, text)
        case errors.InsufficientPrivilege():
            return RemoteError(
                f"{shown} does not let this user do that: {text}",
                hint="publishing needs the right to make schemas: GRANT CREATE ON DATABASE … TO …",
            )
        case errors.DiskFull():
            return RemoteError(
                f"the disk of {shown} is full; the copy is as it was: {text}",
                hint="free some space there",
            )
        case errors.UndefinedTable() | errors.SerializationFailure() | errors.InternalError_():
            return UnavailableError(
                f"the copy in {shown} was replaced meanwhile: {text}", hint="Ask again."
            )
    if isinstance(error, psycopg.OperationalError):
        return _unreachable(shown, text)
    return RemoteError(f"{shown} refused: {text}", hint="see the log of the server")


def _unreachable(shown: str, text: str) -> RemoteError:
    if any(sign in text for sign in ("authentication failed", "no password", "role ")):
        return RemoteError(
            f"{shown} does not accept the user or the password: {text}",
            hint=f"put the password into the environment, as {PASSWORD}",
        )
    if "does not exist" in text:
        return RemoteError(
            f"{shown} has no such database: {text}", hint="make it on the server: CREATE DATABASE …"
        )
    return unreached(shown, text)
