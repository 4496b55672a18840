"""The protocol of a retriever and what it returns: passages with scores, best first."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from consilience.documents import Passage
from consilience.store import Where


@dataclass(frozen=True, slots=True)
class Hit:
    """One proposed passage.

    Attributes:
        passage: The passage, read from the store's committed state.
        score: The retriever's score, higher is better; the scale is the retriever's own.
    """

    passage: Passage
    score: float


class Retriever(Protocol):
    """Proposes the few passages whose prior p(d | x) is worth summing."""

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` best passages for `question`, best first, fewer where there are fewer.

        Args:
            question: What is asked; must hold at least one visible character.
            k: How many passages at most, at least 1.
            access: The labels that the reader holds. None means the owner, who reads everything;
                otherwise a passage is proposed only when it has no label or shares one. The
                filter is part of the search: a hidden passage never takes a place among the `k`.
            where: The documents that are searched; None for all. It too is part of the search.

        Raises:
            UsageError: An empty question, `k` below 1, or a filter on a field that is not there.
        """
        ...
