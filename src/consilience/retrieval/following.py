"""An inverted index on disk that follows a store.

Before it is searched it takes in what the store has committed since the commit that it has reached;
when its manifest does not vouch for it (damaged, interrupted, another store's or recipe's, ahead of
a store that was put back), it is rebuilt from nothing. Of several processes one at a time changes
the files. The others wait a little and then go on with the commit they have: passages they lack are
found by a later search, and passages removed since are dropped when the rows are read.

What a commit adds becomes a segment of its own, and what it removes a number on a list, so a commit
costs what it brings and not what is there. Segments are merged before there are many: at once where
that costs little more than the commit did, otherwise by a thread beside the searches, which puts
the merged segment in the place of the others when it is done. Nothing here knows how questions are
asked.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilience.errors import BusyError
from consilience.retrieval.derived import (
    Manifest,
    digest,
    digests,
    exclusive,
    read_manifest,
    writable,
    write_manifest,
)
from consilience.retrieval.postings import Segment, SegmentDraft
from consilience.retrieval.scoring import Collection
from consilience.retrieval.segment_files import (
    FIELDS,
    file_of,
    new_name,
    read_array,
    read_segment,
    write_merged,
    write_segment,
)
from consilience.store import Changes, Store
from consilience.text import TOKENS

RECIPE = f"tokens {TOKENS}, segments 1"
"""Everything that shapes the files. Raise the number of segments whenever their layout changes."""

_FULL = 4_000_000  # tokens of a segment that is still in memory
_AT_ONCE = 8  # a commit merges at once what is so many times as large as what it brought,
_FEW = 20_000  # or has no more passages than these
_SMALLER = 4  # segments are merged with those after them that have a quarter of their passages
_DEAD = 3  # and rewritten when one of so many of their passages is gone
_GONE = "gone"  # begins the name of the file with the numbers of the dead
_NONE = np.empty(0, np.int64)
_TRIES = 3  # to open files that another process is replacing


@dataclass(frozen=True, slots=True)
class _Reached:
    """An open index.

    Attributes:
        collection: What is in it.
        names: The names of its segments' files.
        sequence: The store's commit that it is at.
        files: The digest of every file.
    """

    collection: Collection
    names: tuple[str, ...]
    sequence: int
    files: Mapping[str, str]

    def segments(self) -> dict[str, Segment]:
        """Its segments by name."""
        return dict(zip(self.names, self.collection.segments, strict=True))


class FollowingIndex:
    """The index of one store. Threads may share it.

    Args:
        store: The store to follow.
        patience: Seconds to wait while another process changes the index.
    """

    def __init__(self, store: Store, *, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._identity = store.identity
        self._folder = store.path / "derived" / "lexical"
        self._lock = threading.Lock()
        self._reached: _Reached | None = None
        self._merging: threading.Thread | None = None

    def collection(self) -> Collection:
        """What the store's last commit holds, or the last that could be reached in time.

        Raises:
            BusyError: Another process is building the index, and there is none yet.
            ConsilienceError: The index cannot be written.
        """
        with self._lock:
            if self._reached is None or self._reached.sequence != self._store.sequence:
                with writable(self._folder):
                    self._reached = self._follow()
                self._merge_beside()
            return self._reached.collection

    def _follow(self) -> _Reached:
        self._folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self._folder / "lock", patience=self._patience) as alone:
            if alone:
                return self._caught_up(self._on_disk())
            reached = self._reached or self._on_disk()
        if reached is None:
            raise BusyError(
                f"another process is building the index in {self._folder}",
                hint="Ask again in a moment.",
            )
        return reached

    def _on_disk(self) -> _Reached | None:
        """The index as its manifest vouches for it, or None."""
        for _ in range(_TRIES):
            manifest = read_manifest(self._manifest)
            if manifest is None or not self._is_of(manifest):
                return None
            with suppress(OSError, ValueError, EOFError):
                if opened := self._opened(manifest):
                    return opened
            if read_manifest(self._manifest) == manifest:  # nobody has replaced it meanwhile
                return None
        return None

    def _is_of(self, manifest: Manifest) -> bool:
        return (manifest.recipe, manifest.identity) == (RECIPE, self._identity)

    def _opened(self, manifest: Manifest) -> _Reached | None:
        """The files of a manifest; those that are open already are not looked at again."""
        open_already = self._reached.segments() if self._reached else {}
        names = {file.split(".")[0] for file in manifest.files}
        unknown = {f: d for f, d in manifest.files.items() if f.split(".")[0] not in open_already}
        if unknown and not unknown.items() <= self._digests().items():
            return None
        parts = {
            name: open_already.get(name) or read_segment(self._files, name)
            for name in names - {_GONE}
        }
        gone = [read_array(self._files / f) for f in manifest.files if f.startswith(f"{_GONE}.")]
        return _reached(parts, np.concatenate([_NONE, *gone]), manifest.sequence, manifest.files)

    def _digests(self) -> dict[str, str]:
        return digests(self._files, noted=self._folder / "noted.json")

    def _caught_up(self, reached: _Reached | None) -> _Reached:
        """The index at the store's last commit, as one snapshot of the store has it."""
        since = reached.sequence if reached else 0
        with self._store.changes(since) as changes:
            if changes.sequence >= since:
                return self._replayed(reached, changes)
        return self._caught_up(None)

    def _replayed(self, reached: _Reached | None, changes: Changes) -> _Reached:
        if reached and reached.sequence == changes.sequence:
            return reached
        return self._take_in(reached or self._empty(), changes)

    def _empty(self) -> _Reached:
        self._manifest.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir()
        return _reached({}, _NONE, 0, {})

    def _take_in(self, reached: _Reached, changes: Changes) -> _Reached:
        """All changes, after which the manifest vouches for the files."""
        parts = reached.segments()
        dead = np.union1d(reached.collection.dead, np.array(changes.removed, np.int64))
        brought = 0
        for draft in _drafts(changes):
            name = write_segment(self._files, draft.segment())
            parts[name] = read_segment(self._files, name)
            brought += len(draft)
        while span := due(_living(parts, dead), limit=max(_FEW, _AT_ONCE * brought)):
            names = [*parts][span.start : span.stop]
            merged = write_merged(self._files, [parts[name] for name in names], dead)
            parts = _instead(parts, names, merged, read_segment(self._files, merged))
            dead = _among(dead, parts)
        return self._publish(_reached(parts, dead, changes.sequence, reached.files))

    def _publish(self, reached: _Reached) -> _Reached:
        """Vouch for an index, and delete the files that it does not use any more."""
        wanted = {file_of(self._files, n, field).name for n in reached.names for field in FIELDS}
        if len(reached.collection.dead):
            wanted.add(gone := f"{_GONE}.{new_name()}.npy")
            np.save(self._files / gone, reached.collection.dead, allow_pickle=False)
        files = {n: reached.files.get(n) or digest(self._files / n) for n in sorted(wanted)}
        manifest = Manifest(RECIPE, self._identity, reached.sequence, files)
        write_manifest(self._manifest, manifest)
        for path in self._files.iterdir():
            if path.name not in wanted:
                path.unlink()
        return replace(reached, files=files)

    def _merge_beside(self) -> None:
        """Start a thread that merges what is due, unless one is at it."""
        if self._merging is not None and self._merging.is_alive():
            return
        if self._reached is not None and _due_in(self._reached):
            self._merging = threading.Thread(target=self.merge, daemon=True)
            self._merging.start()

    def merge(self) -> None:
        """Merge all that is due, while others search and follow.

        The merged segment is made beside the index, and only put into it under its lock. What
        another process merges is left to it.
        """
        # Without room, or when the index was deleted meanwhile, it is left to another time.
        with suppress(OSError), exclusive(self._folder / "merging.lock", patience=0) as alone:
            while alone and (reached := self._reached) and (span := _due_in(reached)):
                alone = self._merge(reached, reached.names[span.start : span.stop])

    def _merge(self, reached: _Reached, names: Sequence[str]) -> bool:
        """Merge some segments; whether they were still there to be replaced."""
        shutil.rmtree(self._aside, ignore_errors=True)  # what another left that was killed
        self._aside.mkdir()
        segments, dead = reached.segments(), reached.collection.dead
        merged = write_merged(self._aside, [segments[name] for name in names], dead)
        sums = {path.name: digest(path) for path in self._aside.iterdir()}
        with self._lock, exclusive(self._folder / "lock", patience=self._patience) as alone:
            current = self._on_disk() if alone else None
            if current is None or not set(names) <= set(current.names):
                return False
            for file in sums:
                (self._aside / file).rename(self._files / file)
            parts = current.segments()
            parts = _instead(parts, names, merged, read_segment(self._files, merged))
            left = _among(current.collection.dead, parts)
            self._reached = self._publish(
                _reached(parts, left, current.sequence, {**current.files, **sums})
            )
        return True

    @property
    def _files(self) -> Path:
        return self._folder / "index"

    @property
    def _aside(self) -> Path:
        return self._folder / "merging"

    @property
    def _manifest(self) -> Path:
        return self._folder / "manifest.json"


def _reached(
    parts: Mapping[str, Segment],
    dead: NDArray[np.int64],
    sequence: int,
    files: Mapping[str, str],
) -> _Reached:
    """An index out of segments by name, put in the order of their passages' numbers."""
    names = sorted(parts, key=lambda name: int(parts[name].numbers[0]))
    collection = Collection([parts[name] for name in names], dead)
    return _Reached(collection, tuple(names), sequence, files)


def _drafts(changes: Changes) -> Iterator[SegmentDraft]:
    """What is to be taken in, a segment at a time."""
    draft = SegmentDraft()
    for batch in changes.added:
        for row in batch:
            draft.add(row)
        if draft.tokens >= _FULL:
            yield draft
            draft = SegmentDraft()
    if len(draft):
        yield draft


def _living(parts: Mapping[str, Segment], dead: NDArray[np.int64]) -> list[tuple[int, int]]:
    """How many passages each segment has, and how many of them are still there."""
    return [
        (len(part), len(part) - int(np.isin(part.numbers, dead, assume_unique=True).sum()))
        for part in parts.values()
    ]


def _due_in(reached: _Reached) -> slice | None:
    return due(_living(reached.segments(), reached.collection.dead), limit=None)


def due(sizes: Sequence[tuple[int, int]], *, limit: int | None) -> slice | None:
    """Which neighbouring segments should become one.

    Args:
        sizes: Of each segment, how many passages it has and how many of them are still there.
        limit: How many passages may be merged now; None for all.

    Returns:
        The longest end of the row whose first segment has at most four times the passages of those
        after it, or a segment of which a third is gone; None when all is well.
    """
    spans = [slice(i, len(sizes)) for i in range(len(sizes) - 1)]
    after = [sum(left for _, left in sizes[span.start + 1 :]) for span in spans]
    due = [s for s, rest in zip(spans, after, strict=True) if sizes[s.start][1] <= _SMALLER * rest]
    due += [slice(i, i + 1) for i, (all_, left) in enumerate(sizes) if (all_ - left) * _DEAD > all_]
    allowed = [s for s in due if limit is None or sum(left for _, left in sizes[s]) <= limit]
    return allowed[0] if allowed else None


def _instead(
    parts: Mapping[str, Segment], names: Sequence[str], name: str, segment: Segment
) -> dict[str, Segment]:
    """The segments with one in the place of some; none in their place when it is empty."""
    place = [*parts].index(names[0])
    left = [item for item in parts.items() if item[0] not in names]
    return dict([*left[:place], *([(name, segment)] if len(segment) else []), *left[place:]])


def _among(dead: NDArray[np.int64], parts: Mapping[str, Segment]) -> NDArray[np.int64]:
    """The dead that are still in some segment."""
    there = np.concatenate([_NONE, *(part.numbers for part in parts.values())])
    return dead[np.isin(dead, there, assume_unique=True)]
