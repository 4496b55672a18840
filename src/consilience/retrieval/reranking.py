"""A second look at the first candidates, by something dearer and better than what found them.

A reranker scores passages for a question and knows nothing else. `Reranked` is the retriever that
asks it. Which rerankers there are stands in the closed table `RERANKERS`; a name is looked up there
and nowhere else. Packages and models are loaded when their reranker is opened.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.encoding import Encoder
from consilience.errors import UsageError
from consilience.retrieval.base import Hit, Retriever
from consilience.retrieval.diversity import scaled
from consilience.store import Where
from consilience.store.embedding import embedding_text

DEPTH = 10
"""How many candidates are looked at again, at least."""

SHARE = 0.7
"""The weight of the reranker beside what found the candidates."""

Scores = NDArray[np.float32]
"""One number a passage, higher is better, `[passages]`; the scale is the reranker's own."""


class Reranker(Protocol):
    """Says how well passages fit a question. Threads may share it."""

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        """A score for each passage, `[len(passages)]`."""
        ...


class Reranked:
    """A retriever whose first candidates are put into a better order.

    Both scores are brought to 0 … 1 over the candidates and added, so that what found a passage
    still counts; the sum is the hit's score.

    Args:
        retriever: Finds the candidates.
        reranker: Looks at them again.
        depth: How many; `k` where that is more.
        share: The weight of the reranker, from 0 to 1; 1 for its order alone.

    Raises:
        UsageError: A depth below 1, or a share outside of 0 and 1.
    """

    def __init__(
        self, retriever: Retriever, reranker: Reranker, *, depth: int = DEPTH, share: float = SHARE
    ) -> None:
        if depth < 1 or not 0 <= share <= 1:
            raise UsageError(
                f"depth must be 1 or more and share lie between 0 and 1, received {depth} "
                f"and {share}",
                hint="leave both out",
            )
        self._retriever, self._reranker = retriever, reranker
        self._depth, self._share = depth, share

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` best after the second look; see `Retriever.search`."""
        depth = k if k < 1 else max(k, self._depth)
        hits = self._retriever.search(question, k=depth, access=access, where=where)
        if not hits:
            return []
        question = question.encode(errors="replace").decode()  # terminals hand on half characters
        found = scores_of(self._reranker, question, [hit.passage for hit in hits])
        before = scaled(np.array([hit.score for hit in hits]))
        fused = (1 - self._share) * before + self._share * scaled(found.astype(np.float64))
        order = np.argsort(-fused, kind="stable")[:k]
        return [Hit(hits[place].passage, float(fused[place])) for place in order]


def scores_of(reranker: Reranker, question: str, passages: Sequence[Passage]) -> Scores:
    """The scores of a reranker, checked.

    Raises:
        UsageError: The reranker broke its protocol: shape or values.
    """
    found = np.asarray(reranker.score(question, passages), np.float32)
    if found.shape != (len(passages),) or not np.isfinite(found).all():
        raise UsageError(
            f"the reranker returned shape {found.shape} or scores that are not finite for "
            f"{len(passages)} passages",
            hint="a reranker gives one finite number a passage",
        )
    return found


class Prior:
    """The score that the sum's own prior has, `<q(x), d>`, from vectors made anew.

    The passages are embedded with the encoder as it is now, whatever vectors the store keeps. Use
    it with passages found by words, where a store has vectors of another encoder or of none; over
    a dense ranking of the same encoder it repeats what is known.

    Args:
        encoder: Of questions and passages.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        """Inner products, `[passages]`."""
        texts = [embedding_text(passage.title, passage.text) for passage in passages]
        found: Scores = (
            self._encoder.encode_passages(texts) @ self._encoder.encode_questions([question])[0]
        )
        return found


def open_reranker(name: str, *, encoder: Encoder | None = None) -> Reranker:
    """A reranker by its name.

    Args:
        name: `maxsim` and `prior` use the encoder of the model; `cross-encoder:MODEL` and
            `multi-vector:MODEL` a folder that sentence-transformers wrote, or a model of the hub.
        encoder: Of the model; not needed where a model is named.

    Raises:
        UsageError: An unknown name, a model where none belongs or none where one does, or no
            encoder where one is needed.
        MissingError: There is no such model.
        DamagedError: The model names code or keeps its weights as code.
        DependencyError: sentence-transformers is not installed.
    """
    kind, colon, model = name.partition(":")
    if kind in _OF_MODELS and model:
        return _OF_MODELS[kind](model)
    if kind in _OF_ENCODERS and not colon:
        return _OF_ENCODERS[kind](_required(encoder, name))
    raise UsageError(
        f"there is no reranker {name!r}",
        hint=f"One of: {', '.join([*_OF_ENCODERS, *(f'{kind}:MODEL' for kind in _OF_MODELS)])}.",
    )


def needs_encoder(name: str | None) -> bool:
    """Whether a reranker is made from the model's encoder."""
    return name in _OF_ENCODERS


def _required(encoder: Encoder | None, name: str) -> Encoder:
    if encoder is None:
        raise UsageError(
            f"the reranker {name} needs an encoder, and this model has none",
            hint="take a model with an encoder, or cross-encoder:MODEL",
        )
    return encoder


def _maxsim(encoder: Encoder) -> Reranker:
    from consilience.retrieval.late_interaction import MaxSim, token_encoder

    return MaxSim(token_encoder(encoder))


def _cross_encoder(model: str) -> Reranker:
    from consilience.retrieval.sentence_models import CrossEncoded

    return CrossEncoded.load(model)


def _multi_vector(model: str) -> Reranker:
    from consilience.retrieval.sentence_models import MultiVectored

    return MultiVectored.load(model)


_OF_ENCODERS: Mapping[str, Callable[[Encoder], Reranker]] = {"maxsim": _maxsim, "prior": Prior}
_OF_MODELS: Mapping[str, Callable[[str], Reranker]] = {
    "cross-encoder": _cross_encoder,
    "multi-vector": _multi_vector,
}
"""The closed table of rerankers, by what they are made from."""
