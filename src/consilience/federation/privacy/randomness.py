"""Randomness that nobody can repeat: straight from the operating system, never from a seed.

torch's generator on processors keeps 32 bits of its seed, so noise drawn from it has four thousand
million possible values, which a coordinator could try one by one against an update. Here every
number is made of bytes of its own; what the run's seed is does not matter.
"""

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor

Entropy = Callable[[int], bytes]
"""So many bytes."""


def uniform(count: int, *, entropy: Entropy = os.urandom) -> Tensor:
    """Numbers in (0, 1), float64, `[count]`: odd multiples of 2^-53, which it holds exactly."""
    drawn = torch.frombuffer(bytearray(entropy(8 * count)), dtype=torch.int64)
    return ((drawn & (2**52 - 1)).double() + 0.5) * 2.0**-52


def normal(count: int, *, entropy: Entropy = os.urandom) -> Tensor:
    """Numbers of the standard normal distribution, float64, `[count]`.

    By Box and Muller (1958), "A Note on the Generation of Random Normal Deviates": two uniform
    numbers of 52 bits make two normal ones, none beyond 8.6, where 10^-17 of the mass lies.
    """
    pairs = -(-count // 2)
    drawn = uniform(2 * pairs, entropy=entropy)
    radius, angle = (-2 * drawn[:pairs].log()).sqrt(), 2 * math.pi * drawn[pairs:]
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]


def sampled(records: int, probability: float, *, entropy: Entropy = os.urandom) -> list[int]:
    """A Poisson sample: each of the records by itself with the same probability, in order."""
    if not records:
        return []
    chosen = uniform(records, entropy=entropy) < probability
    found: list[int] = chosen.nonzero()[:, 0].tolist()
    return found
