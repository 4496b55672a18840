"""Dense retrieval: the inner product of the question's vector with the store's vectors.

Who may read what, and which documents are asked for, becomes a mask over the rows before anything
is compared, so that a hidden passage never takes a place. Masks are kept until the next commit:
the same reader asks again. Where the vectors lie and how they follow the store is `vector_index`'s
business, how they are searched that of `vectors`.
"""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilience.encoding import Encoder, QuestionVectors
from consilience.retrieval.ranking import EVERYTHING, Held, Ranking, Scope
from consilience.retrieval.tuning import Tuning
from consilience.retrieval.vector_files import VectorFiles, WornFilesError, rows_of
from consilience.retrieval.vector_index import FollowingVectors
from consilience.store import Store, require_fingerprint, visible

_MASKS = 8  # kept at a time

Mask = NDArray[np.bool_] | None


class DenseRanker:
    """A `Ranker` by an encoder. Threads may share it.

    Args:
        store: The store whose passages it ranks.
        encoder: The encoder of the store's vectors.
        tuning: How vectors are searched; None for the defaults.
        patience: Seconds to wait while another process changes the index.

    Raises:
        FingerprintError: The store's vectors are another encoder's.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        *,
        tuning: Tuning | None = None,
        patience: float = 5.0,
    ) -> None:
        require_fingerprint(store, encoder)
        self._store = store
        self._tuning = tuning or Tuning()
        self._lock = threading.Lock()
        self._vectors = FollowingVectors(
            store, encoder, index=self._tuning.index, patience=patience
        )
        self._masks: dict[Scope, Mask] = {}
        self._masked: tuple[str, int] = ("", 0)
        self._questions = QuestionVectors(encoder)

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The passages whose vectors are nearest to the question's, best first."""
        with self._lock:
            if not self._vectors.table().files.live.any():
                return []
        chosen, sequence = None, 0
        if scope.where is not None:
            sequence = self._store.sequence
            chosen = self._store.matching(scope.where)
        wanted = _Wanted(self._questions.of(question), depth, scope, chosen, sequence)
        with self._lock:
            try:
                return self._searched(wanted)
            except WornFilesError:
                self._vectors.discard()
                return self._searched(wanted)

    def _searched(self, wanted: "_Wanted") -> Ranking:
        table = self._vectors.table()
        mask = self._mask(table.files, wanted)
        candidates = self._tuning.candidates
        return table.search(wanted.vector, depth=wanted.depth, candidates=candidates, mask=mask)

    def _mask(self, files: VectorFiles, wanted: "_Wanted") -> Mask:
        """Which rows may be found, `[rows]`; None for all."""
        state = (files.extent.token, files.extent.sequence)
        if self._masked != state or len(self._masks) > _MASKS:
            self._masked, self._masks = state, {}
        if wanted.scope in self._masks:
            return self._masks[wanted.scope]
        mask = _mask(files, wanted)
        # What was chosen before these vectors were committed lacks those that came between.
        if wanted.chosen is None or wanted.sequence >= files.extent.sequence:
            self._masks[wanted.scope] = mask
        return mask


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A question on its way to the vectors.

    Attributes:
        vector: Of the question, `[dimension]`.
        depth: How many rows are asked for.
        scope: Among which passages.
        chosen: The numbers that the scope's filter lets through, ascending; None for all.
        sequence: A commit of which, or of a later one, they are.
    """

    vector: NDArray[np.float32]
    depth: int
    scope: Scope
    chosen: NDArray[np.int64] | None
    sequence: int


def _mask(files: VectorFiles, wanted: _Wanted) -> Mask:
    readable = _readable(files, wanted.scope.held)
    if wanted.chosen is None:
        return readable
    among = np.zeros(len(files), np.bool_)
    among[rows_of(files.numbers, wanted.chosen)] = True
    return among if readable is None else readable & among


def _readable(files: VectorFiles, held: Held) -> Mask:
    """Passages have few distinct sets of labels, so each set is judged once."""
    if held is None:
        return None
    kinds = np.array([visible(access, held) for access in files.extent.kinds], np.bool_)
    readable: NDArray[np.bool_] = kinds[files.kind_of]
    return None if kinds.all() else readable
