"""The way of documents into a store: digest, read, split, embed, commit.

Origins go through one after the other. Their passages are embedded together, up to a batch across
origins, and then each origin is committed in a transaction of its own. An origin that fails is
reported and leaves the store as it was; whatever stops the work in the middle leaves every origin
either as before or complete, and the next run tells by the stamps what is left to do.

Vectors of more than one batch are staged as they come, so that the embedding of one large file is
not lost by an interruption either.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

from consilience.documents import Failure
from consilience.encoding import Encoder
from consilience.errors import DocumentError
from consilience.store import writing
from consilience.store.base import AddInterruptedError, AddOptions, AddReport
from consilience.store.connection import Database
from consilience.store.drafts import Draft, require_unicode, stamp_of
from consilience.store.embedding import Content, embed, known_vectors, require_same
from consilience.store.origins import Collected, Origin
from consilience.store.progress import Meter


class CancelledError(Exception):
    """`AddOptions.cancelled` has said so."""


class Ingest:
    """One run of `add`.

    Args:
        database: Where to.
        encoder: Called when, and only when, something must be embedded.
        options: How.
        meter: Told of every step.
    """

    def __init__(
        self,
        database: Database,
        encoder: Callable[[], Encoder],
        *,
        options: AddOptions,
        meter: Meter,
    ) -> None:
        self._database = database
        self._load_encoder = encoder
        self._options = options
        self._meter = meter
        self._report = AddReport()
        self._fingerprint: str = database.meta("fingerprint")
        self._pending: list[tuple[Origin, Draft]] = []
        self._vectors: dict[Content, bytes] = {}
        self._wanted: dict[Content, str] = {}

    def run(self, collected: Collected) -> AddReport:
        """Take in what was collected.

        Raises:
            AddInterruptedError: Ctrl-C; it carries the report.
            FingerprintError: The encoder is not the store's.
            BusyError: Another process kept writing.
            ConsilienceError: The store could not be written, as when the disk is full.
        """
        self._report = AddReport(failed=list(collected.failed), skipped=collected.skipped)
        try:
            self._take_all(collected)
        except CancelledError:
            return self._finished(cancelled=True)
        except KeyboardInterrupt:
            raise AddInterruptedError(self._finished(cancelled=True)) from None
        return self._finished(cancelled=False)

    def _finished(self, *, cancelled: bool) -> AddReport:
        self._meter.tell("done")
        return replace(
            self._report,
            passages=self._meter.passages,
            embedded=self._meter.embedded,
            generation=self._database.meta("sequence"),
            cancelled=cancelled,
        )

    def _take_all(self, collected: Collected) -> None:
        for origin in collected.origins:
            self._heed_cancel()
            self._take(origin)
        self._flush()
        if self._options.prune:
            self._prune(collected.below)

    def _heed_cancel(self) -> None:
        if self._options.cancelled():
            raise CancelledError

    def _take(self, origin: Origin) -> None:
        self._meter.tell("reading", origin.name)
        if any(origin.name == pending.name for pending, _ in self._pending):
            self._flush()  # of two under one name the later one stays
        try:
            draft = self._draft(origin)
        except DocumentError as error:
            self._fail(origin, error)
            return
        if draft is None:
            self._report.unchanged.append(origin.name)
            self._meter.skip(origin.name, origin.size)
        else:
            self._enqueue(origin, draft)

    def _draft(self, origin: Origin) -> Draft | None:
        """The origin read and split; None when the store has it just so."""
        require_unicode(origin.name)
        digest = origin.digest()
        stamp = stamp_of(digest, self._options)
        if stamp == self._stored_stamp(origin.name):
            return None
        parts = origin.parts(self._options)
        if origin.digest() != digest:
            raise DocumentError("it changed while it was being read", hint="Add it again.")
        return Draft(origin.name, origin.is_file, stamp, parts)

    def _stored_stamp(self, name: str) -> str | None:
        rows = self._database.execute("SELECT stamp FROM origins WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def _fail(self, origin: Origin, error: DocumentError) -> None:
        self._report.failed.append(Failure(origin.name, error.message, error.hint))
        self._meter.skip(origin.name, origin.size)

    def _enqueue(self, origin: Origin, draft: Draft) -> None:
        texts = {passage.content: passage.embedded for passage in draft.passages}
        unseen = texts.keys() - self._vectors.keys() - self._wanted.keys()
        self._vectors |= known_vectors(self._database, unseen, fingerprint=self._fingerprint)
        self._wanted |= {c: text for c, text in texts.items() if c not in self._vectors}
        self._pending.append((origin, draft))
        if max(len(self._wanted), len(self._pending)) >= self._options.batch:
            self._flush()

    def _flush(self) -> None:
        """Embed what is pending, then commit origin by origin."""
        self._embed_wanted()
        for origin, draft in self._pending:
            self._heed_cancel()
            self._commit(origin, draft)
        self._pending.clear()
        self._vectors.clear()
        self._wanted.clear()

    def _embed_wanted(self) -> None:
        self._meter.begin(sum(origin.size for origin, _ in self._pending), len(self._wanted))
        wanted = iter(self._wanted.items())
        several = len(self._wanted) > self._options.batch
        while batch := dict(islice(wanted, self._options.batch)):
            self._heed_cancel()
            vectors = dict(zip(batch, embed(self._encoder(), list(batch.values())), strict=True))
            if several:
                writing.stage(self._database, vectors, fingerprint=self._fingerprint)
            self._vectors |= vectors
            self._meter.embed(self._current(), len(batch))

    def _current(self) -> str:
        return self._pending[0][0].name if len(self._pending) == 1 else ""

    def _encoder(self) -> Encoder:
        encoder = self._load_encoder()
        require_same(self._database.path.parent, self._fingerprint, encoder.fingerprint)
        self._fingerprint = encoder.fingerprint
        return encoder

    def _commit(self, origin: Origin, draft: Draft) -> None:
        try:
            replaced = writing.put(
                self._database, draft, self._vectors, fingerprint=self._fingerprint
            )
        except DocumentError as error:
            self._fail(origin, error)
            return
        (self._report.updated if replaced else self._report.added).append(draft.name)
        self._meter.finish(draft.name, origin.size, len(draft.passages))

    def _prune(self, below: Iterable[str]) -> None:
        names = self._database.execute("SELECT name FROM origins WHERE is_file ORDER BY name")
        gone = [n for (n,) in names if is_below(n, below) and not os.path.lexists(n)]
        if gone:
            self._report.removed.extend(writing.remove(self._database, gone).removed)


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a file's name lies below one of the folders; the empty one is the current folder."""
    inside = not name.startswith(("/", "../"))
    return any(name.startswith(prefix) if prefix else inside for prefix in prefixes)
