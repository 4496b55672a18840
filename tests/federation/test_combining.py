import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from consilience.errors import ConsilienceError
from consilience.federation.combining import PlainGathering
from consilience.federation.config import MeanSettings
from consilience.federation.contracts import Gathered, Orders, Update
from consilience.federation.means import average, hostile_among, krum, median, trimmed
from consilience.federation.parcels import Parcel
from consilience.federation.payload import PlainSealing
from consilience.federation.stepping import FLOOR, Moments, stepped
from tests.federation.fakes import ask_nobody, config_of

SHAPES = {"w": (3, 4), "v": (5,)}
WEIGHTS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}


def orders(moving: Sequence[str] = ("v", "w")) -> Orders:
    return Orders("run", 1, tuple(moving), ("a",), 7)


def sealed(delta: dict[str, Tensor], weight: float = 1.0, loss: float = 1.0) -> Parcel:
    sealing = PlainSealing("float32", Path("nowhere"))
    return sealing.seal(Update(delta, weight, {"loss": loss}), orders(tuple(sorted(delta))))


def drawn(seed: int, scale: float = 0.1) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=made) for name, shape in SHAPES.items()}


def gathered(tmp_path: Path, parcels: dict[str, Parcel], **mean: Any) -> Gathered:
    gathering = PlainGathering(config_of(tmp_path, mean=mean))
    return gathering.gather(orders(), parcels, WEIGHTS, ask_nobody)


def test_the_average_is_by_questions(tmp_path: Path) -> None:
    ones, twos = ({name: torch.full(shape, n) for name, shape in SHAPES.items()} for n in (1.0, 2))
    found = gathered(tmp_path, {"a": sealed(ones, 30, 3.0), "b": sealed(twos, 10, 1.0)})
    assert torch.equal(found.delta["w"], torch.full((3, 4), 1.25))
    assert (found.weight, found.metrics) == (40, {"loss": 2.5})
    assert found.refused == {}


def test_one_party_alone_is_its_own_average(tmp_path: Path) -> None:
    alone = drawn(1, scale=1 / 3)
    found = gathered(tmp_path, {"a": sealed(alone, 37)})
    for name in SHAPES:
        assert torch.equal(found.delta[name], alone[name])


@settings(max_examples=30, deadline=None)
@given(st.permutations(list("abcdefg")), st.sampled_from(["average", "trimmed", "median", "krum"]))
def test_no_order_changes_a_bit(order: list[str], kind: Any) -> None:
    parcels = {name: sealed(drawn(ord(name)), 1 + ord(name) % 5) for name in order}
    known = {name: parcels[name] for name in sorted(parcels)}
    one, other = (gathered(Path("nowhere"), each, kind=kind) for each in (parcels, known))
    assert all(torch.equal(one.delta[name], other.delta[name]) for name in SHAPES)
    assert one.metrics == other.metrics


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.floats(1, 1000)), min_size=1, max_size=8)
)
def test_an_average_is_the_quotient_of_sums(pairs: list[tuple[float, float]]) -> None:
    found = average([torch.tensor([value]) for value, _ in pairs], [weight for _, weight in pairs])
    wanted = math.fsum(v * w for v, w in pairs) / math.fsum(w for _, w in pairs)
    assert float(found) == pytest.approx(wanted, abs=1e-4)


def test_parties_that_cannot_be_believed_are_named(tmp_path: Path) -> None:
    good = sealed(drawn(1))
    parcels = {
        "good": good,
        "nan": Parcel(good.about, {**good.tensors, "v": torch.full((5,), math.nan)}),
        "shape": Parcel(good.about, {**good.tensors, "v": torch.zeros(6)}),
        "huge": Parcel(good.about, {**good.tensors, "v": torch.full((5,), 1e20)}),
        "replay": Parcel({**good.about, "round": 0}, good.tensors),
        "zero": Parcel({**good.about, "weight": 0}, good.tensors),
    }
    found = gathered(tmp_path, parcels)
    assert torch.equal(found.delta["w"], good.tensors["w"])
    assert found.refused == {
        "nan": "v holds a number that is not finite",
        "shape": "v has the shape (6,), not (5,)",
        "huge": "v changes by 1e+20, at most 1000 is believed",
        "replay": "an update of round 0 of run 'run' is a replay in round 1 of run 'run'",
        "zero": "its weight is 0, which is no number of questions",
    }


def test_a_round_without_an_update_is_said_so(tmp_path: Path) -> None:
    bad = Parcel({**sealed(drawn(1)).about, "weight": 0}, {})
    with pytest.raises(ConsilienceError, match="round 1 has no update that counts: a: no change"):
        gathered(tmp_path, {"a": bad})
    with pytest.raises(ConsilienceError, match="nobody answered"):
        gathered(tmp_path, {})


def test_longer_updates_are_shortened(tmp_path: Path) -> None:
    short, long = drawn(1, 0.01), drawn(2, 50)
    found = gathered(tmp_path, {"a": sealed(short)}, longest=1.0)
    assert torch.equal(found.delta["w"], short["w"])
    found = gathered(tmp_path, {"a": sealed(long)}, longest=1.0)
    whole = torch.cat([found.delta[name].flatten() for name in SHAPES])
    assert float(whole.norm()) == pytest.approx(1.0)
    original = torch.cat([long[name].flatten() for name in SHAPES])
    assert torch.allclose(whole, original / original.norm())


def test_control_variates_are_neither_measured_nor_shortened() -> None:
    delta = {"w": torch.full((4,), 1.0), "control/w": torch.full((4,), 9.0)}
    weights = {name: torch.zeros(4) for name in delta}
    gathering = PlainGathering(config_of(Path("nowhere"), mean={"longest": 1.0}))
    asked = orders(("control/w", "w"))
    found = gathering.gather(asked, {"a": sealed(delta)}, weights, ask_nobody)
    assert torch.equal(found.delta["w"], torch.full((4,), 0.5))
    assert torch.equal(found.delta["control/w"], delta["control/w"])


def test_factors_of_any_rank_are_averaged_as_products(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(3)
    parcels, wanted = {}, torch.zeros(3, 4)
    for name, rank, weight in (("a", 1, 1.0), ("b", 2, 3.0)):
        first, second = (
            torch.randn(rank, 4, generator=made),
            torch.randn(3, rank, generator=made),
        )
        parcels[name] = sealed({"w//a": first, "w//b": second}, weight)
        wanted += weight / 4 * second @ first
    gathering = PlainGathering(config_of(tmp_path))
    found = gathering.gather(orders(("w",)), parcels, WEIGHTS, ask_nobody)
    assert torch.allclose(found.delta["w"], wanted, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_the_median_is_numpys(parties: int, seed: int) -> None:
    values = torch.randn(parties, 6, generator=torch.Generator().manual_seed(seed))
    assert np.allclose(median(values).numpy(), np.median(values.numpy(), axis=0), atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 9), st.integers(0, 1000))
def test_a_trimmed_mean_is_flowers(parties: int, seed: int) -> None:
    aggregate = pytest.importorskip("flwr.server.strategy.aggregate")
    values = torch.randn(parties, 6, generator=torch.Generator().manual_seed(seed))
    results = [([row.numpy()], 1) for row in values]
    (wanted,) = aggregate.aggregate_trimmed_avg(results, 0.3)
    assert np.allclose(trimmed(values, hostile=int(0.3 * parties)).numpy(), wanted, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 9), st.integers(0, 1000), st.integers(0, 1))
def test_krum_chooses_what_flower_chooses(parties: int, seed: int, hostile: int) -> None:
    flwr = pytest.importorskip("flwr.app")
    kept = pytest.importorskip("flwr.serverapp.strategy.multikrum")
    values = torch.randn(parties, 6, generator=torch.Generator().manual_seed(seed))
    records = [
        flwr.RecordDict({"arrays": flwr.ArrayRecord([row.numpy()])}) for row in values.double()
    ]
    chosen = kept.select_multikrum(records, hostile, parties - hostile)
    places = sorted(next(i for i, one in enumerate(records) if one is each) for each in chosen)
    assert krum(values, hostile=hostile) == places


@pytest.mark.parametrize("kind", ["trimmed", "median", "krum"])
@pytest.mark.parametrize("attack", ["turned", "hundredfold", "same", "heavy"])
def test_three_hostile_parties_of_ten_do_not_move_the_mean_far(kind: Any, attack: str) -> None:
    honest = {f"h{n}": {k: 0.3 + v for k, v in drawn(n).items()} for n in range(7)}
    wanted = average([each["w"] for each in honest.values()], [1.0] * 7)
    bad: Any = {
        "turned": lambda n: {k: -v for k, v in honest[f"h{n}"].items()},
        "hundredfold": lambda n: {k: -100 * v for k, v in honest[f"h{n}"].items()},
        "same": lambda _: {k: torch.full(shape, -3.0) for k, shape in SHAPES.items()},
        "heavy": lambda n: {k: -100 * v for k, v in honest[f"h{n}"].items()},
    }[attack]
    parcels = {name: sealed(delta) for name, delta in honest.items()}
    weight = 1e8 if attack == "heavy" else 1.0
    parcels |= {f"x{n}": sealed(bad(n), weight) for n in range(3)}
    found = gathered(Path("nowhere"), parcels, kind=kind, hostile=0.3).delta["w"]
    plain = gathered(Path("nowhere"), parcels).delta["w"]
    assert float((found - wanted).abs().mean()) < 0.1
    assert float((plain - wanted).abs().mean()) > 0.17


def test_how_many_a_share_of_hostile_parties_is() -> None:
    assert hostile_among(10, 0.3, most=4) == 3
    assert hostile_among(3, 0.3, most=1) == 1  # one of three may be, not nine tenths of one
    assert hostile_among(2, 0.3, most=0) == 0
    assert hostile_among(9, 0.0, most=4) == 0


def test_krum_needs_parties_to_compare(tmp_path: Path) -> None:
    parcels = {name: sealed(drawn(ord(name))) for name in "ab"}
    with pytest.raises(ConsilienceError, match="krum compares at least 3 updates, round 1 has 2"):
        gathered(tmp_path, parcels, kind="krum")


def test_krum_leaves_the_farthest_out(tmp_path: Path) -> None:
    parcels = {name: sealed(drawn(ord(name), 0.01)) for name in "abcde"}
    parcels["x"] = sealed({name: torch.full(shape, 9.0) for name, shape in SHAPES.items()})
    found = gathered(tmp_path, parcels, kind="krum", hostile=0.2)
    assert float(found.delta["w"].abs().max()) < 0.1


def test_means_that_bear_hostile_parties_do_not_believe_their_counts(tmp_path: Path) -> None:
    deltas = {name: drawn(ord(name), 0.01) for name in "abcde"}
    heavy = {name: sealed(delta, 1e6 if name == "a" else 1.0) for name, delta in deltas.items()}
    even = {name: sealed(delta) for name, delta in deltas.items()}
    for kind in ("krum", "median", "trimmed"):
        one, other = (gathered(tmp_path, each, kind=kind, hostile=0.2) for each in (heavy, even))
        assert torch.equal(one.delta["w"], other.delta["w"])


def step(settings: MeanSettings, mean: dict[str, Tensor], times: int = 1) -> list[Tensor]:
    weights, moments, found = {"w": torch.ones(4)}, Moments(), []
    for _ in range(times):
        weights, moments = stepped(weights, mean, moments, settings=settings, share=1.0)
        found.append(weights["w"])
    return found


def test_without_an_optimiser_the_mean_is_added() -> None:
    mean = {"w": torch.arange(4.0)}
    assert torch.equal(step(MeanSettings(), mean)[0], 1 + torch.arange(4.0))
    assert torch.equal(step(MeanSettings(rate=0.5), mean)[0], 1 + torch.arange(4.0) / 2)


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_optimisers_are_flowers(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flwr = pytest.importorskip("flwr.app")
    identity = pytest.importorskip("flwr.supercore.task_identity").TaskIdentity
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(identity, name, 1)
    strategies = pytest.importorskip("flwr.serverapp.strategy")
    rate, mean = 0.02, torch.tensor([0.5, -0.1, 0.0, 1e-4])
    theirs = (strategies.FedAdam if kind == "adam" else strategies.FedYogi)(
        eta=rate, beta_1=0.9, beta_2=0.99, tau=FLOOR
    )
    now = np.ones(4)
    theirs.v_t = {"w": np.full(4, FLOOR**2)}
    for number, ours in enumerate(
        step(MeanSettings(optimiser=kind, rate=rate), {"w": mean}, times=5), 1
    ):
        theirs.current_arrays = {"w": now}
        if kind == "adam":  # theirs corrects for the beginning, which the paper does not
            correction = np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
            theirs.eta = rate / correction
        order = flwr.Message(flwr.RecordDict(), dst_node_id=1, message_type="train")
        reply = flwr.Message(
            flwr.RecordDict(
                {
                    "arrays": flwr.ArrayRecord({"w": flwr.Array(now + mean.double().numpy())}),
                    "metrics": flwr.MetricRecord({"num-examples": 1.0}),
                }
            ),
            reply_to=order,
        )
        arrays, _ = theirs.aggregate_train(number, [reply])
        now = arrays["w"].numpy()
        assert np.allclose(ours.numpy(), now, atol=1e-6)


def test_weights_at_rest_and_their_moments_stay() -> None:
    settings = MeanSettings(optimiser="adam", rate=0.1)
    weights = {"w": torch.ones(2), "v": torch.ones(2)}
    after, moments = stepped(weights, {"w": torch.ones(2)}, Moments(), settings=settings, share=1.0)
    again, later = stepped(after, {"v": torch.ones(2)}, moments, settings=settings, share=1.0)
    assert torch.equal(after["v"], weights["v"])
    assert torch.equal(again["w"], after["w"])
    assert torch.equal(later.first["w"], moments.first["w"])
    assert torch.equal(weights["w"], torch.ones(2))


def test_control_variates_move_by_their_share_alone() -> None:
    settings = MeanSettings(optimiser="adam", rate=5.0)
    weights = {"control/w": torch.ones(2)}
    mean = {"control/w": torch.full((2,), 4.0)}
    after, moments = stepped(weights, mean, Moments(), settings=settings, share=0.25)
    assert torch.equal(after["control/w"], torch.full((2,), 2.0))
    assert not moments.first


def test_moments_survive_as_tensors() -> None:
    moments = Moments({"first/w": torch.ones(2)}, {"first/w": torch.zeros(2)})
    found = Moments.parse(moments.to_tensors())
    assert found.first.keys() == found.second.keys() == {"first/w"}
    assert torch.equal(found.first["first/w"], torch.ones(2))
