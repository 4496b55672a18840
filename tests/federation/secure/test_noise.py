"""Noise of whole parties."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.errors import UsageError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Orders, Update
from consilience.federation.secure import SecureGathering, SecureSealing
from consilience.federation.secure.noise import discrete_gaussian, party_epsilon
from consilience.federation.secure.terms import Terms
from consilience.federation.secure.words import Scale, encode
from tests.federation.secure.world import SHAPES, World, again, update, updates, world

SEED = bytes(range(32))


def noisy(folder: Path, parties: int, noise: float) -> World:
    found = world(folder, parties)
    found.gathering = SecureGathering(found.config, party_noise=noise)
    for name in found.names:
        key, place = found.keys[name], found.folder / name
        found.parties[name] = SecureSealing(
            name, key, found.roster, place, found.config, party_noise=noise
        )
    return found


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.7, 250.0])
def test_numbers_are_as_likely_as_they_should_be(deviation: float) -> None:
    count = 200_000
    drawn = discrete_gaussian(count, deviation, SEED)
    reach = math.ceil(4 * deviation)
    places = np.arange(-20 * reach, 20 * reach + 1)
    weights = np.exp(-(places.astype(float) ** 2) / (2 * deviation**2))
    expected = weights / weights.sum()
    step = max(1, reach // 10)  # of wide ones several numbers are counted together
    seen, wanted = np.bincount(drawn + 20 * reach, minlength=len(places)), expected * count
    groups = [
        (seen[start : start + step].sum(), wanted[start : start + step].sum())
        for start in range(0, len(places), step)
    ]
    likely = [(here, there) for here, there in groups if there > 20]
    distance = sum((here - there) ** 2 / there for here, there in likely)
    assert distance < len(likely) + 7 * math.sqrt(2 * len(likely)) + 10


def test_the_same_seed_gives_the_same_noise() -> None:
    assert np.array_equal(discrete_gaussian(500, 9.0, SEED), discrete_gaussian(500, 9.0, SEED))
    other = discrete_gaussian(500, 9.0, SEED[::-1])
    assert not np.array_equal(discrete_gaussian(500, 9.0, SEED), other)


@pytest.mark.parametrize("size", [0.001, 0.1, 30.0])
def test_a_whole_update_moves_the_sum_by_its_length_at_most(size: float) -> None:
    orders = orders_of(5)
    terms = Terms.of(orders, SHAPES, SecureSettings(sums=True), noise=1.0)
    scale = Scale(5, 0.5)
    for seed in range(20):
        known = update(seed, weight=777.0, size=size)
        words = encode(known, terms).view(np.int32).astype(np.float64)
        changes, rest = words[:17], words[17:]
        flat = torch.cat([value.reshape(-1) for value in known.delta.values()]).double()
        wanted = flat * min(1.0, 0.5 / float(flat.norm())) * scale.unit(0.5)
        assert np.linalg.norm(changes) <= 0.5 * scale.unit(0.5)
        assert np.abs(changes - wanted.numpy()).max() <= 3.0
        assert rest.tolist() == [scale.per_question, *[0] * 10]


def orders_of(parties: int) -> Orders:
    return Orders("run", 1, tuple(SHAPES), tuple(f"party-{n}" for n in range(parties)), 0)


@pytest.mark.parametrize(("leaving", "shares"), [(0, 5), (1, 4)])
def test_the_sum_has_the_noise_of_who_is_in_it(tmp_path: Path, leaving: int, shares: int) -> None:
    """Of five parties four must stay: with four the variance is (zC)², with five a quarter more."""
    found = noisy(tmp_path, 5, 2.0)
    orders = again(found.orders(), moving=("w",))
    zero = Update({"w": torch.zeros(20_000)}, 50.0, {"loss": 1.0})
    sealed = found.seal(orders, dict.fromkeys(found.names[leaving:], zero))
    mean = found.gathering.gather(orders, sealed, {"w": torch.zeros(20_000)}, found.ask(orders))
    deviation = float(mean.delta["w"].double().std()) * shares
    assert deviation == pytest.approx(2.0 * 0.5 * math.sqrt(shares / 4), rel=0.03)
    assert (mean.weight, mean.metrics) == (shares, {})


def test_little_noise_leaves_the_mean_of_parties(tmp_path: Path) -> None:
    found = noisy(tmp_path, 3, 1e-3)
    orders = found.orders()
    known = {
        n: Update(u.delta, w, u.metrics)
        for (n, u), w in zip(updates(found.names, seed=0).items(), (1.0, 10.0, 1000.0), strict=True)
    }
    small = {
        n: Update({k: v * 0.5 for k, v in u.delta.items()}, u.weight, u.metrics)
        for n, u in known.items()
    }
    mean = found.gather(orders, found.seal(orders, small))
    for name, value in mean.delta.items():
        lengths = [
            float(torch.cat([v.reshape(-1) for v in u.delta.values()]).norm())
            for u in small.values()
        ]
        assert max(lengths) < 0.5
        expected = sum(each.delta[name] for each in small.values()) / 3
        assert torch.allclose(value, expected, atol=2e-3)


def test_the_noise_is_the_same_in_every_attempt_of_a_round(tmp_path: Path) -> None:
    found = noisy(tmp_path, 3, 1.0)
    orders, known = found.orders(), updates(found.names)
    first = found.gather(orders, found.seal(orders, known))
    later = again(orders, attempt=2)
    second = found.gather(later, found.seal(later, known))
    after = found.orders()
    third = found.gather(after, found.seal(after, known))
    for name in SHAPES:
        assert torch.equal(first.delta[name], second.delta[name])
        assert not torch.allclose(first.delta[name], third.delta[name], atol=1e-3)


def test_with_noise_a_round_keeps_its_parties(tmp_path: Path) -> None:
    found = noisy(tmp_path, 4, 1.0)
    orders, party = found.orders(), found.parties["party-0"]
    party.seal(update(1), orders)
    with pytest.raises(UsageError, match="sealed by this party with other orders"):
        party.seal(update(1), again(orders, attempt=2, parties=found.names[:3]))


def test_parties_that_disagree_about_noise_do_not_add_up(tmp_path: Path) -> None:
    found = noisy(tmp_path, 4, 1.0)
    orders, known = found.orders(), updates(found.names)
    found.restart("party-3")
    mean = found.gather(orders, found.seal(orders, known))
    assert mean.refused == {"party-3": "it was sealed under other orders or settings"}


@pytest.mark.parametrize("noise", [-1.0, 1001.0, math.nan, math.inf])
def test_noise_that_does_not_fit(noise: float) -> None:
    with pytest.raises(UsageError, match=r"privacy.party_noise is .*, which is not between 0 and"):
        Terms.of(orders_of(3), SHAPES, SecureSettings(sums=True), noise=noise)


def test_more_weights_than_there_are_digits_for() -> None:
    size = 3_000_000
    orders = again(orders_of(40), moving=("w",))
    terms = Terms.of(orders, {"w": (size,)}, SecureSettings(sums=True), noise=1.0)
    with pytest.raises(
        UsageError, match="party_noise with 3000000 weights that move, more than 40"
    ):
        encode(Update({"w": torch.zeros(size)}, 1.0, {"loss": 1.0}), terms)


@pytest.mark.parametrize(
    ("noise", "rounds", "published"),
    # Differential privacy of the Gaussian mechanism at delta 1e-5, by Rényi orders (dp-accounting).
    [(1.43, 5, 8.0), (2.85, 20, 8.0), (4.51, 50, 8.0)],
)
def test_epsilon_agrees_with_another_accountant(
    noise: float, rounds: int, published: float
) -> None:
    assert party_epsilon(noise, rounds=rounds, delta=1e-5) == pytest.approx(published, rel=0.02)


def test_epsilon_against_dp_accounting() -> None:
    accounting = pytest.importorskip("dp_accounting")
    for noise, rounds in ((1.0, 1), (3.0, 10), (10.0, 100), (0.5, 3)):
        accountant = accounting.rdp.RdpAccountant(orders=[1 + x / 20 for x in range(1, 1200)])
        accountant.compose(accounting.GaussianDpEvent(noise), rounds)
        known = accountant.get_epsilon(1e-6)
        assert party_epsilon(noise, rounds=rounds, delta=1e-6) == pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize(("noise", "rounds", "delta"), [(0, 1, 0.1), (1, 0, 0.1), (1, 1, 0.0)])
def test_epsilon_of_nothing(noise: float, rounds: int, delta: float) -> None:
    with pytest.raises(UsageError, match="have no epsilon"):
        party_epsilon(noise, rounds=rounds, delta=delta)
