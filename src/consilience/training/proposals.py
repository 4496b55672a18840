"""The index inside a training run: which passages a question proposes, while the encoders move.

Vectors of all passages lie in memory and are compared exactly; texts stay in the store and are
fetched when a batch proposes them. Which vectors these are is named by the store's generation. It
knows no model: vectors of questions come in, places of passages go out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.store import Store
from consilience.training.examples import Example

BLOCK = 131_072
"""Vectors compared at once; bounds the memory of a search."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """What a batch of questions proposed.

    Attributes:
        places: Rows of the index, best first, `[b, k]`; -1 where there are fewer than `k`.
        vectors: Of these passages as the index has them, `[b, k, size]`, zero where there is none.
    """

    places: Tensor
    vectors: Tensor

    @property
    def present(self) -> Tensor:
        """True where there is a passage, `[b, k]`."""
        return self.places >= 0


class PassageIndex:
    """All passages of a store with their vectors.

    Args:
        store: Whose passages they are; it stays open as long as the index is used.

    Attributes:
        generation: The store's sequence that the vectors were read at.
        vectors: float32, `[passages, size]`.

    Raises:
        UsageError: The store is empty.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.generation = 0
        self.vectors = torch.empty(0)
        self._numbers: list[int] = []
        self._place_of: dict[str, int] = {}
        self.reload()

    def __len__(self) -> int:
        return len(self._numbers)

    def reload(self) -> None:
        """Read what the store holds now; places of passages that stayed are the same again.

        Raises:
            UsageError: The store is empty.
        """
        if not len(self._store):
            raise UsageError(
                f"the store {self._store.path} holds no passages", hint="consilience add PATH"
            )
        rows: list[tuple[str, int, NDArray[np.float16]]] = []
        with self._store.changes(0) as changes:
            self.generation = changes.sequence
            for batch in changes.added:
                found = self._store.passages([row.number for row in batch])
                rows += [
                    (found[row.number].id, row.number, row.vector)
                    for row in batch
                    if row.number in found
                ]
        # Passages get new numbers with new vectors; their names do not change.
        rows.sort(key=lambda row: row[:2])
        self._numbers = [number for _, number, _ in rows]
        self._place_of = {name: place for place, (name, _, _) in enumerate(rows)}
        vectors = np.stack([vector for _, _, vector in rows])
        self.vectors = torch.from_numpy(vectors.astype(np.float32))

    @property
    def names(self) -> list[str]:
        """The passages' names, by place."""
        return list(self._place_of)

    def place(self, passage_id: str) -> int | None:
        """The place of a passage by its name; None when the store does not hold it."""
        return self._place_of.get(passage_id)

    def right(self, example: Example) -> list[int]:
        """Places of the passages that are known to hold an example's answer; none may be there."""
        own = [] if example.passage is None else [example.passage.id]
        found = (self.place(name) for name in dict.fromkeys([*own, *example.positive_ids]))
        return [place for place in found if place is not None]

    def passages(self, places: Sequence[int]) -> list[Passage]:
        """Passages by place."""
        numbers = [self._numbers[place] for place in places]
        found = self._store.passages(list(dict.fromkeys(numbers)))
        return [found[number] for number in numbers]

    def propose(self, questions: Tensor, k: int) -> Proposals:
        """The `k` passages nearest to each question.

        Args:
            questions: Vectors, `[b, size]`.
            k: How many.

        Returns:
            Best first; equal scores go to the lower place.
        """
        asked = questions.detach().float().cpu()
        best = torch.full((len(asked), 0), 0.0)
        places = torch.zeros(len(asked), 0, dtype=torch.long)
        for start in range(0, len(self), BLOCK):
            scores = asked @ self.vectors[start : start + BLOCK].T
            here = torch.arange(start, start + scores.shape[1]).expand_as(scores)
            best, places = _merge(torch.cat([best, scores], 1), torch.cat([places, here], 1), k)
        return self.at(_padded(places, k))

    def at(self, places: Tensor) -> Proposals:
        """Proposals that were made elsewhere, `[b, k]` places, -1 for none."""
        vectors = self.vectors[places.clamp_min(0)]
        return Proposals(places, vectors * (places >= 0)[..., None])

    def replace(self, places: Tensor, vectors: Tensor) -> None:
        """Put newer vectors in the place of some, until the next `reload`.

        Args:
            places: `[n]`.
            vectors: `[n, size]`.
        """
        self.vectors[places] = vectors.detach().float().cpu()


def with_positives(places: Tensor, right: Sequence[Sequence[int]]) -> Tensor:
    """Proposals, each with a passage that holds the answer.

    Args:
        places: Of what was found, best first, `[b, k]`; -1 where there are fewer than `k`.
        right: Places of the passages that hold each answer, the best known first.

    Returns:
        The same where one of them was found or none is known; else the first of them stands in
        the first empty place, and where there is none in the last.

    Example:
        >>> with_positives(torch.tensor([[4, 2], [4, 2], [4, -1]]), [[7, 2], [7], [7]]).tolist()
        [[4, 2], [4, 7], [4, 7]]
    """
    rows = places.clone()
    for row, known in zip(rows, right, strict=True):
        if known and not set(known) & set(row.tolist()):
            empty = (row < 0).nonzero().flatten().tolist()
            row[empty[0] if empty else -1] = known[0]
    return rows


def _merge(scores: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best `k` columns of each row."""
    best, order = scores.topk(min(k, scores.shape[1]), dim=1)
    return best, places.gather(1, order)


def _padded(places: Tensor, k: int) -> Tensor:
    missing = k - places.shape[1]
    return torch.nn.functional.pad(places, (0, missing), value=-1) if missing > 0 else places
