"""The protocol of an encoder: text in, unit vectors out, with a fingerprint that names it.

Stores keep the fingerprint beside the vectors, so vectors of two encoders never meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

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


Side = Literal["questions", "passages"]
"""What a text is to the encoder; the two may have layers of their own."""


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """One text, token by token.

    Attributes:
        words: Of each token, as the vocabulary has it; empty for tokens that stand for no text.
        vectors: States of the last layer, float32, `[tokens, dimension]`, of any length.
    """

    words: list[str]
    vectors: NDArray[np.float32]


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that also tells what it makes of each token."""

    def token_vectors(self, texts: Sequence[str], *, side: Side) -> list[TokenVectors]:
        """The tokens of each text; text past the window is not read."""
        ...
