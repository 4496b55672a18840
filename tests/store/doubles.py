"""Encoders for tests: deterministic, instant, and of any number of fingerprints."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from consilience.encoding import Vectors


@dataclass
class HashingEncoder:
    """Character trigrams hashed into a unit vector; remembers what it was given."""

    fingerprint: str = "hashing-encoder-0001"
    dimension: int = 16
    seen: list[str] = field(default_factory=list)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        self.seen.extend(passages)
        return np.stack([self._vector(text) for text in passages])

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        return np.stack([self._vector(text) for text in questions])

    def _vector(self, text: str) -> Vectors:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for n in range(max(1, len(text) - 2)):
            key = f"{self.fingerprint}\0{text[n : n + 3]}".encode()
            digest = hashlib.blake2b(key, digest_size=8).digest()
            vector[digest[0] % self.dimension] += 1.0 if digest[1] % 2 else -1.0
        vector[0] += 1e-3
        return vector / np.linalg.norm(vector)
