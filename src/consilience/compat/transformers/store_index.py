"""A store as an index: its passages, embedded for a question encoder of transformers.

A store's own vectors are another encoder's and all of length one, while inner products of DPR are
trained as they are. So passages are embedded here when they come and forgotten when they go: what
was removed from the store is not found again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from consilience.compat.transformers.indexes import Numbers, Vectors, nearest
from consilience.errors import MissingError
from consilience.store import IndexRow, Store, visible

Embed = Callable[[Sequence[str], Sequence[str]], Vectors]
"""Titles and texts to vectors, `[n, d]`, of the question encoder's space."""


def passage_embedder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Embed:
    """A passage encoder of transformers, such as `DPRContextEncoder`, as what a store needs.

    Args:
        model: Whose pooled output is the vector.
        tokenizer: Its tokenizer; titles and texts are read as pairs.
    """

    @torch.inference_mode()
    def embed(titles: Sequence[str], texts: Sequence[str]) -> Vectors:
        rows = tokenizer(
            list(titles), list(texts), truncation=True, padding="longest", return_tensors="pt"
        )
        found: Vectors = model(**rows.to(model.device)).pooler_output.float().cpu().numpy()
        return found

    return embed


@dataclass(slots=True)
class StoreIndex:
    """The passages of a store, followed commit by commit.

    Attributes:
        store: Must stay open as long as the index is used.
        embed: Titles and texts to vectors of the question encoder's space.
        access: The labels that the reader holds; None reads everything.
    """

    store: Store
    embed: Embed
    access: Collection[str] | None = None
    _sequence: int = field(default=0, init=False)
    _numbers: Numbers = field(default_factory=lambda: np.empty(0, np.int64), init=False)
    _vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32), init=False)

    def get_top_docs(
        self, question_hidden_states: Vectors, n_docs: int = 5
    ) -> tuple[Numbers, Vectors]:
        """As `Index`; numbers are the store's."""
        self._catch_up()
        if len(self._numbers) == 0:
            raise MissingError(
                f"the store {self.store.path} has no passage to retrieve",
                hint='add documents first: consilience add "…"',
            )
        places, vectors = nearest(question_hidden_states, self._vectors, n_docs)
        return np.where(places < 0, -1, self._numbers[places]), vectors

    def get_doc_dicts(self, doc_ids: Numbers) -> list[dict[str, Any]]:
        """As `Index`; where there is no passage, title and text are empty."""
        found = self.store.passages(np.unique(doc_ids).tolist())
        return [
            {
                "title": [found[i].title if i in found else "" for i in row],
                "text": [found[i].text if i in found else "" for i in row],
            }
            for row in doc_ids.tolist()
        ]

    def _catch_up(self) -> None:
        if self._sequence == self.store.sequence:
            return
        with self.store.changes(self._sequence) as changes:
            if changes.sequence >= self._sequence:
                self._forget(changes.removed)
                for batch in changes.added:
                    self._take_in([row for row in batch if visible(row.access, self.access)])
                self._sequence = changes.sequence
                return
        # The store was put back to an earlier state.
        self._sequence = 0
        self._forget(self._numbers.tolist())
        self._catch_up()

    def _forget(self, numbers: Sequence[int]) -> None:
        stay = ~np.isin(self._numbers, np.asarray(numbers, np.int64))
        self._numbers, self._vectors = self._numbers[stay], self._vectors[stay]

    def _take_in(self, rows: Sequence[IndexRow]) -> None:
        if not rows:
            return
        new = self.embed([row.title for row in rows], [row.text for row in rows])
        self._numbers = np.append(self._numbers, np.array([row.number for row in rows], np.int64))
        held = self._vectors if len(self._vectors) else new[:0]
        self._vectors = np.concatenate([held, new]).astype(np.float32)
