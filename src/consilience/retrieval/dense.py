"""Dense retrieval: the inner product of the question's vector with the store's vectors.

The vectors are read from the store, which has them in the order of its commits, into memory when
the first question comes, and followed commit by commit from then on. There are no files of its own
to lose step or be damaged: reading 20,000 vectors costs less than loading an encoder.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from consilience.encoding import Encoder
from consilience.retrieval.ranking import EVERYTHING, Held, Ranking, Scope
from consilience.retrieval.vectors import VectorTable
from consilience.store import Changes, IndexRow, Store, require_fingerprint, visible


class DenseRanker:
    """A `Ranker` by an encoder. Threads may share it.

    Args:
        store: The store whose passages it ranks.
        encoder: The encoder of the store's vectors.

    Raises:
        FingerprintError: The store's vectors are another encoder's.
    """

    def __init__(self, store: Store, encoder: Encoder) -> None:
        require_fingerprint(store, encoder)
        self._store = store
        self._encoder = encoder
        self._lock = threading.Lock()
        self._rows = _ReadableVectors(encoder.dimension)
        self._sequence = 0

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The passages whose vectors are nearest to the question's, best first."""
        with self._lock:
            self._catch_up()
            if len(self._rows) == 0:
                return []
        chosen = None if scope.where is None else self._store.matching(scope.where)
        vector = self._encoder.encode_questions([question])[0]
        with self._lock:
            return self._rows.search(vector, depth=depth, held=scope.held, chosen=chosen)

    def _catch_up(self) -> None:
        if self._sequence == self._store.sequence:
            return
        with self._store.changes(self._sequence) as changes:
            require_fingerprint(self._store, self._encoder)
            if changes.sequence >= self._sequence:
                self._rows.follow(changes)
                self._sequence = changes.sequence
                return
        # The store was put back to an earlier state.
        self._rows, self._sequence = _ReadableVectors(self._encoder.dimension), 0
        self._catch_up()


class _ReadableVectors:
    """Vectors with what decides who may read their passages.

    Passages have few distinct sets of labels, so each set is judged once for a question and the
    rows are looked up.
    """

    def __init__(self, dimension: int) -> None:
        self._table = VectorTable(dimension)
        self._kinds: dict[tuple[str, ...], int] = {}
        self._kind_of: NDArray[np.int32] = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._table)

    def follow(self, changes: Changes) -> None:
        """Forget the rows that are gone and take the new ones in."""
        self._kind_of = self._kind_of[self._table.remove(changes.removed)]
        for batch in changes.added:
            self._table.add([row.number for row in batch], np.stack([row.vector for row in batch]))
            self._kind_of = np.concatenate([self._kind_of, self._kinds_of(batch)])

    def _kinds_of(self, batch: list[IndexRow]) -> NDArray[np.int32]:
        kinds = [self._kinds.setdefault(row.access, len(self._kinds)) for row in batch]
        return np.array(kinds, np.int32)

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        depth: int,
        held: Held,
        chosen: NDArray[np.int64] | None = None,
    ) -> Ranking:
        """The nearest rows that the reader may see, of the chosen numbers, with their scores."""
        mask = self._readable(held)
        if chosen is not None:
            among = np.isin(self._table.numbers, chosen)
            mask = among if mask is None else mask & among
        return self._table.search(vector, depth=depth, mask=mask)

    def _readable(self, held: Held) -> NDArray[np.bool_] | None:
        if held is None:
            return None
        kinds = np.array([visible(access, held) for access in self._kinds], np.bool_)
        return kinds[self._kind_of]
