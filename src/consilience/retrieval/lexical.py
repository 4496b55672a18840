"""BM25 over the store's passages, on tantivy fed with this package's own tokens.

Titles are indexed as the beginning of their passages' text, which measured better than leaving
them out. Scores are BM25 with k1 = 1.2 and b = 0.75, which tantivy fixes; removed passages count in
its statistics until it merges them away. Keeping in step with the store is `following`'s business.
"""

from collections import Counter

import tantivy

from consilience.retrieval.following import SCHEMA, FollowingIndex, access_terms
from consilience.retrieval.ranking import EVERYTHING, Ranking, Scope
from consilience.store import Store
from consilience.text import analyze_question


class LexicalRanker:
    """A `Ranker` by BM25. Threads may share it.

    Args:
        store: The store whose passages it ranks.
        patience: Seconds to wait while another process changes the index.
    """

    def __init__(self, store: Store, *, patience: float = 5.0) -> None:
        self._store = store
        self._index = FollowingIndex(store, patience=patience)

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The passages that share tokens with the question, best first."""
        searcher = self._index.searcher()
        tokens = analyze_question(question)
        if not tokens:
            return []
        # Counting all matches would keep tantivy from skipping those that cannot win.
        hits = searcher.search(self._query(tokens, scope), limit=depth, count=False).hits
        numbers = searcher.fast_field_values("number", [address for _, address in hits])
        ranking = [(int(n or 0), float(s)) for n, (s, _) in zip(numbers, hits, strict=True)]
        return sorted(ranking, key=lambda ranked: (-ranked[1], ranked[0]))

    def _query(self, tokens: list[str], scope: Scope) -> tantivy.Query:
        terms = [_term(token, count) for token, count in Counter(tokens).items()]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, term) for term in terms])
        filters = []
        if scope.held is not None:
            filters.append(("access", access_terms(scope.held)))
        if scope.where is not None:
            filters.append(("number", self._store.matching(scope.where).tolist()))
        # A constant score of 0, since a filter must not change the ranking.
        required = [
            tantivy.Query.const_score_query(tantivy.Query.term_set_query(SCHEMA, *named), 0.0)
            for named in filters
        ]
        must = [(tantivy.Occur.Must, one) for one in (query, *required)]
        return tantivy.Query.boolean_query(must) if filters else query


def _term(token: str, count: int) -> tantivy.Query:
    query = tantivy.Query.term_query(SCHEMA, "tokens", token, "freq")
    return query if count == 1 else tantivy.Query.boost_query(query, float(count))
