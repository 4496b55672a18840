import math
import os
import random
from collections.abc import Callable

import pytest
import torch

from consilience.federation.privacy.randomness import normal, sampled, uniform


def fixed(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def repeated(byte: bytes) -> Callable[[int], bytes]:
    return lambda count: byte * count


def test_uniform_numbers_are_uniform_and_never_at_the_ends() -> None:
    drawn = uniform(200_000, entropy=fixed(1))
    assert drawn.dtype == torch.float64
    assert abs(float(drawn.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 200_000)
    assert abs(float(drawn.var()) - 1 / 12) < 1e-3
    ends = [uniform(3, entropy=repeated(byte)) for byte in (b"\0", b"\xff")]
    assert float(ends[0].min()) > 0
    assert float(ends[1].max()) < 1


def test_normal_numbers_have_the_moments_and_tails_of_the_normal_distribution() -> None:
    count = 400_000
    drawn = normal(count, entropy=fixed(2))
    assert abs(float(drawn.mean())) < 4 / math.sqrt(count)
    assert abs(float(drawn.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float((drawn**4).mean()) - 3) < 4 * math.sqrt(96 / count)
    for edge in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(edge / math.sqrt(2))
        found = float((drawn.abs() > edge).double().mean())
        assert abs(found - share) < 4 * math.sqrt(share / count)


def test_neither_half_of_the_numbers_tells_of_the_other() -> None:
    drawn = normal(400_001, entropy=fixed(3))
    assert drawn.shape == (400_001,)
    one, other = drawn[:200_000], drawn[200_001:]
    assert abs(float((one * other).mean())) < 4 / math.sqrt(200_000)
    assert len(set(drawn.tolist())) > 400_000


def test_sample_sizes_are_binomial() -> None:
    entropy, records, probability, draws = fixed(4), 60, 0.2, 4000
    sizes = torch.tensor(
        [len(sampled(records, probability, entropy=entropy)) for _ in range(draws)]
    ).double()
    variance = records * probability * (1 - probability)
    assert abs(float(sizes.mean()) - records * probability) < 4 * math.sqrt(variance / draws)
    # A sampler of fixed sizes, or of shuffled passes, has a smaller variance.
    assert abs(float(sizes.var()) / variance - 1) < 4 * math.sqrt(2 / draws)
    assert sizes.min() < 5
    assert sizes.max() > 20


def test_every_record_is_as_likely_as_the_next_and_empty_samples_happen() -> None:
    entropy, counts, empty = fixed(5), torch.zeros(10), 0
    for _ in range(5000):
        found = sampled(10, 0.1, entropy=entropy)
        assert found == sorted(set(found))
        empty += not found
        counts[found] += 1
    assert float(counts.min()) > 500 - 4 * math.sqrt(450)
    assert float(counts.max()) < 500 + 4 * math.sqrt(450)
    assert abs(empty / 5000 - 0.9**10) < 0.03
    assert sampled(0, 0.5) == []
    assert sampled(5, 1.0) == [0, 1, 2, 3, 4]


def test_the_seed_of_a_run_determines_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> list[float]:
        torch.manual_seed(3)
        random.seed(3)
        return [*normal(4).tolist(), *uniform(4).tolist()]

    assert drawn() != drawn()
    asked = []

    def watched(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    normal(7, entropy=watched)
    assert asked == [64]  # eight bytes of its own for every number
    monkeypatch.setattr(torch, "randn", None)
    normal(3)


def test_torch_keeps_half_of_a_seed() -> None:
    """Why noise does not come from torch: a seed of 64 bits has 2^32 outcomes."""
    one, other = (torch.Generator().manual_seed(seed) for seed in (1, 1 + 2**32))
    assert torch.equal(torch.randn(9, generator=one), torch.randn(9, generator=other))
