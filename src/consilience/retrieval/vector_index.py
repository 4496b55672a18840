"""The vectors of a store in files that follow it from commit to commit.

Before they are searched, what the store has committed since is written behind what they hold; when
they cannot be believed (deleted, cut off, another store's, ahead of a store that was put back) they
are made anew from the store. Of several processes one at a time changes them. The others wait a
little and go on with the commit that is there: passages they lack are found by a later search, and
passages removed since are dropped when the rows are read. Where a fifth of the rows is dead, the
living are copied together in the background. How vectors are compared is not known here.
"""

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from consilience.encoding import Encoder
from consilience.errors import BusyError
from consilience.retrieval.derived import exclusive, writable
from consilience.retrieval.tuning import IndexName
from consilience.retrieval.vector_files import (
    MANIFEST,
    Extent,
    VectorFiles,
    VectorWriter,
    WornFilesError,
    clear_away,
    compact,
    read_extent,
)
from consilience.retrieval.vectors import VectorTable
from consilience.store import Changes, Store, require_fingerprint

DEAD = 0.2
"""The share of dead rows from which on the living ones are copied together."""

_DEAD_ROWS = 1000  # fewer are not worth it


class FollowingVectors:
    """The vectors of one store, in step with it. One thread at a time may use it.

    Args:
        store: The store to follow.
        encoder: The encoder of its vectors.
        index: How rows are proposed.
        patience: Seconds to wait while another process changes the files.
    """

    def __init__(
        self, store: Store, encoder: Encoder, *, index: IndexName, patience: float
    ) -> None:
        self._store, self._encoder = store, encoder
        self._index, self._patience = index, patience
        self._folder = store.path / "derived" / "dense"
        self._table: VectorTable | None = None
        self._compacting: threading.Thread | None = None

    def table(self) -> VectorTable:
        """The vectors at the store's last commit, or the last that could be reached in time.

        Raises:
            FingerprintError: The store's vectors have become another encoder's.
            BusyError: Another process is making the files, and there are none yet.
            ConsilienceError: The files cannot be written.
        """
        table = self._table
        if table is None or table.files.extent.sequence != self._store.sequence:
            require_fingerprint(self._store, self._encoder)
            with writable(self._folder):
                table = self._followed()
            self._tidy(table)
        return table

    def discard(self) -> None:
        """Have the files made anew, because one of them is not what it was."""
        if self._table is not None:
            self._table.close()
        self._table = None
        (self._folder / MANIFEST).unlink(missing_ok=True)

    def _followed(self) -> VectorTable:
        self._folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self._folder / "lock", patience=self._patience) as alone:
            if alone:
                return self._caught_up()
        return self._as_it_is()

    def _as_it_is(self) -> VectorTable:
        """What another process, which is changing the files, had finished before."""
        extent = read_extent(self._folder)
        if extent is not None and self._is_ours(extent):
            with suppress(WornFilesError):
                return self._at(extent)
        if self._table is None:
            raise BusyError(
                f"another process is building the index in {self._folder}",
                hint="Ask again in a moment.",
            )
        return self._table

    def _caught_up(self) -> VectorTable:
        extent = read_extent(self._folder)
        if extent is not None and self._is_ours(extent):
            with suppress(WornFilesError):
                # Opened before it is written to, so that nothing is added to damaged files.
                self._at(extent)
                return self._at(self._written(extent) or self._rebuilt())
        return self._at(self._rebuilt())

    def _is_ours(self, extent: Extent) -> bool:
        """Whether files were made from this store, with this encoder."""
        theirs = (extent.identity, extent.fingerprint, extent.dimension)
        ours = (self._store.identity, self._encoder.fingerprint, self._encoder.dimension)
        return theirs == ours

    def _at(self, extent: Extent) -> VectorTable:
        """The table at an extent: the one there is, grown, or a new one."""
        table, self._table = self._table, None  # one that fails to grow may be half grown
        if table is not None and extent.continues(table.files.extent):
            table.grow(extent)
        else:
            table = VectorTable(self._folder, extent, index=self._index)
        self._table = table
        return table

    def _written(self, extent: Extent) -> Extent | None:
        """The files at the store's last commit; None when the store is behind them."""
        with self._store.changes(extent.sequence) as changes:
            require_fingerprint(self._store, self._encoder)
            if changes.sequence < extent.sequence:
                return None
            if changes.sequence == extent.sequence and extent.sequence:
                return extent
            return _append(self._folder, extent, changes)

    def _rebuilt(self) -> Extent:
        """New files at the store's last commit."""
        (self._folder / MANIFEST).unlink(missing_ok=True)
        clear_away(self._folder, None)
        empty = Extent.new(
            identity=self._store.identity,
            fingerprint=self._encoder.fingerprint,
            dimension=self._encoder.dimension,
        )
        written = self._written(empty)
        assert written is not None
        return written

    def _tidy(self, table: VectorTable) -> None:
        """Have the living rows copied together when too many are dead."""
        live = table.files.live
        dead = len(live) - int(np.count_nonzero(live))
        busy = self._compacting is not None and self._compacting.is_alive()
        if not busy and dead >= max(_DEAD_ROWS, DEAD * len(live)):
            self._compacting = threading.Thread(target=self._compact, daemon=True)
            self._compacting.start()

    def _compact(self) -> None:
        # Without room, or with files that are found damaged, everything stays as it is.
        with (
            suppress(OSError, WornFilesError),
            exclusive(self._folder / "lock", patience=0) as alone,
        ):
            extent = read_extent(self._folder)
            if alone and extent is not None:
                files = VectorFiles(self._folder, extent)
                clear_away(self._folder, compact(self._folder, files))
                files.close()


def _append(folder: Path, extent: Extent, changes: Changes) -> Extent:
    with VectorWriter(folder, extent) as writer:
        writer.forget(changes.removed)
        for batch in changes.added:
            vectors = np.stack([row.vector for row in batch])
            writer.take([row.number for row in batch], vectors, [row.access for row in batch])
        return writer.vouch(changes.sequence)
