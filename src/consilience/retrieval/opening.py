"""From a store and the name of a mode to a retriever.

Engines are imported when their mode is opened: BM25 loads neither faiss nor an encoder.
"""

from typing import Literal, get_args

from consilience.encoding import Encoder
from consilience.errors import UsageError
from consilience.retrieval.base import Retriever
from consilience.retrieval.hybrid import HybridRanker, HybridWeights
from consilience.retrieval.ranking import PassageRetriever, Ranker
from consilience.store import Store

Mode = Literal["bm25", "dense", "hybrid"]


def open_retriever(
    store: Store,
    *,
    mode: Mode = "hybrid",
    encoder: Encoder | None = None,
    weights: HybridWeights | None = None,
) -> Retriever:
    """A retriever over a store, which it follows from commit to commit.

    Args:
        store: Whose passages are ranked. It must stay open as long as the retriever is used.
        mode: `bm25` by words, `dense` by vectors, `hybrid` by both.
        encoder: The encoder of the store's vectors; not needed for `bm25`.
        weights: How `hybrid` trusts its halves; None for the defaults.

    Raises:
        UsageError: An unknown mode, or no encoder where one is needed.
        FingerprintError: The store's vectors are another encoder's.
    """
    return PassageRetriever(store, _ranker(store, mode, encoder, weights or HybridWeights()))


def _ranker(store: Store, mode: Mode, encoder: Encoder | None, weights: HybridWeights) -> Ranker:
    if mode == "bm25":
        return _lexical(store)
    if mode == "dense":
        return _dense(store, _required(encoder, mode))
    if mode == "hybrid":
        return HybridRanker(_lexical(store), _dense(store, _required(encoder, mode)), weights)
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


def _lexical(store: Store) -> Ranker:
    from consilience.retrieval.lexical import LexicalRanker

    return LexicalRanker(store)


def _dense(store: Store, encoder: Encoder) -> Ranker:
    from consilience.retrieval.dense import DenseRanker

    return DenseRanker(store, encoder)
