"""Random vectors and files of them for tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilience.retrieval.vector_files import Extent, VectorWriter, read_extent

DIMENSION = 16
LABELS = [(), ("staff",), ("board", "staff")]


def unit(rng: np.random.Generator, rows: int, dimension: int = DIMENSION) -> NDArray[np.float16]:
    """Unit vectors, `[rows, dimension]`."""
    vectors = rng.normal(size=(rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halved: NDArray[np.float16] = vectors.astype(np.float16)
    return halved


def labels(numbers: list[int]) -> list[tuple[str, ...]]:
    """The access labels that `write` gives to rows."""
    return [LABELS[number % 3] for number in numbers]


def new_extent(dimension: int = DIMENSION, identity: str = "store") -> Extent:
    return Extent.new(identity=identity, fingerprint="encoder", dimension=dimension)


def write(
    folder: Path,
    numbers: list[int],
    vectors: NDArray[np.float16],
    *,
    removed: list[int] | None = None,
    identity: str = "store",
) -> Extent:
    """Write rows behind those of the folder, as the store's next commit."""
    known = read_extent(folder)
    extent = known or new_extent(vectors.shape[1], identity)
    with VectorWriter(folder, extent) as writer:
        writer.forget(removed or [])
        writer.take(numbers, vectors, labels(numbers))
        return writer.vouch(extent.sequence + 1)
