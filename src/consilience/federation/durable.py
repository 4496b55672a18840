"""Files that are there whole or not at all, and that only their owner reads.

A file is written beside its place, made to reach the disk, and renamed. Whoever is stopped in
between leaves the file before it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consilience.errors import DamagedError, UsageError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def private_folder(place: Path) -> Path:
    """A folder that only its owner enters; it and those above it are made where they are not."""
    _made(place).chmod(PRIVATE_FOLDER)
    return place


def _made(place: Path) -> Path:
    if not place.is_dir():
        _made(place.parent)
        place.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
    return place


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Raises:
        UsageError: The disk is full or may not be written to; the file before it is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        _made(path.parent)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename_whole(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            f"{path} could not be written: {error}",
            hint="make room on the disk and start again; nothing that was committed is lost",
        ) from error


def rename_whole(old: Path, new: Path) -> None:
    """Rename a file and make the new name reach the disk."""
    os.replace(old, new)
    folder = os.open(new.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_table(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON table as `write_whole` writes."""
    text = json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def read_table(path: Path) -> dict[str, Any] | None:
    """Read what `write_table` wrote; None where nothing was written.

    Raises:
        DamagedError: It holds something else.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(
            f"{path} is no JSON: {error}", hint="delete it to begin this run from the start"
        ) from error
    if not isinstance(found, dict):
        raise DamagedError(
            f"{path} holds no table", hint="delete it to begin this run from the start"
        )
    return found
