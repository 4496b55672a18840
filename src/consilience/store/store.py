"""`Store`: the knowledge base on disk, and the only source of truth about it.

This class holds the database and the encoder and hands every question to the module that answers
it: `opening`, `ingest`, `writing`, `re_embedding`, `queries`, `checking`. It knows nothing of
ranking: indexes are derived from `changes`, live in `derived/` and can be thrown away.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Document, Passage
from consilience.encoding import Encoder, Vectors
from consilience.store import checking, matching, queries, re_embedding, writing
from consilience.store.base import (
    AddOptions,
    AddReport,
    Changes,
    EmbedReport,
    Problem,
    Progress,
    RemoveReport,
    SourceInfo,
    Stats,
    VectorRows,
)
from consilience.store.connection import Database
from consilience.store.embedding import as_kept, require_fingerprint, require_same
from consilience.store.ingest import Ingest
from consilience.store.opening import open_database
from consilience.store.origins import Item, collect
from consilience.store.progress import Meter
from consilience.store.where import Where


class Store:
    """A knowledge base: documents, their passages, and a vector for each passage.

    Many processes may read while one writes; a second writer waits for the first. Reading never
    waits, and every reading method answers from one committed state. Threads may share a store.

    Example:
        with Store.open("knowledge") as store:
            store.add("handbook/")
            store.sources()
    """

    def __init__(self, database: Database, encoder: Encoder | None = None) -> None:
        self._database = database
        self._encoder = encoder
        self._identity: str = database.meta("identity")
        self._matched: tuple[int, Where, NDArray[np.int64]] | None = None

    @classmethod
    def open(cls, path: str | Path, *, encoder: Encoder | None = None, create: bool = True) -> Self:
        """Open the store in a folder, or make one there.

        Args:
            path: The folder.
            encoder: What embeds; None loads the one that ships when something must be embedded.
            create: Whether to make the store when it is not there.

        Raises:
            MissingError: There is no store and `create` is not set.
            UsageError: The path is a file, or a folder that holds other things.
            DamagedError: The database is damaged or not a store's.
            VersionError: A newer version of this package made the store.
            FingerprintError: The store's vectors are another encoder's.
        """
        store = cls(open_database(Path(path), create=create), encoder)
        try:
            if encoder is not None:
                require_fingerprint(store, encoder)
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. A closed store can be closed again, but not used."""
        self._database.close()

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self._database.path.parent

    @property
    def identity(self) -> str:
        """A random name given to this store when it was made."""
        return self._identity

    @property
    def sequence(self) -> int:
        """The last committed change, of whichever process; grows by one with each."""
        return int(self._database.meta("sequence"))

    @property
    def fingerprint(self) -> str:
        """The encoder of the vectors; empty while nothing was embedded."""
        return str(self._database.meta("fingerprint"))

    @property
    def dimension(self) -> int:
        """The length of a vector; 0 while nothing was embedded."""
        return int(self._database.meta("dimension"))

    def __len__(self) -> int:
        """How many passages there are."""
        return int(self._database.execute("SELECT count(*) FROM passages")[0][0])

    def __bool__(self) -> bool:
        """A store is a store, even an empty one."""
        return True

    def add(
        self,
        *items: Item,
        options: AddOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> AddReport:
        """Take documents in: new ones are added, changed ones replaced, unchanged ones left alone.

        Each file, and each document given as an object, is one transaction. One that cannot be
        taken in is reported in `failed` and stops nothing else.

        Args:
            *items: Files, folders, `NamedFile`, `Document` and `Passage` objects, tables with a
                column `text`, and lists of these. Passages are kept as they are, and together with
                the others of their source replace what the store had of it; documents are split.
            options: Labels, pruning, batch size, cancellation.
            progress: Told after every step.

        Raises:
            UsageError: An item is of a kind that cannot be added.
            AddInterruptedError: Ctrl-C. It carries the report; running again goes on from there.
            FingerprintError: The store's vectors are another encoder's.
            BusyError: Another process kept writing.
            ConsilienceError: The store could not be written, as when the disk is full.
        """
        collected = collect(items)
        size = sum(origin.size for origin in collected.origins)
        meter = Meter(progress, len(collected.origins), size)
        ingest = Ingest(
            self._database, self._load_encoder, options=options or AddOptions(), meter=meter
        )
        return ingest.run(collected)

    def give_vectors(self, texts: Sequence[str], vectors: Vectors, *, fingerprint: str) -> None:
        """Hand over vectors that were made elsewhere, of texts that will be added.

        What is added later under one of these texts is not embedded again. Until then the vectors
        take no part in anything.

        Args:
            texts: As `embedding_text` joins title and text.
            vectors: One a text, `[texts, dimension]`; kept in half precision.
            fingerprint: Of the encoder that made them.

        Raises:
            UsageError: They are not as many, of another dimension, or not finite numbers.
            FingerprintError: The store's vectors are another encoder's.
        """
        require_same(self.path, self.fingerprint, fingerprint)
        found = as_kept(texts, vectors, dimension=self.dimension)
        writing.stage(self._database, found, fingerprint=fingerprint)

    def remove(self, *sources: str) -> RemoveReport:
        """Remove sources at once and completely; all of them in one transaction.

        Args:
            *sources: Names of documents or files as `sources` lists them. With a `/` at the end,
                all files below that folder.

        Raises:
            MissingError: One is unknown; nothing is removed, and the hint has names like it.
            BusyError: Another process kept writing.
        """
        return writing.remove(self._database, sources)

    def re_embed(
        self,
        encoder: Encoder,
        *,
        batch: int = 64,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> EmbedReport:
        """Replace every vector by one of another encoder, in one transaction at the end.

        Until then the old vectors answer. What an interrupted run has computed is kept, and the
        next one goes on from it. Passages get new numbers, so that indexes follow as always.

        Args:
            encoder: The new encoder; it also becomes this object's.
            batch: How many passages are embedded at a time.
            progress: Told after every step.
            cancelled: Asked between batches; once true, it stops with `cancelled` reported.
        """
        count, size = re_embedding.count_missing(self._database, encoder.fingerprint)
        meter = Meter(progress, count, size)
        report = re_embedding.re_embed(
            self._database, encoder, meter=meter, batch=batch, cancelled=cancelled
        )
        if not report.cancelled:
            self._encoder = encoder
        return report

    def changes(self, since: int) -> Changes:
        """What an index that has reached the sequence `since` must forget and take in.

        Use it in a `with` statement, or read `added` to its end: either closes the snapshot.
        """
        return queries.changes_since(self._database, since)

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number, in the order asked for; numbers that are gone are left out."""
        return queries.passages_by_number(self._database, numbers)

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; those that are gone are left out."""
        return queries.numbers_by_id(self._database, ids)

    def matching(self, where: Where) -> NDArray[np.int64]:
        """The numbers of the passages whose documents a filter lets through, `[n]`, ascending.

        The answer to the last filter is kept until the next commit.

        Raises:
            UsageError: No document has a key of metadata that is asked for.
        """
        sequence, kept = self.sequence, self._matched
        if kept is None or kept[:2] != (sequence, where):
            kept = self._matched = (sequence, where, matching.matching(self._database, where))
        return kept[2]

    @property
    def settings(self) -> dict[str, Any]:
        """What was found out about searching this store, as `configure` wrote it."""
        found: dict[str, Any] = json.loads(self._database.meta("settings") or "{}")
        return found

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Keep settings with the store, in the place of those it has; no commit for the indexes.

        Args:
            settings: Names with values that JSON can carry; what they mean is not known here.

        Raises:
            BusyError: Another process kept writing.
        """
        writing.configure(self._database, json.dumps(dict(settings), sort_keys=True))

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number, ascending; numbers that are gone are left out."""
        return queries.vectors_by_number(self._database, numbers)

    def passage(self, id: str) -> Passage:  # noqa: A002 the field's name in every contract
        """The passage of that id.

        Raises:
            MissingError: There is none.
        """
        return queries.passage_by_id(self._database, id)

    def document(self, source: str) -> Document:
        """The document of that source, with all of its text.

        Raises:
            MissingError: There is none; the hint has names like it.
        """
        return queries.document_by_source(self._database, source)

    def sources(self) -> list[SourceInfo]:
        """Every document, by source."""
        return queries.all_sources(self._database)

    def stamp(self, origin: str) -> str:
        """A digest of all that the documents of a file or object were made from.

        Args:
            origin: Its name, as `SourceInfo.origin` has it.

        Returns:
            Empty where there is no such origin, or not all of its documents are left.
        """
        return queries.stamp_of_origin(self._database, origin)

    def stats(self) -> Stats:
        """The store in numbers."""
        return queries.statistics(self._database)

    def check(self) -> list[Problem]:
        """Everything in the store that is not as it must be; reads all of it."""
        return checking.check(self._database)

    def _load_encoder(self) -> Encoder:
        if self._encoder is None:
            # torch comes with it, which reading a store must never wait for.
            from consilience.encoding import load_encoder

            self._encoder = load_encoder()
        return self._encoder
