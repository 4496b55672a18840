"""What may be done to a ranking after it is made, as one value, and the retriever that does it.

First candidates are put into a better order, then contributors are capped, then passages that say
the same are passed over; each step works on what the one before lets through.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consilience.encoding import Encoder
from consilience.retrieval.base import Retriever
from consilience.store import Store

if TYPE_CHECKING:
    from consilience.retrieval.engines import Copy


@dataclass(frozen=True, slots=True)
class Refinement:
    """What is done to a ranking; nothing by default.

    Attributes:
        rerank: The name of a reranker, see `reranking.open_reranker`.
        per_contributor: At most so many passages of each contributor.
        diversity: How much likeness to passages already taken counts against one, 0 to 1.
    """

    rerank: str | None = None
    per_contributor: int | None = None
    diversity: float | None = None


AS_FOUND = Refinement()
"""The ranking stays as it is."""


def refined(
    retriever: Retriever, how: Refinement, *, store: "Store | Copy", encoder: Encoder | None = None
) -> Retriever:
    """A retriever that refines what another finds.

    Args:
        retriever: Finds.
        how: What is done.
        store: Whose passages are found; it keeps their vectors.
        encoder: Of the model, for the rerankers that use it.

    Raises:
        UsageError: A reranker that does not exist or lacks its encoder, or a number out of bounds.
        MissingError, DamagedError, DependencyError: As `reranking.open_reranker`.
    """
    if how.rerank is not None:
        from consilience.retrieval.reranking import Reranked, open_reranker

        retriever = Reranked(retriever, open_reranker(how.rerank, encoder=encoder))
    if how.per_contributor is not None:
        from consilience.retrieval.diversity import CappedByContributor

        retriever = CappedByContributor(retriever, how.per_contributor)
    if how.diversity is not None:
        from consilience.retrieval.diversity import Diverse

        retriever = Diverse(retriever, store, how.diversity)
    return retriever
