"""What several vectors come to, some of which may be hostile: mathematics alone.

All means are over the first dimension of `[parties, n]`. The plain average believes the parties'
own counts; the means that bear hostile parties believe nothing that a party says of itself.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def average(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """`sum_i w_i x_i / sum_i w_i` (FedAvg; McMahan et al. 2017), added up in float64 in order.

    Args:
        values: Of the same shape, any float type.
        weights: Positive.

    Returns:
        Of that shape, float32, or float64 where one of them is. Of one vector: itself, exactly.
    """
    total = math.fsum(weights)
    mean = torch.zeros(values[0].shape, dtype=torch.float64)
    for value, weight in zip(values, weights, strict=True):
        mean += value.double() * (weight / total)
    return mean if any(value.dtype == mean.dtype for value in values) else mean.float()


def trimmed(values: Tensor, *, hostile: int) -> Tensor:
    """The mean of each coordinate without its `f` smallest and `f` largest (Yin et al. 2018).

    Args:
        values: `[parties, n]`.
        hostile: `f`, fewer than half of the parties.

    Returns:
        `[n]`.
    """
    parties = len(values)
    kept = values.sort(0).values[hostile : parties - hostile]
    return kept.double().mean(0).float()


def median(values: Tensor) -> Tensor:
    """The median of each coordinate; of an even number the mean of the middle two.

    Args:
        values: `[parties, n]`.

    Returns:
        `[n]`.
    """
    return trimmed(values, hostile=(len(values) - 1) // 2)


def krum(values: Tensor, *, hostile: int) -> list[int]:
    """Multi-Krum: the `n - f` vectors that are nearest to their neighbours (Blanchard et al. 2017).

    A vector's score is the sum of its squared distances to the `n - f - 2` nearest others. With
    `n >= 2 f + 3` no hostile vector far from all honest ones is among those chosen.

    Args:
        values: `[parties, n]`.
        hostile: `f`.

    Returns:
        Places of the chosen, in order; of equal scores the first.
    """
    parties = len(values)
    nearest = max(1, parties - hostile - 2)
    distances = torch.cdist(
        values.double(), values.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    distances.fill_diagonal_(torch.inf)
    scores = distances.sort(1).values[:, :nearest].sum(1)
    return sorted(scores.argsort(stable=True)[: parties - hostile].tolist())


def hostile_among(parties: int, share: float, *, most: int) -> int:
    """How many of the parties a share of hostile ones can be: rounded up, and at most `most`."""
    return max(0, min(math.ceil(parties * share - 1e-9), most))


def length(values: Sequence[Tensor]) -> float:
    """The Euclidean length of tensors taken as one vector."""
    return math.sqrt(math.fsum(float(value.double().square().sum()) for value in values))
