"""Encoders for tests: deterministic, instant, and near for texts that share character trigrams."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from consilience.encoding import Vectors


@dataclass
class TrigramEncoder:
    """Counts of hashed character trigrams as a unit vector; remembers the questions it saw."""

    fingerprint: str = "trigrams-0001"
    dimension: int = 64
    questions: list[str] = field(default_factory=list)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        return np.stack([self._vector(text) for text in passages])

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        self.questions.extend(questions)
        return np.stack([self._vector(text) for text in questions])

    def _vector(self, text: str) -> Vectors:
        vector = np.zeros(self.dimension, dtype=np.float32)
        folded = f" {text.lower()} "
        for start in range(len(folded) - 2):
            digest = hashlib.blake2b(folded[start : start + 3].encode(), digest_size=4).digest()
            vector[int.from_bytes(digest) % self.dimension] += 1.0
        return vector / np.linalg.norm(vector)
