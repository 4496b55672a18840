"""The Gaussian mechanism on whole numbers: records clipped, added up, and noised once.

    sum over records r of trunc(2^24 v_r / C)  +  round(2^24 z N(0, 1)),   |v_r| <= C

A record's vector `v_r` is its gradient, no longer than 0.995 C, and beside it its loss, which takes
the tenth of C that is left: so the loss that a party tells is noised by the same mechanism and
costs no budget of its own.

Rounding towards zero makes no vector longer, and from there on everything is a whole number that
float64 holds exactly: the sum does not depend on its order, and the noised sum is the rounded value
of an exact Gaussian mechanism, which rounding cannot make worse. Floating-point noise added to a
floating-point sum has gaps in its low bits that tell sums apart (Mironov, 2012, "On Significance of
the Least Significant Bits For Differential Privacy"); whole numbers have none. What is left of it
is how well `normal` draws: its logarithm and its cosine are right to 2^-52.

Knows vectors, not what they are gradients of.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from consilience.federation.privacy.randomness import Entropy, normal

LEVELS = 2**24
"""Whole numbers from 0 to the longest vector."""

LOSS_SHARE = 0.1
"""Of the longest vector, for the loss; the gradient keeps `sqrt(1 - 0.1^2) = 0.995`."""

MOST_LOSS = 40.0
"""Nats that a record's loss counts at most."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one question adds to its record.

    Attributes:
        record: Its number.
        gradient: `[size]`.
        loss: In nats.
    """

    record: int
    gradient: Tensor
    loss: float


def clipped(vector: Tensor, longest: float) -> Tensor:
    """A vector in float64, `[size]`, scaled down to the length `longest` where it is longer.

    One that holds NaN or infinity is zero: it has no length that could be bounded, and to stop
    there would tell of it.
    """
    exact = vector.double()
    if not bool(torch.isfinite(exact).all()):
        return torch.zeros_like(exact)
    return exact * (longest / max(float(exact.norm()), longest))


def contribution(questions: Iterable[Told], longest: float) -> Tensor:
    """What a record adds to the sum of a step.

    The gradients of its questions are added up before they are clipped: it is the record whose part
    is bounded. Its loss is the mean of theirs.

    Args:
        questions: Of one record, at least one.
        longest: C.

    Returns:
        Whole numbers in units of `longest / LEVELS`, float64, `[size + 1]`; no longer than LEVELS.
    """
    total, losses = torch.zeros(0, dtype=torch.float64), list[float]()
    for told in questions:
        gradient = told.gradient.double()
        total = total + gradient if losses else gradient
        losses.append(min(max(told.loss, 0.0), MOST_LOSS) if math.isfinite(told.loss) else 0.0)
    loss = LOSS_SHARE * sum(losses) / len(losses) / MOST_LOSS
    kept = math.sqrt(1 - LOSS_SHARE**2)
    whole = torch.cat([clipped(total / longest, kept), torch.tensor([loss]).double()])
    return (whole * LEVELS).trunc()


def summed(told: Iterable[Told], *, size: int, longest: float) -> Tensor:
    """The sum over records of what each of them adds.

    Args:
        told: The questions of a record one after another.
        size: Of the gradients.
        longest: C.

    Returns:
        As `contribution`, `[size + 1]`.
    """
    total = torch.zeros(size + 1, dtype=torch.float64)
    for _, questions in groupby(told, key=lambda one: one.record):
        total += contribution(questions, longest)
    return total


def noised(total: Tensor, *, longest: float, noise: float, entropy: Entropy = os.urandom) -> Tensor:
    """The sum as it may be known: with normal noise of deviation `noise * longest`.

    Args:
        total: Of `summed`, `[size + 1]`.
        longest: C.
        noise: z.
        entropy: Where the noise comes from.

    Returns:
        Float64, in the units of the gradients, `[size + 1]`.
    """
    drawn = normal(total.numel(), entropy=entropy) * (noise * LEVELS)
    return (total + drawn.round()) * (longest / LEVELS)


def mean_loss(told: float, *, longest: float, expected: float) -> float:
    """The mean loss of a step's records, in nats, out of the last number of a noised sum."""
    return told / (LOSS_SHARE * longest) * MOST_LOSS / expected
