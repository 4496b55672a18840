"""What benchmarks over open data sets share: how a set is read, and a store without an encoder."""

import gzip
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from consilience.encoding import Vectors


class NoVectors:
    """Stands in where only BM25 is measured: a store wants a vector for each passage."""

    fingerprint = "no-vectors"
    dimension = 8

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """The same vector for all."""
        return np.full((len(passages), 8), 8**-0.5, np.float32)

    encode_questions = encode_passages


def resampled(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Where the mean of 95 % of 2,000 resamples lies."""
    means = np.random.default_rng(seed).choice(np.asarray(values), (2000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def interval(values: Sequence[float]) -> str:
    """The mean, with where 95 % of resamples lie."""
    low, high = resampled(values)
    return f"{statistics.fmean(values):.1f} ({low:.1f} to {high:.1f})"


def processor() -> str:
    """How many processors there are, and which instructions they have."""
    return f"{os.cpu_count()} processors with {torch.backends.cpu.get_cpu_capability()}"


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a compressed file, each a record."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)
