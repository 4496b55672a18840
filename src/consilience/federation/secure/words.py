"""Updates as whole numbers modulo 2^32, and sums of them as means.

A party's weighted change w·δ is cut at ±`longest` for each δ, scaled so that the largest weight
with the largest change is `reach` = ⌊(2^31 - 1) / N⌋, and rounded. N such numbers never leave
±2^31, so their sum modulo 2^32 is their sum. After them come the weight itself and, for each metric
of a closed list, its value times the weight and the weight if the party has it: names and presence
of metrics are hidden like their values. With noise every party counts as one, its whole change is
shortened to `longest`, and it tells no metrics.

This module knows nothing of masks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from consilience.errors import RemoteError, UsageError
from consilience.federation.contracts import Gathered, Update
from consilience.federation.secure.ciphers import Words
from consilience.federation.secure.noise import discrete_gaussian
from consilience.federation.secure.terms import Terms

MOST_WEIGHT = 2**16
"""Questions for which a party counts at most; one with more counts as having so many."""

METRICS: Mapping[str, float] = {
    "loss": 32.0,
    "eval_loss": 32.0,
    "eval_exact_match": 1.0,
    "eval_f1": 1.0,
    "eval_recall@5": 1.0,
}
"""What is told besides weights, each with the absolute value at which it is cut; all else stays."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """How numbers become whole.

    Attributes:
        parties: That may add up.
        longest: Largest absolute value of a weight's change.
    """

    parties: int
    longest: float

    @property
    def reach(self) -> int:
        """The largest absolute value of one party's word."""
        return (2**31 - 1) // self.parties

    @property
    def per_question(self) -> int:
        """Words that a weight of one becomes; whole, so that whole weights come back exactly."""
        return self.reach // MOST_WEIGHT

    def unit(self, limit: float) -> float:
        """Words that a value of one, times a weight of one, becomes where `limit` is the most."""
        return self.reach / (MOST_WEIGHT * limit)

    def bound(self, *, answered: int, weight: float) -> float:
        """How far a coordinate of the mean is off at most, by rounding: n / (2·unit·Σw).

        Args:
            answered: Parties n that are in the sum.
            weight: Sum of their weights.
        """
        return answered / (2 * self.unit(self.longest) * weight)


def length(terms: Terms) -> int:
    """Words of a party."""
    return sum(math.prod(shape) for _, shape in terms.shapes) + 1 + 2 * len(METRICS)


def encode(update: Update, terms: Terms) -> Words:
    """An update in words [length].

    Args:
        update: Of the shapes of the terms.
        terms: Of the attempt.

    Raises:
        UsageError: A number that is not finite, or a weight that is not above zero.
    """
    scale = Scale(len(terms.parties), terms.longest)
    weight = _whole_weight(update.weight, scale)
    values = _flat(update, terms)
    if terms.noise:
        _shorten(values, scale)
        return _whole(values, [scale.per_question, *[0] * (2 * len(METRICS))], scale)
    np.clip(values, -terms.longest, terms.longest, out=values)
    values *= weight / scale.per_question * scale.unit(terms.longest)
    return _whole(values, [weight, *_metric_words(update.metrics, weight, scale)], scale)


def add_noise(words: Words, terms: Terms, seed: bytes) -> None:
    """Add one party's share of the noise to its words in place; the weight has none.

    Args:
        words: [length] of one party, as `encode` made them.
        terms: Of the attempt, with noise.
        seed: Of the party and the round; in all attempts of a round the noise is the same.
    """
    scale = Scale(len(terms.parties), terms.longest)
    deviation = terms.noise * terms.longest * scale.unit(terms.longest) / terms.threshold**0.5
    changes = words[: -(1 + 2 * len(METRICS))]
    drawn = discrete_gaussian(len(changes), deviation, seed)
    changes += drawn.astype(np.int32).view(np.uint32)


def decode(total: Words, terms: Terms, *, answered: int) -> Gathered:
    """The mean that a sum of words stands for.

    Args:
        total: Sum [length] of the words of `answered` parties, modulo 2^32.
        terms: Of the attempt.
        answered: How many parties are in it.

    Raises:
        RemoteError: It is no sum of words: a party has not done what it should.
    """
    scale = Scale(len(terms.parties), terms.longest)
    whole = total.view(np.int32).astype(np.float64)
    changes, rest = whole[: -(1 + 2 * len(METRICS))], whole[-(1 + 2 * len(METRICS)) :]
    weight, *pairs = rest.tolist()
    counted = weight / scale.per_question
    most = counted * scale.unit(terms.longest) * terms.longest + answered
    if terms.noise:
        most = math.inf
    if not 0 < weight <= answered * scale.reach or np.abs(changes).max(initial=0.0) > most:
        raise _no_sum()
    changes /= counted * scale.unit(terms.longest)
    return Gathered(_shaped(changes, terms), counted, dict(_means(pairs, scale)))


def _flat(update: Update, terms: Terms) -> Numbers:
    parts = []
    for name, _ in terms.shapes:
        parts.append(update.delta[name].detach().reshape(-1).double().numpy())
        if not np.isfinite(parts[-1]).all():
            raise UsageError(
                f"the change of {name} holds a number that is not finite",
                hint="lower learning_rate in the recipe",
            )
    return np.concatenate(parts) if parts else np.zeros(0)


def _shorten(values: Numbers, scale: Scale) -> None:
    """Make them words of length C at most, rounding included, which adds √d / 2 at most."""
    unit = scale.unit(scale.longest)
    most = scale.longest * unit - len(values) ** 0.5 / 2
    if most <= 0:
        raise UsageError(
            f"privacy.party_noise with {len(values)} weights that move, more than {scale.parties} "
            "parties have digits for",
            hint="move fewer weights: set travel.kind to alternate or frozen-a",
        )
    found = float(np.linalg.norm(values)) * unit
    values *= unit * min(1.0, most / found) if found else unit


def _whole(values: Numbers, rest: list[int], scale: Scale) -> Words:
    """Rounded, with what comes after the changes."""
    np.clip(np.rint(values, out=values), -scale.reach, scale.reach, out=values)
    return np.concatenate([values.astype(np.int32), np.array(rest, np.int32)]).view(np.uint32)


def _whole_weight(weight: float, scale: Scale) -> int:
    if not math.isfinite(weight) or weight <= 0:
        raise UsageError(
            "an update whose weight is not above zero",
            hint="a party without questions takes no part",
        )
    return max(1, round(min(weight, MOST_WEIGHT) * scale.per_question))


def _metric_words(metrics: Mapping[str, float], weight: int, scale: Scale) -> Iterator[int]:
    for name, limit in METRICS.items():
        value = metrics.get(name, math.nan)
        there = math.isfinite(value)
        cut = min(max(value, -limit), limit) if there else 0.0
        yield round(cut * weight / scale.per_question * scale.unit(limit))
        yield weight if there else 0


def _means(pairs: list[float], scale: Scale) -> Iterator[tuple[str, float]]:
    for (name, limit), total, weight in zip(METRICS.items(), pairs[::2], pairs[1::2], strict=True):
        if weight > 0:
            yield name, total / scale.unit(limit) * scale.per_question / weight


def _shaped(changes: Numbers, terms: Terms) -> dict[str, torch.Tensor]:
    found, start = {}, 0
    for name, shape in terms.shapes:
        end = start + math.prod(shape)
        found[name] = torch.from_numpy(changes[start:end].astype(np.float32)).reshape(shape)
        start = end
    return found


def _no_sum() -> RemoteError:
    return RemoteError(
        "the sum is none that these parties could have: one of them did not do what it should",
        hint="look at the versions and settings of the parties; which one it was is hidden",
    )
