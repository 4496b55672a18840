"""The protocol of an encoder: text in, unit vectors out, with a fingerprint that names it.

Stores keep the fingerprint beside the vectors, so vectors of two encoders never meet.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Unit vectors, float32, `[texts, dimension]`."""


class Encoder(Protocol):
    """Turns questions and passages into vectors whose inner product is their similarity."""

    @property
    def fingerprint(self) -> str:
        """A name that changes whenever the vectors would: a digest of weights and settings."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """Vectors of passages, `[len(passages), dimension]`, each of length one."""
        ...

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """Vectors of questions, `[len(questions), dimension]`, each of length one."""
        ...
