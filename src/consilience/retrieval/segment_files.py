"""Segments as files: one `.npy` for each field, mapped into memory when they are read.

The files of a segment share a name that is never used twice, so a file under a name never changes:
whoever has it open may go on reading while others put new segments in the place of old ones. They
hold numbers only, and are read without pickle. Whether they can be believed is not known here.
"""

import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from consilience.retrieval.merging import Room, merged
from consilience.retrieval.postings import Segment

FIELDS = tuple(field.name for field in fields(Segment) if field.name != "remembered")
"""The fields of a segment that are files."""

_MAPPED_FROM = 1 << 16  # bytes; smaller files cost less to read than to map


def new_name() -> str:
    """A name that no files had before."""
    return secrets.token_hex(8)


def file_of(folder: Path, name: str, field: str) -> Path:
    """The file of one field of a segment."""
    return folder / f"{name}.{field}.npy"


def write_segment(folder: Path, segment: Segment) -> str:
    """Write a segment into a folder under a new name, which is returned.

    Raises:
        OSError: There is no room.
    """
    name = new_name()
    _write(folder, name, segment, FIELDS)
    return name


def write_merged(folder: Path, segments: Sequence[Segment], dead: NDArray[np.int64]) -> str:
    """Write several segments as one, without the dead; see `merged` and `write_segment`."""
    name = new_name()
    segment = merged(segments, dead, _room(folder, name))
    _write(folder, name, segment, [f for f in FIELDS if not file_of(folder, name, f).exists()])
    return name


def _write(folder: Path, name: str, segment: Segment, chosen: Iterable[str]) -> None:
    for field in chosen:
        np.save(file_of(folder, name, field), getattr(segment, field), allow_pickle=False)


def _room(folder: Path, name: str) -> Room:
    """Room in files, so that a large segment is never in memory as a whole."""

    def room(field: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
        if count == 0:
            return np.empty(0, dtype)
        path = file_of(folder, name, field)
        made = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count,))
        with path.open("r+b") as file:
            # A full disk is to be met here: written to through a map, it would end the process.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return np.asarray(made)

    return room


def read_segment(folder: Path, name: str) -> Segment:
    """Open a segment.

    Raises:
        OSError: A file is missing.
        ValueError: A file is not what was written.
    """
    arrays: dict[str, Any] = {f: read_array(file_of(folder, name, f)) for f in FIELDS}
    return Segment(**arrays)


def read_array(path: Path) -> NDArray[Any]:
    """The array in a file; a large one stays there until it is used.

    Raises:
        OSError: The file is missing.
        ValueError: It is no such file.
    """
    if path.stat().st_size < _MAPPED_FROM:
        return np.asarray(np.load(path, allow_pickle=False))
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
