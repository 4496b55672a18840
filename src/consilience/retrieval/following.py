"""A tantivy index on disk that follows a store.

Before it is searched it takes in what the store has committed since the commit that it has reached;
when its manifest does not vouch for it (damaged, interrupted, another store's or recipe's, ahead of
a store that was put back), it is rebuilt from nothing. Of several processes one at a time changes
the files. The others wait a little and then go on with the commit they have: passages they lack are
found by a later search, and passages removed since are dropped when the rows are read. Nothing here
knows how questions are asked.
"""

import shutil
import threading
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tantivy

from consilience.errors import BusyError, ConsilienceError
from consilience.retrieval.derived import (
    Manifest,
    digests,
    exclusive,
    read_manifest,
    write_manifest,
)
from consilience.store import Changes, IndexRow, Store
from consilience.text import analyze

RECIPE = f"tokens 1, tantivy {version('tantivy')}"
"""Everything that shapes the files. Raise the number whenever `analyze` or the schema change."""

_HEAP = 64_000_000  # bytes that tantivy may fill before it writes a segment
_PUBLIC = "*"  # the term of passages without labels; a label's own term begins with "="


def access_terms(labels: Collection[str]) -> list[str]:
    """The terms of the field `access` that a reader who holds `labels` may see."""
    return [_PUBLIC, *(f"={label}" for label in labels)]


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("number", indexed=True, fast=True)
    builder.add_text_field("tokens", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("access", tokenizer_name="raw", index_option="basic")
    return builder.build()


SCHEMA = _schema()
"""Fields: `number` of the passage, its `tokens` set apart by spaces, and its `access` terms."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """An open index and the store's commit that it is at."""

    index: tantivy.Index
    sequence: int


class FollowingIndex:
    """The index of one store. Threads may share it.

    Args:
        store: The store to follow.
        patience: Seconds to wait while another process changes the index.
    """

    def __init__(self, store: Store, *, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._folder = store.path / "derived" / "lexical"
        self._lock = threading.Lock()
        self._reached: _Reached | None = None

    def searcher(self) -> tantivy.Searcher:
        """A searcher over the store's last commit, or the last that could be reached in time.

        Raises:
            BusyError: Another process is building the index, and there is none yet.
            ConsilienceError: The index cannot be written.
        """
        with self._lock:
            if self._reached is None or self._reached.sequence != self._store.sequence:
                self._reached = self._follow()
            return self._reached.index.searcher()

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
        manifest = read_manifest(self._manifest)
        try:
            if manifest is None or not self._is_of(manifest):
                return None
            return _Reached(tantivy.Index.open(str(self._files)), manifest.sequence)
        except (OSError, ValueError):  # files are missing, or change while they are read
            return None

    def _is_of(self, manifest: Manifest) -> bool:
        ours = (manifest.recipe, manifest.identity) == (RECIPE, self._store.identity)
        return ours and digests(self._files) == manifest.files

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
        try:
            index = reached.index if reached else self._empty()
            _write(index, changes)
            self._vouch(changes.sequence)
        except (OSError, ValueError) as error:  # tantivy reports a full disk as a ValueError
            raise ConsilienceError(
                f"the index in {self._folder} cannot be written: {error}",
                hint=f"Free some space, or delete {self._folder}: it is made anew when needed.",
            ) from error
        return _Reached(index, changes.sequence)

    def _empty(self) -> tantivy.Index:
        self._manifest.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir()
        return tantivy.Index(SCHEMA, path=str(self._files))

    def _vouch(self, sequence: int) -> None:
        files = digests(self._files)
        write_manifest(self._manifest, Manifest(RECIPE, self._store.identity, sequence, files))

    @property
    def _files(self) -> Path:
        return self._folder / "index"

    @property
    def _manifest(self) -> Path:
        return self._folder / "manifest.json"


def _write(index: tantivy.Index, changes: Changes) -> None:
    """All changes in one commit, after which no thread touches the files."""
    writer = index.writer(_HEAP, num_threads=1)
    for number in changes.removed:
        writer.delete_documents_by_term("number", number)
    for batch in changes.added:
        for row in batch:
            writer.add_document(_document(row))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()


def _document(row: IndexRow) -> tantivy.Document:
    return tantivy.Document(
        number=row.number,
        tokens=" ".join(analyze(row.title) + analyze(row.text)),
        access=access_terms(row.access)[1:] or [_PUBLIC],
    )
