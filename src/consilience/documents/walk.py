"""From the paths a user names to the files that can be read, always in the same order.

Folders are walked by name, hidden files and linked folders are left alone, and nothing is opened:
whether a file holds what its suffix promises is for its reader to find out. What is passed over is
reported as well, so that a caller can count it and nothing disappears unseen.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from consilience.documents.formats import SUFFIXES, known_suffixes
from consilience.documents.read import kind_of_file, why_not


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read: where it is, and the name under which citations will show it."""

    path: Path
    source: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a folder that was passed over on purpose, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A path that was asked for, or looked like a document, and cannot be read, and why.

    Two are the same whatever they advise.
    """

    path: str
    reason: str
    hint: str = field(default="", compare=False)


Finding = Found | Skipped | Failure


def find_documents(paths: Iterable[Path | str]) -> Iterator[Finding]:
    """Everything that lies at and below some paths, file by file.

    A named file is a `Found` or a `Failure`. In a folder, files without a reader, hidden files and
    folders, lock files of Office and links to folders are `Skipped`; files that look like
    documents and are none (named pipes, links to nothing, folders without permission) are
    `Failure`s. A file that two paths lead to under the same name comes once.

    Args:
        paths: Files and folders, as the user named them.

    Yields:
        Findings in the order of the paths, and by name inside a folder. The source of a file is
        its path as named, joined with its place in the folder, with forward slashes.
    """
    seen: set[str] = set()
    for named in paths:
        for finding in _at(Path(named)):
            key = finding.source if isinstance(finding, Found) else f"\0{finding.path}"
            if key not in seen:
                seen.add(key)
                yield finding


def _at(path: Path) -> Iterator[Finding]:
    """Findings at a path that the user named."""
    if path.is_dir():
        yield from _below(path)
    elif not os.path.lexists(path):
        yield Failure(_show(path), "there is no such file or folder")
    else:
        yield _named_file(path)


def _named_file(path: Path) -> Finding:
    if path.suffix.lower() not in SUFFIXES:
        suffix = path.suffix or "a name without a suffix"
        return Failure(_show(path), f"unknown format: no reader for {suffix} ({known_suffixes()})")
    return _document(path)


def _below(folder: Path) -> Iterator[Finding]:
    """Findings in a folder, depth first; a stack, since folders nest deeper than calls may."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path != folder and not _is_folder(path):
            yield _file_in_folder(path)
            continue
        try:
            names = sorted(os.listdir(path), reverse=True)
        except OSError as error:
            yield Failure(_show(path), f"cannot be listed: {why_not(error)}")
            continue
        waiting += [path / name for name in names]


def _is_folder(path: Path) -> bool:
    """Whether to go in: a folder that is neither hidden nor reached by a link, so no loops."""
    return not _is_hidden(path) and not path.is_symlink() and path.is_dir()


def _is_hidden(path: Path) -> bool:
    return path.name.startswith((".", "~$"))


def _file_in_folder(path: Path) -> Finding:
    if _is_hidden(path):
        return Skipped(_show(path), "hidden")
    if path.is_symlink() and path.is_dir():
        return Skipped(_show(path), "a link to a folder")
    if path.suffix.lower() not in SUFFIXES:
        return Skipped(_show(path), f"no reader for {path.suffix or 'a name without a suffix'}")
    return _document(path)


def _document(path: Path) -> Finding:
    """A path with a readable suffix: a document, if it leads to a regular file."""
    try:
        kind = kind_of_file(path.stat().st_mode)
    except OSError as error:
        lost = path.is_symlink() and not path.exists()
        reason = "a link that leads nowhere" if lost else f"cannot be opened: {why_not(error)}"
        return Failure(_show(path), reason)
    if kind:
        return Failure(_show(path), f"is {kind}, not a file")
    source = path.as_posix()
    if source != _show(path):
        return Failure(_show(path), "its name is not valid text; rename it")
    return Found(path, source)


def _show(path: Path) -> str:
    """A path as text that can be printed and stored, whatever bytes its name holds."""
    return os.fsencode(path.as_posix()).decode("utf-8", errors="replace")
