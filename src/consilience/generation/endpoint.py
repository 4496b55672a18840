"""A small client for services that speak OpenAI's interface: two paths, JSON over HTTP.

It is made for services that may be slow, overloaded, broken or hostile: every call ends by one
deadline whatever the other side does, answers have a largest size, nothing is followed elsewhere,
and what comes back is checked before anybody computes with it. It knows no prompts and no passages.

It stands on `http.client` and not on a larger library, because a deadline for a whole call has to
be kept under every single read of the socket: a service that sends one byte of a header a second
passes every timeout of a read. Here the socket itself knows the deadline. Looking a name up is left
to the operating system and its own limit. Proxies named in the environment are not used.

The key is sent to the one address that was given. It is in no error text: what a service sends back
is quoted with the key struck out.
"""

import http.client
import io
import ipaddress
import json
import math
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NoReturn, cast
from urllib.parse import urlsplit

from consilience.errors import RemoteError, UsageError
from consilience.version import __version__

KEY_VARIABLE = "CONSILIENCE_REMOTE_KEY"
QUOTED = 200
AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

Path = Literal["completions", "chat/completions"]

_HINTS = {
    401: "is the key right? pass key=, or set the variable it is read from",
    403: "is the key right, and may it use this model?",
    404: "look at the address (often it ends in /v1) and at the name of the model",
    413: "send fewer or shorter passages",
    429: "wait, or ask for less at a time",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may take.

    Attributes:
        connect: Seconds to connect to one address of the host.
        read: Seconds between two pieces of an answer.
        total: Seconds of a whole call, with retries and the waiting between them.
        retries: How often a call is tried again.
        longest_wait: Seconds waited at most before a retry; a service that asks for more is
            given up at once.
        response_bytes: The largest answer.
    """

    connect: float = 10.0
    read: float = 60.0
    total: float = 120.0
    retries: int = 2
    longest_wait: float = 20.0
    response_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Choice:
    """One text that a service wrote or was given.

    Attributes:
        text: The text.
        tokens: Its tokens, when log probabilities came along.
        log_probs: Of each token, in nats; the first of an echoed prompt has none.
    """

    text: str
    tokens: tuple[str, ...] | None = None
    log_probs: tuple[float | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    retry_after: str
    location: str
    body: bytes


class _Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then."""
        return self._end - time.monotonic()

    def within(self, seconds: float) -> float:
        """Seconds that a single wait may take.

        Raises:
            TimeoutError: None are left.
        """
        if (left := self.left()) <= 0:
            raise TimeoutError
        return min(seconds, left)


class _Timed:
    """A socket as `http.client` uses it, of which no wait passes the deadline."""

    def __init__(self, raw: socket.socket, deadline: _Deadline, seconds: float) -> None:
        self._raw, self._deadline, self._seconds = raw, deadline, seconds

    def _ready(self) -> socket.socket:
        self._raw.settimeout(self._deadline.within(self._seconds))
        return self._raw

    def receive(self, buffer: Any) -> int:
        """What has come, into a buffer."""
        return self._ready().recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """All of it, or `TimeoutError`."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._ready().send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """What an answer is read from."""
        assert mode == "rb"
        return io.BufferedReader(_Pieces(self))

    def close(self) -> None:
        """Nothing: `http.client` lets go before the answer is read; who made the socket ends it."""


class _Pieces(io.RawIOBase):
    """The reading half of a timed socket."""

    def __init__(self, timed: _Timed) -> None:
        super().__init__()
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed.receive(buffer)


class Endpoint:
    """A service at an address.

    Args:
        address: Up to the part before `/completions`, such as `https://models.example/v1`.
        key: Sent as a bearer token; None reads it from the environment.
        key_variable: The variable it is read from; a key of its own, so that the key of one
            service is not sent to another by default.
        allow_http: Whether plain http may leave this machine.
        limits: What a call may take.
        pause: How the time between retries is waited for, in seconds.

    Raises:
        UsageError: An address that is none, plain http to another machine, or a key with
            characters that no key has.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        key_variable: str = KEY_VARIABLE,
        allow_http: bool = False,
        limits: Limits | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._place = _place(address, allow_http=allow_http)
        self.address = self._place.address
        self.limits = limits or Limits()
        self._key = _checked_key(os.environ.get(key_variable, "") if key is None else key)
        self._pause = pause
        self._tls = ssl.create_default_context() if self._place.secure else None

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r})"

    def complete(self, body: Mapping[str, Any]) -> list[Choice]:
        """`POST completions`: texts that go on from a prompt.

        Raises:
            RemoteError: The service cannot be reached, refuses, is too slow or answers nonsense.
        """
        return self._choices(self._post("completions", body), lambda choice: choice["text"])

    def chat(self, body: Mapping[str, Any]) -> list[Choice]:
        """`POST chat/completions`: what an assistant says; raises as `complete`."""
        return self._choices(
            self._post("chat/completions", body), lambda choice: choice["message"]["content"]
        )

    def nonsense(self, what: str, received: object) -> RemoteError:
        """The error for an answer that makes no sense.

        Args:
            what: What is wrong with it.
            received: What came; its beginning is quoted.
        """
        return RemoteError(
            f"{self.address} answered with {what}; received: {self._quoted(received)}",
            hint="is this an OpenAI-compatible service, and is the model's name right?",
        )

    def _post(self, path: Path, body: Mapping[str, Any]) -> bytes:
        payload = json.dumps(body).encode()
        deadline = _Deadline(self.limits.total)
        for attempt in range(self.limits.retries + 1):
            response = self._send(path, payload, deadline)
            if response.status == http.client.OK:
                return response.body
            wait = _wait(response, attempt)
            last = attempt == self.limits.retries or response.status not in AGAIN
            if last or wait > min(self.limits.longest_wait, deadline.left()):
                self._refuse(response, attempt)
            self._pause(wait)
        raise AssertionError

    def _send(self, path: Path, payload: bytes, deadline: _Deadline) -> _Response:
        """One request and its answer, whatever the status.

        Raises:
            RemoteError: There was no answer, or one that is too large.
        """
        place = self._place
        kind = http.client.HTTPSConnection if place.secure else http.client.HTTPConnection
        connection = kind(place.host, place.port)
        try:
            with self._connected(deadline) as raw:
                # `http.client` connects only when it has no socket yet.
                connection.sock = cast("Any", _Timed(raw, deadline, self.limits.read))
                connection.request("POST", f"{place.path}/{path}", payload, self._headers())
                return self._received(connection.getresponse())
        except TimeoutError as error:
            most = self.limits
            raise RemoteError(
                f"{self.address} did not answer in time: {most.connect:g} s to connect, "
                f"{most.read:g} s between two pieces and {most.total:g} s in all are waited",
                hint="is it overloaded? raise these Limits, or ask for fewer tokens",
            ) from error
        except (OSError, UnicodeError) as error:
            raise RemoteError(
                f"{self.address} cannot be reached: {self._quoted(error)}",
                hint="look at the address, and whether the service is running",
            ) from error
        except http.client.HTTPException as error:
            raise self.nonsense("no HTTP", error) from error

    def _connected(self, deadline: _Deadline) -> socket.socket:
        failure: OSError = TimeoutError()
        place = self._place
        for family, kind, protocol, _, address in socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM
        ):
            raw = socket.socket(family, kind, protocol)
            try:
                raw.settimeout(deadline.within(self.limits.connect))
                raw.connect(address)
                return raw if self._tls is None else self._encrypted(raw, deadline)
            except OSError as error:
                raw.close()
                failure = error
        raise failure

    def _encrypted(self, raw: socket.socket, deadline: _Deadline) -> ssl.SSLSocket:
        """TLS over a connected socket; its handshake keeps the deadline as a whole."""
        assert self._tls is not None
        raw.settimeout(deadline.within(self.limits.total))
        return self._tls.wrap_socket(raw, server_hostname=self._place.host)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Nothing that unpacks: a small answer stays small.
            "Accept-Encoding": "identity",
            "User-Agent": f"consilience/{__version__}",
            "Connection": "close",
        }
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _received(self, response: http.client.HTTPResponse) -> _Response:
        body = response.read(self.limits.response_bytes + 1)
        if len(body) > self.limits.response_bytes:
            raise self.nonsense(f"more than {self.limits.response_bytes} bytes", _text(body))
        return _Response(
            status=response.status,
            retry_after=response.headers.get("Retry-After", ""),
            location=response.headers.get("Location", ""),
            body=body,
        )

    def _refuse(self, response: _Response, attempt: int) -> NoReturn:
        status = response.status
        if 300 <= status < 400:
            raise RemoteError(
                f"{self.address} redirects to {self._quoted(response.location)}, and redirects are "
                "not followed",
                hint="if you trust it, give that address itself",
                status=status,
            )
        tried = f" after {attempt + 1} attempts" if attempt else ""
        asks = response.retry_after
        later = f" and asks to wait {self._quoted(asks)}" if asks else ""
        raise RemoteError(
            f"{self.address} refused the request with status {status}{tried}{later}; "
            f"received: {self._quoted(_text(response.body))}",
            hint=_HINTS.get(status, "see what the service says, and its own log"),
            status=status,
        )

    def _quoted(self, received: object) -> str:
        """The beginning of what came, safe for a terminal, without the key."""
        text = str(received)
        text = text.replace(self._key, "[key]") if self._key else text
        return repr(text[:QUOTED])

    def _choices(self, body: bytes, text_of: Callable[[Any], Any]) -> list[Choice]:
        text = _text(body)
        try:
            found = json.loads(text, parse_constant=_no_number)["choices"]
            read = [_choice(text_of(choice), choice.get("logprobs")) for choice in found]
        except _NonsenseError as error:
            raise self.nonsense(str(error), text) from error
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise self.nonsense("no choices that hold a text", text) from error
        except (ValueError, RecursionError) as error:
            raise self.nonsense("no JSON", text) from error
        if not read:
            raise self.nonsense("no choices", text)
        return read


class _NonsenseError(Exception):
    """What is wrong with a choice."""


def _choice(text: object, logprobs: Mapping[str, Any] | None) -> Choice:
    """One choice, checked."""
    if not isinstance(text, str):
        raise _NonsenseError("a choice without text")
    if not logprobs:
        return Choice(text)
    tokens, log_probs = _columns(logprobs)
    if len(tokens) != len(log_probs):
        raise _NonsenseError(f"{len(log_probs)} log probabilities for {len(tokens)} tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise _NonsenseError("tokens that are no text")
    if any(one is not None and not _is_log_prob(one) for one in log_probs):
        raise _NonsenseError("log probabilities that are none")
    if None in log_probs[1:]:
        raise _NonsenseError("a token without its log probability")
    return Choice(text, tuple(tokens), tuple(log_probs))


def _columns(logprobs: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Tokens and their log probabilities, in either of the two forms that are about."""
    try:
        if "content" in logprobs:
            told = logprobs["content"] or []
            return [one["token"] for one in told], [one["logprob"] for one in told]
        return list(logprobs["tokens"]), list(logprobs["token_logprobs"])
    except (KeyError, TypeError) as error:
        raise _NonsenseError("log probabilities of an unknown form") from error


def _is_log_prob(value: object) -> bool:
    """Finite and not above zero, but for rounding."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(cast("float", value)) and cast("float", value) < 1e-3


def _no_number(name: str) -> NoReturn:
    raise _NonsenseError(f"{name} where a number should be")


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _wait(response: _Response, attempt: int) -> float:
    """Seconds before the next attempt: what the service asks for, else 0.5, 1, 2, … jittered."""
    asked = _retry_after(response.retry_after)
    return random.uniform(0.5, 1.0) * 2**attempt if asked is None else asked


def _retry_after(header: str) -> float | None:
    """Seconds of a `Retry-After` header, which is a number or a date; None without one."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a service is."""

    address: str
    secure: bool
    host: str
    port: int
    path: str


def _place(address: str, *, allow_http: bool) -> _Place:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    known = host and parts.scheme in ("http", "https")
    odd = not address.isprintable() or not address.isascii() or " " in address
    if (
        not known
        or odd
        or host is None
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        # Not quoted: an address may hold a password.
        raise UsageError(
            "the address of the endpoint is not of the form https://host/path",
            hint="for example https://models.example/v1, without user, password or query",
        )
    secure, path = parts.scheme == "https", parts.path.rstrip("/")
    if not secure and not allow_http and not _is_loopback(host):
        raise UsageError(
            f"plain http to {host} would send passages and the key unencrypted",
            hint="use https, or pass allow_http=True if the network in between is yours",
        )
    shown = f"{parts.scheme}://{parts.netloc}{path}"
    return _Place(shown, secure, host, port or (443 if secure else 80), path)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_key(key: str) -> str:
    if not all("!" <= sign <= "~" for sign in key):
        raise UsageError(
            "the key holds spaces or characters beyond ASCII",
            hint="copy it again, without line breaks",
        )
    return key
