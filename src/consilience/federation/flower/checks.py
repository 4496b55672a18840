"""What is looked at before anything starts: versions, addresses, certificates, clocks.

Every finding is an error that says what to type next. Nothing here needs flwr.
"""

import http.client
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from consilience.errors import (
    BusyError,
    ConsilienceError,
    DependencyError,
    MissingError,
    RemoteError,
    UsageError,
)
from consilience.federation import keys

SKEW = 300.0  # seconds; Flower refuses signatures that are older
_VERSIONS = ((1, 41), (1, 42))
_WITHIN = 10.0  # seconds
_STRANGER = (
    ("POST", "/v1/control/list-runs"),
    ("POST", "/v1/runtime/acquire-task"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
)

_EXPIRED, _EARLY, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64  # of OpenSSL


class UnreachableError(RemoteError):
    """Nobody answers there, yet."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a coordinator listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address(told: str) -> Address:
    """Read `HOST:PORT`.

    Raises:
        UsageError: It is something else; an address with a scheme, above all plain HTTP.
    """
    host, _, port = told.rpartition(":")
    if "/" in told or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{told!r} is no address of a coordinator",
            hint="write HOST:PORT, such as rag.example.org:8443; it is always encrypted",
        )
    return Address(host.strip("[]"), int(port))


def installed(package: str, extra: str) -> None:
    """See that an optional package is there.

    Raises:
        DependencyError: It is not, or is one that this version was not written for.
    """
    try:
        found = version(package)
    except PackageNotFoundError as error:
        raise DependencyError(
            f"the package {package} is not installed", hint=f"pip install 'consilience[{extra}]'"
        ) from error
    if package == "flwr" and tuple(map(int, found.split(".")[:2])) not in _VERSIONS:
        raise DependencyError(
            f"flwr {found} is installed; this version of consilience needs 1.41 or 1.42",
            hint="pip install 'flwr>=1.41,<1.43'",
        )


def free(place: Address) -> None:
    """See that nobody listens there.

    Raises:
        BusyError: Somebody does.
        UsageError: It is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        socket.create_server((place.host, place.port), family=family).close()
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == 99:  # cannot assign
            raise UsageError(
                f"{place} is no address of this machine",
                hint="listen on an address of this machine, or on 0.0.0.0 for all of them",
            ) from error
        raise BusyError(
            f"{place} cannot be listened on: {error.strerror}",
            hint="end the program that listens there, or choose another port",
        ) from error


def server_keys(folder: Path | None, place: Address, *, demo: bool) -> None:
    """See that a coordinator's keys are there and good for its address.

    Raises:
        UsageError: There are none, without a demonstration; or they have ended, or are for
            another address.
        MissingError: Some are missing.
    """
    if folder is None:
        _only_demo(place, demo=demo)
        return
    for name in (keys.CA, keys.SERVER, keys.SERVER_KEY, keys.NODES, keys.ROSTER):
        if not (folder / name).is_file():
            raise MissingError(
                f"{folder / name} is missing", hint="consilience federate keys make --host NAME"
            )
    private(folder / keys.SERVER_KEY)
    _in_time(folder)
    hosts = keys.held(folder).hosts
    if place.host not in (*hosts, "0.0.0.0", "::"):
        raise UsageError(
            f"the certificate in {folder} is for {', '.join(hosts)}, not for {place.host}",
            hint=f"consilience federate keys renew --host {place.host}",
        )


def party_keys(folder: Path | None, place: Address, *, demo: bool) -> None:
    """See that a party's keys are there.

    Raises:
        UsageError: There are none, without a demonstration, or others can read them.
        MissingError: Some are missing.
    """
    if folder is None:
        _only_demo(place, demo=demo)
        return
    for name in (keys.NODE_KEY, keys.PARTY_KEY):
        if not (folder / name).is_file():
            raise MissingError(
                f"{folder / name} is missing", hint="consilience federate keys party NAME"
            )
        private(folder / name)
    for name in (keys.CA, keys.ROSTER):
        if not (folder / name).is_file():
            raise MissingError(
                f"{folder / name} is missing",
                hint=f"ask the coordinator for {name} and put it there",
            )


def private(path: Path) -> None:
    """See that only its owner can read a file; raises UsageError."""
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} can be read by others", hint=f"type: chmod 600 {path}")


def coordinator(place: Address, folder: Path | None) -> None:
    """Look at a coordinator as a party does before it joins: whose it is, what it lets through.

    Raises:
        UnreachableError: Nobody answers.
        RemoteError: Somebody else answers, its certificate has ended, or it is not guarded.
        UsageError: This machine's clock is wrong.
    """
    told = _asked(place, folder, "GET", "/health")
    _clocks(told.headers.get("date", ""), place)
    guarded(place, folder)


def guarded(place: Address, folder: Path | None, *, any_name: bool = False) -> None:
    """See that a coordinator lets strangers into nothing.

    Args:
        place: Its address.
        folder: With the certificate that vouches for it; None for no encryption.
        any_name: It is asked under another name than its own.

    Raises:
        RemoteError: It does.
    """
    for method, path in _STRANGER:
        status = _asked(place, folder, method, path, any_name=any_name).status
        if status != 403:
            raise RemoteError(
                f"{place} answers a stranger who asks for {path} with {status}, not 403",
                hint="start the coordinator with: consilience federate coordinate",
                status=status,
            )


def _asked(
    place: Address, folder: Path | None, method: str, path: str, *, any_name: bool = False
) -> http.client.HTTPResponse:
    connection = _connection(place, folder, any_name=any_name)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _unanswered(place, error) from error
    finally:
        connection.close()
    return response


def _connection(
    place: Address, folder: Path | None, *, any_name: bool
) -> http.client.HTTPConnection:
    if folder is None:
        return http.client.HTTPConnection(place.host, place.port, timeout=_WITHIN)
    context = ssl.create_default_context(cafile=str(folder / keys.CA))
    context.check_hostname = not any_name
    return http.client.HTTPSConnection(place.host, place.port, timeout=_WITHIN, context=context)


def _unanswered(place: Address, error: Exception) -> ConsilienceError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(place, error)
    if isinstance(error, ssl.SSLError | http.client.HTTPException):
        return RemoteError(
            f"{place} does not speak as a coordinator does",
            hint="is the address right, and does the coordinator run with the same keys?",
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UnreachableError(
        f"{place} cannot be reached: {reason}",
        hint="does the coordinator run, and does its firewall let this port through?",
    )


def _untrusted(place: Address, error: ssl.SSLCertVerificationError) -> ConsilienceError:
    if error.verify_code == _EXPIRED:
        return RemoteError(
            f"the certificate of {place} has expired, or this machine's clock is ahead",
            hint="at the coordinator: consilience federate keys renew",
        )
    if error.verify_code == _EARLY:
        return UsageError(
            f"the certificate of {place} is not valid yet: this machine's clock is behind",
            hint="set the clock: timedatectl set-ntp true",
        )
    if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        return RemoteError(
            f"the certificate of {place} is for another name: {error.verify_message}",
            hint=f"at the coordinator: consilience federate keys renew --host {place.host}",
        )
    return RemoteError(
        f"{place} shows the certificate of somebody else: {error.verify_message}",
        hint="compare ca.crt with the coordinator's; do not go on before they are equal",
    )


def _clocks(date: str, place: Address) -> None:
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return
    skew = (datetime.now(UTC) - theirs).total_seconds()
    if abs(skew) > SKEW:
        way = "ahead of" if skew > 0 else "behind"
        raise UsageError(
            f"this machine's clock is {abs(skew) / 60:.0f} minutes {way} that of {place}",
            hint="set both clocks: timedatectl set-ntp true",
        )


def _in_time(folder: Path) -> None:
    for name in (keys.CA, keys.SERVER):
        found, now = keys.certificate(folder / name), datetime.now(UTC)
        if found.not_valid_after_utc <= now:
            raise UsageError(
                f"the certificate {folder / name} ended on {found.not_valid_after_utc:%Y-%m-%d}",
                hint="consilience federate keys renew",
            )
        if found.not_valid_before_utc > now:
            raise UsageError(
                f"the certificate {folder / name} begins on "
                f"{found.not_valid_before_utc:%Y-%m-%d %H:%M}: this machine's clock is behind",
                hint="set the clock: timedatectl set-ntp true",
            )
    _of_authority(folder)


def _of_authority(folder: Path) -> None:
    """See that the server's certificate is the authority's, and its key belongs to it."""
    server, authority = (keys.certificate(folder / name) for name in (keys.SERVER, keys.CA))
    try:
        server.verify_directly_issued_by(authority)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            folder / keys.SERVER, folder / keys.SERVER_KEY
        )
    except (ValueError, TypeError, ssl.SSLError, keys.InvalidSignature) as error:
        raise UsageError(
            f"{folder / keys.SERVER} is not vouched for by {folder / keys.CA}, or has another key",
            hint="consilience federate keys renew",
        ) from error


def _only_demo(place: Address, *, demo: bool) -> None:
    if not demo:
        raise UsageError(
            "no keys are given, so everybody could join and listen",
            hint="consilience federate keys make --host NAME, then keys=FOLDER; "
            "or --demo, on this machine only",
        )
    if not place.loopback:
        raise UsageError(
            f"a demonstration is not encrypted, and {place.host} is reached by others",
            hint="leave --demo out and use keys, or listen on 127.0.0.1",
        )
