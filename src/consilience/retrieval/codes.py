"""Codes of one bit a direction: on which side of a few hundred planes a vector lies.

Vectors that point alike lie on the same sides (Charikar, 2002, "Similarity estimation techniques
from rounding algorithms"), and the number of planes that part two vectors is counted in a few
instructions. The planes are those of a Hadamard matrix with random signs: each looks at all
components alike, and there are more of them than components, as many as faiss counts fastest.
Nothing is trained, so the code of a vector never changes.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_FAST_WIDTHS = (4, 8, 16, 32, 64)  # bytes for which faiss has code of its own
_SEED = 1  # another seed, other codes: raise `vector_files.RECIPE` with it


def width_of(dimension: int) -> int:
    """The bytes of a code."""
    needed = -(-dimension // 8)
    return min((width for width in _FAST_WIDTHS if width >= needed), default=-(-needed // 8) * 8)


def codes_of(vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The codes of vectors, `[rows, dimension]` to `[rows, bytes]`."""
    rows = np.asarray(vectors, np.float32)
    return np.packbits(rows @ _planes(rows.shape[1], 8 * width_of(rows.shape[1])) > 0, axis=1)


@lru_cache(maxsize=8)
def _planes(dimension: int, count: int) -> NDArray[np.float32]:
    """Normals of planes, `[dimension, count]`, of 1 and -1.

    H[i, j] = (-1) ** (the number of bits that i and j share), its rows multiplied by random signs.
    """
    shared = np.bitwise_count(np.arange(dimension)[:, None] & np.arange(count)[None, :])
    flipped = np.random.PCG64(_SEED).random_raw(dimension) >> np.uint64(63)
    return np.where((shared + flipped[:, None]) % 2, -1, 1).astype(np.float32)
