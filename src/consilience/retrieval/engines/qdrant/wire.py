"""Calls of Qdrant's client: told as ours when they fail, asked again where that does no harm.

The local mode keeps a folder for one process; its calls are made one after the other, since it is
not made for threads.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from consilience.errors import BusyError, DependencyError, RemoteError
from consilience.retrieval.engines.address import PASSWORD, Address
from consilience.retrieval.engines.base import Answer, Limits, MovedError
from consilience.retrieval.engines.failing import late, nonsense, refused, unreached
from consilience.retrieval.engines.persistence import persistently

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


class Wire:
    """Calls of the client with their errors told as ours, asked again where that does no harm.

    Args:
        address: Whose server or folder it is.
        limits: How long it is waited for, and how often.

    Raises:
        DependencyError: The client is not installed.
        BusyError: Another process has the folder open.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._client = _client(address, limits)
        self._one_by_one = threading.RLock() if address.engine_is_local else None

    def ask(self, act: "Callable[[QdrantClient], Answer]") -> Answer:
        """The result of calls that may be made twice.

        Raises:
            MovedError: A collection is not there.
            RemoteError: The server fails or refuses; `UnavailableError` where it may pass.
        """
        return persistently(lambda: self.once(act), self._limits)

    def once(self, act: "Callable[[QdrantClient], Answer]") -> Answer:
        """The result of calls that are made once. Raises as `ask`."""
        with self._alone(), self._translated(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the local mode, about large copies
            return act(self._client)

    def close(self) -> None:
        """Let go of the server or the folder."""
        self._client.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._one_by_one is None:
            yield
            return
        with self._one_by_one:
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except UnexpectedResponse as error:
            told = _refused(error.status_code or 0, error.content, self._address)
        except ResponseHandlingException as error:
            told = _unreached(error.source, self._address)
        except ValueError as error:
            told = self._misunderstood(error)
        else:
            return
        raise told from None

    def _misunderstood(self, error: ValueError) -> RemoteError:
        """What the client says of an answer that is none; in local mode, of what is not there."""
        shown = self._address.shown
        if not self._address.engine_is_local:
            return nonsense(shown, self._address.concealed(error))
        if "not found" not in str(error):
            raise error
        return MovedError(f"{shown} has no such collection", hint="Ask again.")


def _client(address: Address, limits: Limits) -> "QdrantClient":
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise DependencyError(
            "the client of Qdrant is not installed", hint="pip install 'consilience[qdrant]'"
        ) from error
    if not address.engine_is_local:
        return _remote(address, limits)
    try:
        return QdrantClient(path=address.path, force_disable_check_same_thread=True)
    except RuntimeError as error:
        raise BusyError(
            f"another process has {address.shown} open",
            hint="close it, or run a Qdrant server, which many can use",
        ) from error


def _remote(address: Address, limits: Limits) -> "QdrantClient":
    from qdrant_client import QdrantClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a key without encryption: asked for
        return QdrantClient(
            host=address.host,
            port=address.port or 6333,
            https=address.secure,
            prefix=address.path or None,
            api_key=address.password or None,
            timeout=max(1, round(limits.search)),
            check_compatibility=False,
        )


def _refused(status: int, content: bytes, address: Address) -> RemoteError:
    told, shown = address.concealed(content.decode("utf-8", "replace")), address.shown
    if status == 404:
        return MovedError(f"{shown} has no such collection: {told}", status=status)
    if status in (401, 403):
        return RemoteError(
            f"{shown} does not accept the key: {told}",
            hint=f"put the key into the environment, as {PASSWORD}",
            status=status,
        )
    return refused(shown, told, status=status)


def _unreached(source: object, address: Address) -> RemoteError:
    told, shown = address.concealed(source), address.shown
    if "timed out" in told.lower() or "timeout" in type(source).__name__.lower():
        return late(shown, told)
    if not isinstance(source, OSError) and "connect" not in type(source).__name__.lower():
        return nonsense(shown, told)
    return unreached(shown, told)
