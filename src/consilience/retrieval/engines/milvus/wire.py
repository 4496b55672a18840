"""Calls of Milvus's client: told as ours when they fail, asked again where that does no harm.

The client would ask again by itself for as long as a deadline allows, whatever the call does. That
is turned off (`ONCE`), and the channel has the deadlines. It also writes every failure to its log
with a traceback; while our calls run it is muted, since a failure is told once, as an error.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consilience.errors import DependencyError, RemoteError, UsageError
from consilience.retrieval.engines.address import PASSWORD, Address
from consilience.retrieval.engines.base import Answer, Limits, MovedError, UnavailableError
from consilience.retrieval.engines.failing import late, nonsense, unreached
from consilience.retrieval.engines.persistence import persistently

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ONCE: dict[str, Any] = {"retry_times": 0, "retry_on_rate_limit": False}
"""What every call of the client says, so that it is made once."""

# Numbers of Milvus's errors.
_MISSING, _UNLOADED = 100, 101
_FORBIDDEN = frozenset({1400, 1401})
_PASSING = frozenset({1, 2, 4, 8})  # not ready, unavailable, too many requests, above a rate


class UnloadedError(RemoteError):
    """A collection that the server has not loaded, so does not search."""


class Wire:
    """Calls of the client with their errors told as ours, asked again where that does no harm.

    Args:
        address: Whose server it is; it is reached with the first call.
        limits: How long it is waited for, and how often.

    Raises:
        DependencyError: The client is not installed.
        UsageError: The file of the option `ca` is not there.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        _require_client()
        _require_file(address)
        self._address = address
        self._limits = limits
        self._connecting = threading.Lock()
        self._client: MilvusClient | None = None

    def ask(self, act: "Callable[[MilvusClient], Answer]") -> Answer:
        """The result of calls that may be made twice.

        Raises:
            MovedError: A collection is not there.
            UnloadedError: A collection is there, but not loaded.
            RemoteError: The server fails or refuses; `UnavailableError` where it may pass.
        """
        return persistently(lambda: self.once(act), self._limits)

    def once(self, act: "Callable[[MilvusClient], Answer]") -> Answer:
        """The result of calls that are made once. Raises as `ask`."""
        try:
            with self._translated(), _muted():
                return act(self._connected())
        except UnavailableError:
            self.close()  # the next call connects anew
            raise

    def searched(self, collection: str, act: "Callable[[MilvusClient], Answer]") -> Answer:
        """The result of calls that search a collection, which is loaded if it was not.

        A server may forget that one was loaded, and whoever runs it may release one.
        """
        try:
            return self.ask(act)
        except UnloadedError:
            self.load(collection)
            return self.ask(act)

    def load(self, collection: str) -> None:
        """Have a collection loaded; done already, it does nothing."""
        seconds = self._limits.publish
        self.ask(lambda client: client.load_collection(collection, timeout=seconds, **ONCE))

    def drop(self, collection: str) -> None:
        """Remove a collection; one that is gone already is no fault."""
        with suppress(MovedError):
            self.ask(lambda client: client.drop_collection(collection, **ONCE))

    def close(self) -> None:
        """Let go of the server. Harmless when done again."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _connected(self) -> "MilvusClient":
        with self._connecting:
            if self._client is None:
                self._client = _client(self._address, self._limits)
            return self._client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import grpc
        from pymilvus import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            told = _told(error, self._address)
        else:
            return
        raise told from None


def _require_client() -> None:
    try:
        import pymilvus  # noqa: F401 asked for here so that its absence is told at once
    except ImportError as error:
        raise DependencyError(
            "the client of Milvus is not installed", hint="pip install 'consilience[milvus]'"
        ) from error


def _require_file(address: Address) -> None:
    certificate = address.options.get("ca")
    if certificate is not None and not Path(certificate).is_file():
        raise UsageError(
            f"the certificate at {certificate} is not there",
            hint="?ca= is the file of who signed the server's certificate, in PEM",
        )


def _client(address: Address, limits: Limits) -> "MilvusClient":
    from pymilvus import MilvusClient

    from consilience.retrieval.engines.milvus.channel import PORT, channel_to

    host = f"[{address.host}]" if ":" in address.host else address.host
    certificate = address.options.get("ca")
    return MilvusClient(
        # Where it connects again by itself, before what has failed is told; not as it is reached.
        f"{'https' if address.secure else 'http'}://{host}:{address.port or PORT}",
        channel=channel_to(address, limits),
        token=f"{address.user}:{address.password}" if address.user else address.password,
        db_name=address.path,
        timeout=limits.connect,
        dedicated=True,  # the one that is closed is then ours alone
        **({} if certificate is None else {"server_pem_path": certificate}),
    )


def _told(error: Exception, address: Address) -> RemoteError:
    """An error of the client as ours."""
    import grpc

    status, said = _status(error)
    told, shown, code = address.concealed(said), address.shown, getattr(error, "code", None)
    denied = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    if status in denied or code in _FORBIDDEN:
        return RemoteError(
            f"{shown} does not accept the user, the password or the key: {told}",
            hint=f"put the password into the environment, as {PASSWORD}",
        )
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(shown, told)
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return unreached(shown, told)
    if status is not None:
        return nonsense(shown, told)
    return _refused(code, told, shown)


def _refused(code: object, told: str, shown: str) -> RemoteError:
    """What Milvus itself says no to."""
    if code == _MISSING:
        return MovedError(f"{shown} has no such collection: {told}")
    if code == _UNLOADED:
        return UnloadedError(f"{shown} has not loaded the copy: {told}", hint="Ask again.")
    kind = UnavailableError if code in _PASSING else RemoteError
    return kind(f"{shown} refused with code {code}: {told}", hint="see the log of the server")


def _status(error: BaseException) -> tuple[Any, str]:
    """What gRPC said underneath, if it was gRPC, and the words of it."""
    import grpc

    said = _plain(getattr(error, "message", error))
    found: BaseException | None = error
    for _ in range(_DEEP):
        if isinstance(found, grpc.Call):
            return found.code(), str(found.details())
        if isinstance(status := getattr(found, "code", None), grpc.StatusCode):
            return status, said
        found = found.__cause__ if found is not None else None
    return None, said


_DEEP = 5  # causes that are looked through; some of the client's errors are their own cause


def _plain(message: object) -> str:
    """What the server said, without what the client puts before it."""
    return str(message).rpartition(" retry times, ")[2].removeprefix("message=")


_MUTED = ContextVar("muted", default=False)


@contextmanager
def _muted() -> Iterator[None]:
    for handler in logging.getLogger("pymilvus").handlers:
        handler.addFilter(_is_heard)
    before = _MUTED.set(True)
    try:
        yield
    finally:
        _MUTED.reset(before)


def _is_heard(_record: logging.LogRecord) -> bool:
    return not _MUTED.get()
