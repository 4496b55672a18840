"""Folders of derived state: what may be in them, who may change them, and whether to believe them.

A manifest beside the files says which store and which commit they were derived from and digests
every file, so that whatever was interrupted, damaged, copied from elsewhere or written by another
version is recognised and thrown away. It is written last. Nothing here knows what is in the files.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_POLL = 0.02  # seconds


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


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but hidden ones (locks), by name."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: _digest(path) for path in files}


def _digest(path: Path) -> str:
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
