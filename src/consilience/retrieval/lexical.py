"""BM25 over the store's passages, by this package's own tokens and its own inverted index.

k1, b and what a title is worth are the tuning's, and none of them is in the index: other numbers
need no other files. Keeping in step with the store is `following`'s business, scoring `scoring`'s.
"""

from collections import Counter

from consilience.retrieval.following import FollowingIndex
from consilience.retrieval.ranking import EVERYTHING, Ranking, Scope
from consilience.retrieval.scoring import Bm25, Collection
from consilience.retrieval.tuning import Tuning
from consilience.store import Store
from consilience.text import analyze_question


class LexicalRanker:
    """A `Ranker` by BM25. Threads may share it.

    Args:
        store: The store whose passages it ranks.
        tuning: The numbers of the formula; None for those that the store keeps.
        patience: Seconds to wait while another process changes the index.

    Raises:
        UsageError: The store keeps numbers that this version does not know.
    """

    def __init__(
        self, store: Store, *, tuning: Tuning | None = None, patience: float = 5.0
    ) -> None:
        self._store = store
        self._tuning = tuning or Tuning.of(store)
        self._index = FollowingIndex(store, patience=patience)
        self._scorer: tuple[Collection, Bm25] | None = None

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The passages that share tokens with the question, best first."""
        scorer = self._scorer_of(self._index.collection())
        terms = Counter(analyze_question(question))
        chosen = None if scope.where is None else self._store.matching(scope.where)
        return scorer.search(terms, depth=depth, held=scope.held, chosen=chosen)

    def _scorer_of(self, collection: Collection) -> Bm25:
        """What scores this state of the index; made anew when the index has moved on."""
        scorer = self._scorer
        if scorer is None or scorer[0] is not collection:
            scorer = self._scorer = (collection, Bm25(collection, self._tuning))
        return scorer[1]
