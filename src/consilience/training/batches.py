"""Which examples stand in a batch together: shuffled, of like length, and the same on every resume.

The order depends on the seed and the epoch alone, so a run that was killed finds its place again by
counting. Lengths are bucketed because a batch costs what its longest row costs.
"""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


class LengthBuckets(Sampler[list[int]]):
    """Batches of indices for `DataLoader(batch_sampler=...)`.

    Examples are shuffled, cut into pools of `pool` batches, and sorted by length inside each pool;
    the batches are then shuffled again. A pool of one batch is a plain shuffle.

    Args:
        lengths: Of every example, in tokens.
        size: Examples in a batch.
        seed: Of the shuffles.
        pool: Batches in a pool.
        weights: How often an example is drawn in an epoch relative to the others; None is once
            each. With weights an epoch has as many draws as there are examples.

    Attributes:
        epoch: Which epoch the next iteration is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        size: int,
        seed: int,
        pool: int = 50,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.lengths, self.size, self.seed, self.pool = lengths, size, seed, pool
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.lengths) // self.size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        draw = random.Random(f"{self.seed}:{self.epoch}")
        order = self._order(draw)
        batches = []
        for start in range(0, len(order), self.size * self.pool):
            pool = sorted(order[start : start + self.size * self.pool], key=self._length)
            batches += [pool[i : i + self.size] for i in range(0, len(pool), self.size)]
        draw.shuffle(batches)
        return iter(batches)

    def _length(self, index: int) -> int:
        return self.lengths[index]

    def _order(self, draw: random.Random) -> list[int]:
        everything = range(len(self.lengths))
        if self.weights is None:
            return draw.sample(everything, len(everything))
        return draw.choices(everything, weights=self.weights, k=len(everything))


def mixture_weights(sizes: Sequence[int], *, temperature: float) -> list[float]:
    """How often an example of each set is drawn, so that sets are drawn as size^(1/temperature).

    At temperature 1 every example counts the same; towards infinity every set does.

    Source: Arivazhagan et al., 2019, "Massively Multilingual Neural Machine Translation in the
    Wild", section 4.2.

    Args:
        sizes: Examples in each set, at least one each.
        temperature: At least 1.

    Returns:
        The weight of one example of each set, `[len(sizes)]`.
    """
    shares = [size ** (1.0 / temperature) for size in sizes]
    total = sum(shares)
    return [share / total / size for share, size in zip(shares, sizes, strict=True)]
