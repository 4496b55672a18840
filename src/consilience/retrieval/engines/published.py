"""Publishing: bringing the copy in an engine up to a store's commit, and whether to believe one.

A copy is followed like every index: from the commit it has reached to the store's own, as one
snapshot of the store has it. It is made anew where the recipe or the encoder has changed, where the
store was put back to an earlier state, and where whoever publishes says so. Nobody is asked to
trust a copy that is another store's or another encoder's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from consilience.encoding import Encoder
from consilience.errors import BusyError, DamagedError, FingerprintError, UsageError, VersionError
from consilience.retrieval.engines.base import (
    FORMAT,
    Delta,
    Engine,
    Entry,
    MovedError,
    Published,
    typed,
)
from consilience.retrieval.tuning import Tuning
from consilience.store import Changes, IndexRow, Record, Store
from consilience.text import analyze

_ATTEMPTS = 5
"""How often a publisher begins again when another one was faster."""

_ENTRIES = 256
"""Entries that are handed over at a time; texts and vectors together fit any server's limits."""

Heard = Callable[[int, int], None]
"""Told how many passages have been handed over, of how many."""


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of a copy.

    Attributes:
        engine: Its address, without password.
        generation: The store's commit that it now is.
        passages: How many passages it has.
        added: How many of them came.
        removed: How many went.
    """

    engine: str
    generation: int
    passages: int
    added: int
    removed: int


class Publisher:
    """Keeps the copy of one store in one engine.

    Args:
        store: What is published.
        engine: Where to.
        replace: Whether the copy is made anew, whatever is under its name.
        heard: Told how far it is.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        *,
        replace: bool = False,
        heard: Heard = lambda _done, _total: None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._replace = replace
        self._heard = heard

    def catch_up(self) -> PublishReport:
        """Bring the copy up to the store's commit; nothing is done where it is there already.

        Raises:
            UsageError: The copy is another store's.
            VersionError: A newer version of this package made the copy.
            BusyError: Others keep publishing.
            RemoteError: The engine fails or refuses; doing it again goes on from what there is.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._once()
            except MovedError:
                continue
        raise BusyError(
            f"others keep publishing to {self._engine.shown}", hint="Publish again in a moment."
        )

    def _once(self) -> PublishReport:
        before = None if self._replace else self._engine.state()
        tuning = Tuning.of(self._store)
        whole = self._is_anew(before, tuning)
        since = 0 if whole or before is None else before.sequence
        with self._store.changes(since) as changes:
            encoder = "" if before is None or whole else before.fingerprint
            if changes.sequence < since or encoder not in ("", changes.fingerprint):
                raise MovedError(f"the store moved while it was published to {self._engine.shown}")
            step = _Step(self._store, before, whole, changes, tuning, self._heard)
            if whole or step.moves:
                self._engine.publish(step.delta(self._engine.recipe(tuning)))
            return step.report(self._engine.shown)

    def _is_anew(self, before: Published | None, tuning: Tuning) -> bool:
        if before is None:
            return True
        require_format(before, self._engine.shown)
        self._require_ours(before)
        if before.steps >= self._engine.most_steps:
            return True
        if before.format != FORMAT or before.recipe != self._engine.recipe(tuning):
            return True
        return (
            before.fingerprint != self._store.fingerprint or before.sequence > self._store.sequence
        )

    def _require_ours(self, before: Published) -> None:
        if before.identity != self._store.identity:
            shown, folder = self._engine.shown, self._store.path
            raise UsageError(
                f"{shown} holds a copy of another store than the one at {folder}",
                hint="name another copy at the end of the URL: ?copy=NAME; or replace that one: "
                f"consilience publish {typed(shown)} --store {folder} --replace",
            )


@dataclass(slots=True)
class _Step:
    """One way from the state of a copy to that of a snapshot of the store."""

    store: Store
    before: Published | None
    whole: bool
    changes: Changes
    tuning: Tuning
    heard: Heard
    keys: set[str] = field(default_factory=set)

    @property
    def moves(self) -> bool:
        """Whether the copy is not there already."""
        kept = self.before
        there = kept and (kept.sequence, kept.tuning) == (
            self.changes.sequence,
            self.tuning.to_dict(),
        )
        return not there

    def delta(self, recipe: str) -> Delta:
        """The change for an engine of this recipe."""
        gone = zip(self.changes.removed, self.changes.died, strict=True)
        return Delta(
            before=self.before,
            whole=self.whole,
            dimension=self.changes.dimension,
            tuning=self.tuning,
            removed={} if self.whole else dict(gone),
            added=self._entries(),
            average=lambda: _average(self.store),
            reached=lambda: self._reached(recipe),
        )

    def report(self, shown: str) -> PublishReport:
        """What was done, once it was."""
        removed = 0 if self.whole else len(self.changes.removed)
        return PublishReport(
            shown, self.changes.sequence, self._passages, self.changes.rows, removed
        )

    @property
    def _passages(self) -> int:
        kept = 0 if self.whole or self.before is None else self.before.passages
        return kept - (0 if self.whole else len(self.changes.removed)) + self.changes.rows

    def _reached(self, recipe: str) -> Published:
        keys = () if self.whole or self.before is None else self.before.keys
        return Published(
            identity=self.store.identity,
            sequence=self.changes.sequence,
            fingerprint=self.changes.fingerprint,
            dimension=self.changes.dimension,
            passages=self._passages,
            steps=0 if self.whole or self.before is None else self.before.steps + 1,
            recipe=recipe,
            keys=tuple(sorted({*keys, *self.keys})),
            tuning=self.tuning.to_dict(),
        )

    def _entries(self) -> Iterator[list[Entry]]:
        done = 0
        for batch in self.changes.added:
            records = self.changes.records([row.number for row in batch])
            for start in range(0, len(batch), _ENTRIES):
                rows = batch[start : start + _ENTRIES]
                entries = [_entry(row, records[row.number], self.changes.dimension) for row in rows]
                self.keys.update(key for one in entries for key in one.record.metadata)
                yield entries
                done += len(rows)
                self.heard(done, self.changes.rows)


def _average(store: Store) -> tuple[float, float]:
    """The average numbers of tokens of titles and of texts, 0 where there are no passages."""
    titles = texts = 0
    with store.changes(0) as changes:
        for row in chain.from_iterable(changes.added):
            titles += len(analyze(row.title))
            texts += len(analyze(row.text))
        rows = max(1, changes.rows)
    return titles / rows, texts / rows


def _entry(row: IndexRow, record: Record, dimension: int) -> Entry:
    if row.vector.shape != (dimension,) or not np.isfinite(row.vector).all():
        raise DamagedError(
            f"the vector of passage {record.passage.id} is not {dimension} finite numbers",
            hint="consilience doctor",
        )
    return Entry(row.number, record, row.vector)


def require_format(state: Published, shown: str) -> None:
    """Refuse a copy of a shape that is yet to come.

    Raises:
        VersionError: A newer version of this package made it.
    """
    if state.format > FORMAT:
        raise VersionError(
            f"{shown} holds a copy of format {state.format}, this version knows {FORMAT}",
            hint="pip install --upgrade consilience",
        )


def require_readable(state: Published, recipe: str, shown: str) -> None:
    """Refuse a copy that this version would read wrongly.

    Raises:
        VersionError: A newer version made it, or an older one whose recipe was another.
    """
    require_format(state, shown)
    if (state.format, state.recipe) != (FORMAT, recipe):
        raise VersionError(
            f"{shown} holds a copy that another version of this package made",
            hint=f"consilience publish {typed(shown)} makes it anew",
        )


def require_encoder(state: Published, encoder: Encoder, shown: str) -> None:
    """Refuse an encoder whose vectors cannot be compared with those of a copy.

    Raises:
        FingerprintError: The copy's vectors are another encoder's.
    """
    if state.fingerprint and state.fingerprint != encoder.fingerprint:
        raise FingerprintError(
            f"the vectors in {shown} are from encoder {state.fingerprint[:16]}, received encoder "
            f"{encoder.fingerprint[:16]}",
            hint=f"consilience add --re-embed, and then: consilience publish {typed(shown)}",
        )
