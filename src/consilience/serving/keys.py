"""Keys: who may ask a server, kept as digests in one small file.

A secret is shown once, when it is made. It is 256 random bits, which nobody guesses however fast a
digest is computed, so that SHA-256 without salt or repetition is all that is needed; slow digests
are for passwords that people choose. The file is read again when another process changed it. Once
it exists keys are needed, even when it holds none: revoking the last key opens nothing.
"""

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consilience.errors import BusyError, ConsilienceError, DamagedError, MissingError, UsageError
from consilience.retrieval.derived import exclusive
from consilience.serving.files import write_whole
from consilience.serving.subjects import ACTIONS, Action, Subject
from consilience.store.access import valid_labels

PREFIX = "cs_"
"""What every secret begins with, so that scanners of leaked secrets know one when they see it."""

PATIENCE = 10.0
"""Seconds to wait while another process changes the file."""

LOOK_AGAIN = 0.1
"""Seconds between two looks at whether there is a file."""

LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; its secret is not.

    Attributes:
        id: A short random name.
        name: For people.
        digest: SHA-256 of the secret, in hexadecimal.
        scopes: What it grants.
        labels: Access labels that its holder has; None for one who reads everything.
        created: When it was made, ISO 8601 in UTC.
        expires: When it ends, the same; None for never.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[Action, ...]
    labels: tuple[str, ...] | None
    created: str
    expires: str | None

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now

    @property
    def subject(self) -> Subject:
        """Who holds it."""
        labels = None if self.labels is None else frozenset(self.labels)
        return Subject(self.id, self.name, frozenset(self.scopes), labels)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form for people who look after keys; without the digest."""
        found = asdict(self)
        del found["digest"]
        return found


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and the only sight of its secret."""

    key: Key
    secret: str


class KeyRing:
    """The keys of one server. Threads and processes may share it.

    Args:
        path: The file; it need not be there.
        clock: Seconds, monotonic.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._in_force, self._looked = False, -LOOK_AGAIN
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()

    @property
    def in_force(self) -> bool:
        """Whether keys are needed: once there is a file, whatever it holds.

        A file that another process makes counts within `LOOK_AGAIN` seconds: every request asks.
        """
        now = self._clock()
        if now - self._looked >= LOOK_AGAIN:
            self._in_force, self._looked = self.path.exists(), now
        return self._in_force

    def create(
        self,
        name: str,
        *,
        scopes: Collection[str] = ("read",),
        labels: Collection[str] | None = None,
        expires: datetime | None = None,
    ) -> NewKey:
        """Make a key.

        Args:
            name: For people.
            scopes: What it grants: `read`, `write`, which includes it, or `admin`, which does both.
            labels: Access labels that its holder has; None for one who reads everything.
            expires: When it ends; None for never.

        Raises:
            UsageError: The name is empty, a scope is unknown, an admin has labels, or the end has
                passed.
            BusyError: Another process kept changing the file.
            DamagedError: The file is not one of keys.
        """
        granted = _checked(name, scopes, labels, expires)
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(
            id=secrets.token_hex(4),
            name=name,
            digest=_digest(secret),
            scopes=granted,
            labels=None if labels is None else tuple(sorted(set(labels))),
            created=_text_of(datetime.now(UTC)),
            expires=None if expires is None else _text_of(expires),
        )
        with self._changing() as keys:
            self._write([*keys, key])
        return NewKey(key, secret)

    def list(self) -> tuple[Key, ...]:
        """Every key, in the order they were made, those that have expired too."""
        with self._lock:
            return self._current()

    def revoke(self, id_: str) -> Key:
        """End a key at once.

        Raises:
            MissingError: There is none.
        """
        with self._changing() as keys:
            found = next((key for key in keys if key.id == id_), None)
            if found is None:
                raise MissingError(
                    f"there is no key {id_[:LONGEST_NAME]!r}",
                    hint="consilience keys list shows them all",
                )
            self._write(key for key in keys if key is not found)
        return found

    def find(self, secret: str) -> Subject | None:
        """Whose secret it is; None when it is nobody's, or its time is over.

        Takes the same time whichever key it is, and whether it is one.
        """
        digest, found = _digest(secret), None
        for key in self.list():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return None if found is None or found.expired(datetime.now(UTC)) else found.subject

    @contextmanager
    def _changing(self) -> Iterator[tuple[Key, ...]]:
        """The keys as they are, while nobody else changes them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        with self._lock, exclusive(lock, patience=PATIENCE) as alone:
            if not alone:
                raise BusyError(
                    f"another process keeps changing {self.path}", hint="try again in a moment"
                )
            yield self._current()

    def _write(self, keys: Iterable[Key]) -> None:
        found = {"version": 1, "keys": [asdict(key) for key in keys]}
        try:
            write_whole(self.path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConsilienceError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="name another file with --keys",
            ) from error
        self._looked = -LOOK_AGAIN

    def _current(self) -> tuple[Key, ...]:
        """The keys of the file, read again only when it is another than before."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, ()
            return ()
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            self._keys = _read(self.path)
            self._seen = seen
        return self._keys


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", errors="replace")).hexdigest()


def _text_of(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _checked(
    name: str, scopes: Collection[str], labels: Collection[str] | None, expires: datetime | None
) -> tuple[Action, ...]:
    """The scopes, in the order of what they grant."""
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(
            f"the name of a key has 1 to {LONGEST_NAME} printable characters, received "
            f"{name[:LONGEST_NAME]!r}",
            hint="name it after who will use it",
        )
    granted = tuple(action for action in ACTIONS if action in scopes)
    if not granted or len(granted) != len(set(scopes)):
        raise UsageError(
            f"unknown scopes {sorted(set(scopes) - set(ACTIONS))!r}",
            hint=f"one or more of: {', '.join(ACTIONS)}",
        )
    _check_labels(granted, labels)
    if expires is not None and expires <= datetime.now(UTC):
        raise UsageError(
            f"the key would have ended before it began, on {_text_of(expires)}",
            hint="give a time to come",
        )
    return granted


def _check_labels(granted: tuple[Action, ...], labels: Collection[str] | None) -> None:
    if labels is None:
        return
    if not valid_labels(labels):
        raise UsageError(
            f"labels are texts that are not empty, received {labels!r}",
            hint="leave them out for a key that reads everything",
        )
    if "admin" in granted:
        raise UsageError(
            "a key with the scope admin can make a key for everything, so labels do not confine it",
            hint="leave out the labels, or the scope admin",
        )


def lifetime(days: float | None) -> datetime | None:
    """The moment so many days from now; None for never.

    Raises:
        UsageError: The days are no number above 0 of a reasonable size.
    """
    if days is None:
        return None
    if not 0 < days <= _LONGEST_LIFE:
        raise UsageError(
            f"a key lives more than 0 and at most {_LONGEST_LIFE} days, received {days}",
            hint="leave the days out for a key without an end",
        )
    return datetime.now(UTC) + timedelta(days=days)


_LONGEST_LIFE = 36_500


def _read(path: Path) -> tuple[Key, ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_key_from(one) for one in found["keys"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{path} is not a file of keys", hint=f"move it away and make new keys: {path}"
        ) from error
    except OSError as error:
        raise ConsilienceError(
            f"{path} cannot be read: {error.strerror}", hint=f"check the permissions of {path}"
        ) from error


def _key_from(found: dict[str, Any]) -> Key:
    """A key out of its JSON form; raises what `_read` expects of a file that is no file of keys."""
    labels = found["labels"]
    scopes = tuple(action for action in ACTIONS if action in found["scopes"])
    key = Key(
        **found | {"scopes": scopes, "labels": None if labels is None else tuple(labels)},
    )
    if labels is not None and not valid_labels(labels):
        raise ValueError
    key.expired(datetime.now(UTC))
    return key
