"""Differential privacy of whole parties: noise that no one party's share of takes away.

Each party shortens its whole update to length C, counts as one, tells no metrics, and adds whole
numbers from the discrete Gaussian distribution with variance (z·C)² / t. At least t parties are in
every sum, so that its noise has at least z times the length by which one party can move it,
whichever others drop out (Kairouz, Liu and Steinke, 2021; the sum of so wide discrete Gaussians is
one but for e^-1000). Parties that collude know their own share: with c of them among t, z becomes
z·√(1 - c/t) towards them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from consilience.errors import UsageError
from consilience.federation.secure.ciphers import derive, stream

MOST_NOISE = 1000.0
"""Largest noise multiplier; 65 standard deviations of one party's share still fit a word."""

_PER_DRAW = 3  # uniform numbers of 8 bytes for each candidate


def discrete_gaussian(count: int, deviation: float, seed: bytes) -> NDArray[np.int64]:
    """Whole numbers k with probability proportional to exp(-k² / 2σ²), [count].

    By rejection from a discrete Laplace distribution (Canonne, Kamath and Steinke, 2020, algorithm
    3), in double precision. The same seed gives the same numbers.

    Args:
        count: How many.
        deviation: σ, above zero.
        seed: 32 bytes, used for nothing else.
    """
    found = np.zeros(0, np.int64)
    turn = 0
    while len(found) < count:
        draws = _uniform(2 * (count - len(found)) + 16, derive(seed, "draws", str(turn)))
        found, turn = np.concatenate([found, _accepted(draws, deviation)]), turn + 1
    return found[:count]


def party_epsilon(noise: float, *, rounds: int, delta: float) -> float:
    """What rounds with this noise multiplier z cost: the smallest ε of (ε, δ) that is known.

    Each round is concentrated differential privacy with ρ = 1 / 2z², and they add up; then
    ε = min over α > 1 of ρα + ln(1/αδ) / (α - 1) + ln(1 - 1/α) (Canonne, Kamath and Steinke, 2020,
    proposition 12). Neighbours differ by one party that is there or adds nothing.

    Raises:
        UsageError: No noise, no rounds, or a δ that is not between 0 and 1.
    """
    if noise <= 0 or rounds < 1 or not 0 < delta < 1:
        raise UsageError(
            f"noise {noise:g}, {rounds} rounds and delta {delta:g} have no epsilon",
            hint="set privacy.party_noise above 0 and privacy.delta between 0 and 1",
        )
    cost = rounds / (2 * noise**2)
    orders = 1 + np.logspace(-4, 5, 20_000)
    epsilons = cost * orders - np.log(orders * delta) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(epsilons.min()))


def _accepted(draws: NDArray[np.float64], deviation: float) -> NDArray[np.int64]:
    """Candidates that stay: of a Laplace distribution of scale ⌊σ⌋ + 1, [number]."""
    size, sign, chance = draws
    scale = math.floor(deviation) + 1
    candidate = np.floor(-scale * np.log(size)).astype(np.int64)
    negative = sign < 0.5
    wanted = np.exp(-((candidate - deviation**2 / scale) ** 2) / (2 * deviation**2))
    stays = (chance < wanted) & ~(negative & (candidate == 0))  # zero has one sign
    signed: NDArray[np.int64] = np.where(negative, -candidate, candidate)[stays]
    return signed


def _uniform(count: int, seed: bytes) -> NDArray[np.float64]:
    """Numbers above 0 and at most 1, [_PER_DRAW, count]."""
    bits = np.frombuffer(stream(seed, 8 * _PER_DRAW * count), "<u8") >> np.uint64(11)
    found: NDArray[np.float64] = (bits + np.uint64(1)).astype(np.float64) * 2.0**-53
    return found.reshape(_PER_DRAW, count)
