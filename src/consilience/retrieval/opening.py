"""From a store and the name of a mode to a retriever.

Engines are imported when their mode is opened: BM25 loads neither faiss nor an encoder.
"""

from typing import TYPE_CHECKING, Literal, get_args

from consilience.encoding import Encoder
from consilience.errors import UsageError
from consilience.retrieval.base import Retriever
from consilience.retrieval.graph import LinkedRanker
from consilience.retrieval.hybrid import HybridRanker, HybridWeights
from consilience.retrieval.ranking import PassageRetriever, Ranker
from consilience.retrieval.tuning import Tuning
from consilience.store import Store

if TYPE_CHECKING:
    from consilience.retrieval.engines import Copy

Mode = Literal["bm25", "dense", "hybrid"]


def open_retriever(
    store: "Store | Copy",
    *,
    mode: Mode = "hybrid",
    encoder: Encoder | None = None,
    weights: HybridWeights | None = None,
    tuning: Tuning | None = None,
) -> Retriever:
    """A retriever over a store, which it follows from commit to commit.

    Args:
        store: Whose passages are ranked, or a published copy of one, which is searched as it was
            published. It must stay open as long as the retriever is used.
        mode: `bm25` by words, `dense` by vectors, `hybrid` by both. Where the store holds documents
            from knowledge graphs, names in the question add to each (see `graph`).
        encoder: The encoder of the store's vectors; not needed for `bm25`.
        weights: How `hybrid` trusts its halves where that was not measured on this store; None for
            the defaults.
        tuning: How it is searched; None for what the store keeps, as it is now.

    Raises:
        UsageError: An unknown mode, no encoder where one is needed, or numbers in the store that
            this version does not know.
        FingerprintError: The store's vectors are another encoder's.
    """
    if not isinstance(store, Store):
        return store.retriever(mode, encoder=encoder, weights=weights)
    tuning = tuning or Tuning.of(store)
    ranker = _ranker(store, mode, encoder, weights, tuning)
    return PassageRetriever(store, LinkedRanker(store, ranker))


def _ranker(
    store: Store,
    mode: Mode,
    encoder: Encoder | None,
    weights: HybridWeights | None,
    tuning: Tuning,
) -> Ranker:
    if mode == "bm25":
        return lexical_ranker(store, tuning)
    if mode == "dense":
        return dense_ranker(store, _required(encoder, mode), tuning)
    if mode == "hybrid":
        return HybridRanker(
            lexical_ranker(store, tuning),
            dense_ranker(store, _required(encoder, mode), tuning),
            tuning.weights(weights or HybridWeights()),
        )
    raise UsageError(
        f"there is no retrieval mode {mode!r}", hint=f"One of: {', '.join(get_args(Mode))}."
    )


def _required(encoder: Encoder | None, mode: Mode) -> Encoder:
    if encoder is None:
        raise UsageError(
            f"the mode {mode} needs an encoder, received None",
            hint="Pass encoder=consilience.encoding.load_encoder(), or take the mode bm25.",
        )
    return encoder


def lexical_ranker(store: Store, tuning: Tuning) -> Ranker:
    """The half that ranks by words."""
    from consilience.retrieval.lexical import LexicalRanker

    return LexicalRanker(store, tuning=tuning)


def dense_ranker(store: Store, encoder: Encoder, tuning: Tuning) -> Ranker:
    """The half that ranks by vectors."""
    from consilience.retrieval.dense import DenseRanker

    return DenseRanker(store, encoder, tuning=tuning)
