"""Folders of derived state: what may be in them, who may change them, and whether to believe them.

A manifest beside the files says which store and which commit they were derived from and digests
every file, so that whatever was interrupted, damaged, copied from elsewhere or written by another
version is recognised and thrown away. It is written last. Nothing here knows what is in the files.
"""

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from consilience.errors import ConsilienceError

_POLL = 0.02  # seconds
_COARSE = 1_000_000_000  # nanoseconds; two changes so close may have the same time


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Tell what the system refuses while an index is followed in this package's words.

    Raises:
        ConsilienceError: In the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ConsilienceError(
            f"the index in {folder} cannot be written: {error}",
            hint=f"Free some space, or delete {folder}: it is made anew when needed.",
        ) from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of derived files was made from.

    Attributes:
        recipe: Everything about the program that shapes the files; another recipe, other files.
        identity: The store's identity.
        sequence: The store's commit that the files have reached.
        files: SHA-256 of every file, by its name in the folder.
    """

    recipe: str
    identity: str
    sequence: int
    files: Mapping[str, str]


def read_manifest(path: Path) -> Manifest | None:
    """The manifest, or None when there is none that can be understood."""
    try:
        manifest = Manifest(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return manifest if _is_well_formed(manifest) else None


def _is_well_formed(manifest: Manifest) -> bool:
    return isinstance(manifest.sequence, int) and isinstance(manifest.files, dict)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the old one, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def digests(folder: Path, *, noted: Path | None = None) -> dict[str, str]:
    """SHA-256 of every file in a folder but hidden ones (locks), by name.

    Args:
        folder: Where the files are.
        noted: A file that keeps the digests with what the system knew of each file when it was
            read: a file that has the same inode, size and times since the same start of the
            machine is not read again. After a start everything is read once, since files may have
            been lost with the power. None reads everything.
    """
    known = _notes(noted) if noted else {}
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = {path.name: _looked_at(path, known.get(path.name)) for path in files}
    if noted and found != known:
        _replace(noted, found)
    return {name: sha for name, (_, sha) in found.items()}


_Look = tuple[str, str]  # what the system knows of a file, and its digest


def _looked_at(path: Path, before: _Look | None) -> _Look:
    stamp = _stamp(path)
    if before and stamp and before[0] == stamp:
        return before
    return stamp, digest(path)


def _stamp(path: Path) -> str:
    """What changes with a file; empty where that cannot be told."""
    found, started = path.stat(), _started()
    if not started or time.time_ns() - found.st_ctime_ns < _COARSE:
        return ""
    times = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{started} {found.st_dev} {found.st_ino} {times}"


@lru_cache(maxsize=1)
def _started() -> str:
    """A name for the time since the machine was started; empty where the system gives none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _notes(path: Path) -> dict[str, _Look]:
    try:
        return {name: (stamp, sha) for name, (stamp, sha) in _json(path).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _replace(path: Path, content: object) -> None:
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(path)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path, *, patience: float) -> Iterator[bool]:
    """Hold a lock file against other processes and threads; it goes free when its holder dies.

    Args:
        path: The lock file; made when missing, never removed.
        patience: Seconds to wait for another holder.

    Yields:
        Whether the lock was obtained.
    """
    with path.open("ab") as file:
        yield _obtain(file.fileno(), time.monotonic() + patience)


def _obtain(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
