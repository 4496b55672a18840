import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from consilience.errors import DamagedError, UsageError
from consilience.federation.config import MeanSettings
from consilience.federation.contracts import Orders, Update
from consilience.federation.means import average
from consilience.federation.parcels import Parcel
from consilience.federation.payload import (
    MOST_CHANGE,
    PlainSealing,
    multiplied,
    opened,
    restored,
    rounded,
)
from consilience.federation.stepping import Moments, stepped
from consilience.federation.travelling import difference

SHAPES = {"w": (3, 4), "v": (5,), "s": ()}


def orders(number: int = 1, moving: tuple[str, ...] = ("s", "v", "w")) -> Orders:
    return Orders("run", number, moving, ("a", "b"), 7)


def update(seed: int = 0, **values: Any) -> Update:
    made = torch.Generator().manual_seed(seed)
    delta = {name: torch.randn(shape, generator=made) / 10 for name, shape in SHAPES.items()}
    plain: dict[str, Any] = {"delta": delta, "weight": 12.0, "metrics": {"loss": 1.5}}
    return Update(**plain | values)


def through(parcel: Parcel) -> Parcel:
    return Parcel.unpack(parcel.pack())


def test_float32_arrives_as_it_left(tmp_path: Path) -> None:
    sent = update(epsilon=0.5, seconds=2.0)
    found = opened(
        through(PlainSealing("float32", tmp_path).seal(sent, orders())), orders(), SHAPES
    )
    for name, value in sent.delta.items():
        assert torch.equal(found.delta[name], value)
    assert (found.weight, found.metrics, found.epsilon, found.seconds) == (
        12.0,
        {"loss": 1.5},
        0.5,
        2.0,
    )
    assert list(tmp_path.iterdir()) == []


def exact_update() -> tuple[dict[str, Tensor], dict[str, Tensor], Update]:
    """Weights of which one in five turns round or shrinks to nothing, and how they changed."""
    made = torch.Generator().manual_seed(3)
    shape, other = SHAPES["w"], torch.randn(SHAPES["w"], generator=made)
    old = torch.randn(shape, generator=made)
    new = torch.where(torch.rand(shape, generator=made) < 0.6, other / 3, old * 1.01)
    old.view(-1)[:2], new.view(-1)[:2] = torch.tensor([1.0, 0.1]), torch.tensor([1e-7, -3e-8])
    delta = update().delta | {"w": difference(new, old)}
    return {"w": old}, {"w": new}, update(delta=delta)


def test_no_digit_of_a_difference_is_lost(tmp_path: Path) -> None:
    old, new, sent = exact_update()
    assert not torch.equal(old["w"] + (new["w"] - old["w"]), new["w"])
    parcel = through(PlainSealing("float32", tmp_path).seal(sent, orders()))
    assert parcel.tensors["w"].dtype == torch.float32
    found = opened(parcel, orders(), SHAPES).delta["w"]
    assert torch.equal((old["w"].double() + found.double()).float(), new["w"])
    mean = average([found], [3.0])
    after, _ = stepped(old, {"w": mean}, Moments(), settings=MeanSettings(), share=1.0)
    assert torch.equal(after["w"], new["w"])


def test_differences_that_float32_holds_have_no_rests(tmp_path: Path) -> None:
    old = torch.rand(SHAPES["w"]) + 1
    delta = difference(old * 1.5, old)
    assert delta.dtype == torch.float32
    assert rounded({"w": delta.double()}, "float32").keys() == {"w"}


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_difference_in_more_digits_is_rounded_like_any_other(
    tmp_path: Path, precision: Any
) -> None:
    sent = exact_update()[2]
    sealing = PlainSealing(precision, tmp_path)
    parcel = through(sealing.seal(sent, orders()))
    plain = update(delta={name: value.float() for name, value in sent.delta.items()})
    there = PlainSealing(precision, tmp_path / "plain").seal(plain, orders())
    assert all(torch.equal(parcel.tensors[name], value) for name, value in there.tensors.items())


@pytest.mark.parametrize(
    ("where", "rest", "reason"),
    [
        ([0], None, "rests of other numbers than were sent"),
        (None, [1e-9], "rests of other numbers than were sent"),
        ([0, 1], [1e-9], "w has \\(1,\\) rests at \\(2,\\) places"),
        ([12], [1e-9], "at places that it does not have"),
        ([-1], [1e-9], "at places that it does not have"),
        ([1, 1], [0.0, 0.0], "at places that it does not have"),
        ([0], [0.5], "w has rests that are larger than its last digit"),
        ([0], [math.nan], "w has rests that are larger than its last digit"),
    ],
)
def test_rests_that_do_not_fit_are_refused(
    tmp_path: Path, where: Any, rest: Any, reason: str
) -> None:
    about, tensors = sealed(tmp_path)
    if where is not None:
        tensors["w//where"] = torch.tensor(where, dtype=torch.int32)
    if rest is not None:
        tensors["w//rest"] = torch.tensor(rest)
    with pytest.raises(DamagedError, match=reason):
        opened(Parcel(about, tensors), orders(), SHAPES)


def test_rests_are_of_float32_alone(tmp_path: Path) -> None:
    rests = {"w//where": torch.zeros(1, dtype=torch.int32), "w//rest": torch.zeros(1)}
    about, tensors = sealed(tmp_path, "int8")
    with pytest.raises(DamagedError, match="rests of other numbers than were sent"):
        opened(Parcel(about, tensors | rests), orders(), SHAPES)
    about, tensors = sealed(tmp_path)
    wrong = {**rests, "w//where": torch.zeros(1, dtype=torch.int64)}
    with pytest.raises(DamagedError, match=r"torch\.float32 at places of torch\.int64"):
        opened(Parcel(about, tensors | wrong), orders(), SHAPES)


@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 0.5), ("int8", 0.25)])
def test_fewer_bytes_travel(tmp_path: Path, precision: Any, share: float) -> None:
    delta = {"w": torch.randn(64, 256)}
    sizes = {
        kind: sum(v.numel() * v.element_size() for v in rounded(delta, kind).values())
        for kind in ("float32", precision)
    }
    assert sizes[precision] / sizes["float32"] == pytest.approx(share, abs=0.01)
    sealed = PlainSealing(precision, tmp_path).seal(
        Update(delta, 1, {"loss": 0}), orders(1, ("w",))
    )
    assert len(sealed.pack()) < 64 * 256 * 4 * share * 1.1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-900, 900, width=32), min_size=3, max_size=3), min_size=1, max_size=4
    )
)
def test_a_byte_is_off_by_half_a_step_at_most(rows: list[list[float]]) -> None:
    value = torch.tensor(rows)
    found = restored(rounded({"w": value}, "int8"), "int8")["w"]
    step = value.abs().amax(1, keepdim=True) / 127
    assert bool(((found - value).abs() <= step / 2 * (1 + 1e-4) + 1e-38).all())
    assert found.shape == value.shape


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_what_rounding_loses_comes_with_the_next(tmp_path: Path, precision: Any) -> None:
    sealing = PlainSealing(precision, tmp_path)
    wanted, arrived = torch.zeros(3, 4), torch.zeros(3, 4)
    for number in range(1, 30):
        sent = update(number)
        found = opened(through(sealing.seal(sent, orders(number))), orders(number), SHAPES)
        sealing.counted("run", number)
        wanted, arrived = wanted + sent.delta["w"], arrived + found.delta["w"]
    once = restored(rounded({"w": wanted}, precision), precision)["w"]
    # The sum of 29 rounded updates is as near as a single rounded one, not 29 times as far.
    apart = float((arrived - wanted).abs().max())
    assert apart < 2e-3
    assert apart < 3 * float((once - wanted).abs().max())


def test_the_same_round_has_the_same_parcel_and_counts_once(tmp_path: Path) -> None:
    sealing = PlainSealing("int8", tmp_path)
    first = sealing.seal(update(1), orders(1)).pack()
    assert sealing.seal(update(1), orders(1)).pack() == first
    assert PlainSealing("int8", tmp_path).seal(update(1), orders(1)).pack() == first
    plain = PlainSealing("int8", tmp_path / "other").seal(update(2), orders(2)).pack()
    # Not accepted: the next update is as if it had never been sealed.
    sealing.counted("run", 0)
    assert sealing.seal(update(2), orders(2)).pack() == plain
    # Accepted, and told so as often as anybody likes: its loss comes along, once.
    again = PlainSealing("int8", tmp_path / "third")
    again.seal(update(1), orders(1))
    again.counted("run", 1)
    again.counted("run", 1)
    second = again.seal(update(2), orders(2)).pack()
    again.counted("run", 1)
    assert again.seal(update(2), orders(2)).pack() == second != plain


def test_names_that_rest_keep_what_they_lost(tmp_path: Path) -> None:
    sealing, sent = PlainSealing("int8", tmp_path), update(3)
    lost = sent.delta["w"] - restored(rounded(sent.delta, "int8"), "int8")["w"]
    sealing.seal(sent, orders(1))
    sealing.counted("run", 1)
    sealing.seal(update(4, delta={"v": torch.ones(5)}), orders(2, ("v",)))
    sealing.counted("run", 2)
    found = sealing.seal(update(5, delta={"w": torch.zeros(3, 4)}), orders(3, ("w",)))
    assert torch.equal(
        restored(found.tensors, "int8")["w"], restored(rounded({"w": lost}, "int8"), "int8")["w"]
    )


def test_another_run_begins_without_what_was_lost(tmp_path: Path) -> None:
    sealing = PlainSealing("int8", tmp_path)
    sealing.seal(update(1), orders(1))
    sealing.counted("run", 1)
    other = Orders("other", 2, ("s", "v", "w"), ("a",), 7)
    plain = PlainSealing("int8", tmp_path / "new").seal(update(2), other)
    assert sealing.seal(update(2), other).pack() == plain.pack()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_factors_arrive_as_their_product(tmp_path: Path, precision: Any) -> None:
    first, second = torch.randn(2, 4), torch.randn(3, 2)
    sealing = PlainSealing(precision, tmp_path)
    sent = update(delta={"w//a": first, "w//b": second})
    parcel = through(sealing.seal(sent, orders(1, ("w",))))
    found = opened(parcel, orders(1, ("w",)), SHAPES)
    assert list(found.delta) == ["w"]
    near = {"float32": 1e-6, "bfloat16": 0.05, "int8": 0.08}[precision]
    assert torch.allclose(found.delta["w"], second @ first, atol=near)
    sealing.counted("run", 1)
    again = sealing.seal(sent, orders(2, ("w",)))  # fresh factors owe nothing to the last ones
    assert torch.equal(again.tensors["w//a"], parcel.tensors["w//a"])


def test_a_product_beside_whole_weights() -> None:
    found = multiplied({"v": torch.ones(2), "w//b": torch.ones(3, 1), "w//a": torch.ones(1, 2)})
    assert torch.equal(found["w"], torch.ones(3, 2))
    assert set(found) == {"v", "w"}


def sealed(tmp_path: Path, precision: Any = "float32") -> tuple[dict[str, Any], dict[str, Tensor]]:
    parcel = PlainSealing(precision, tmp_path).seal(update(), orders())
    return dict(parcel.about), dict(parcel.tensors)


ABOUT = [
    ({"round": 0}, "an update of round 0 of run 'run' is a replay in round 1 of run 'run'"),
    ({"run": "old"}, "is a replay in round 1"),
    ({"form": "masked"}, "in the form 'masked'"),
    ({"precision": "float64"}, "precision 'float64'"),
    ({"precision": ["float32"]}, "precision \\['float32'\\]"),
    ({"weight": 0}, "its weight is 0, which is no number of questions"),
    ({"weight": -3}, "its weight is -3"),
    ({"weight": 1e12}, "its weight is 1e\\+12"),
    ({"weight": "many"}, "its weight is no finite number"),
    ({"weight": True}, "its weight is no finite number"),
    ({"weight": math.inf}, "its weight is no finite number"),
    ({"weight": 10**400}, "its weight is no finite number"),
    ({"metrics": {}}, "it tells no metrics"),
    ({"metrics": {"f1": 1.0}}, "it tells no loss"),
    ({"metrics": {"loss": math.nan}}, "its 'loss' is no finite number"),
    ({"metrics": {str(n): 1 for n in range(101)}}, "it tells no metrics"),
    ({"epsilon": -1}, "its epsilon is -1"),
    ({"epsilon": "none"}, "its epsilon is no finite number"),
    ({"seconds": None}, "its seconds is no finite number"),
]


@pytest.mark.parametrize(("change", "reason"), ABOUT)
def test_what_cannot_be_true_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    about, tensors = sealed(tmp_path)
    with pytest.raises(DamagedError, match=reason):
        opened(Parcel(about | change, tensors), orders(), SHAPES)


TENSORS = [
    ({"w": torch.full((3, 4), math.nan)}, "w holds a number that is not finite"),
    ({"w": torch.full((3, 4), -math.inf)}, "w holds a number that is not finite"),
    ({"w": torch.full((3, 4), 2e3)}, "w changes by 2e\\+03, at most 1000 is believed"),
    ({"w": torch.zeros(4, 3)}, "w has the shape \\(4, 3\\), not \\(3, 4\\)"),
    ({"w": torch.zeros(3, 4, dtype=torch.float64)}, "w holds torch.float64, not float32"),
    ({"w": torch.zeros(3, 4, dtype=torch.int64)}, "w holds torch.int64"),
    ({"x": torch.zeros(1)}, "names that were not asked for: x"),
    ({"w": None}, "no change of: w"),
    ({"w//a": torch.zeros(1, 4), "w//b": torch.zeros(3, 1)}, "w comes twice"),
    ({"w": None, "w//a": torch.zeros(1, 4)}, "w comes as one factor of two"),
    ({"w": None, "w//a": torch.zeros(1, 4), "w//b": torch.zeros(3, 2)}, "which have no product"),
    ({"w": None, "w//a": torch.zeros(1, 3), "w//b": torch.zeros(3, 1)}, "is not \\(3, 4\\)"),
    ({"w": None, "w//a": torch.zeros(4), "w//b": torch.zeros(3)}, "which have no product"),
    (
        {"w": None, "w//a": torch.full((1, 4), 900.0), "w//b": torch.full((3, 1), 900.0)},
        "w changes by 8.1e\\+05",
    ),
    ({"w//scale": torch.ones(3)}, "other scales than numbers in a byte need"),
]


@pytest.mark.parametrize(("change", "reason"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    about, tensors = sealed(tmp_path)
    bent = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    with pytest.raises(DamagedError, match=reason):
        opened(Parcel(about, bent), orders(), SHAPES)


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        (torch.ones(2), "w has scales \\(2,\\)"),
        (torch.ones(3, dtype=torch.float64), "of torch.float64"),
        (torch.tensor([1.0, math.nan, 1.0]), "w has a scale that is no size"),
        (torch.tensor([1.0, -1.0, 1.0]), "w has a scale that is no size"),
        (torch.tensor([1.0, math.inf, 1.0]), "w holds a number that is not finite"),
        (torch.full((3,), 1e30), "at most 1000 is believed"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path: Path, scale: Tensor, reason: str) -> None:
    about, tensors = sealed(tmp_path, "int8")
    with pytest.raises(DamagedError, match=reason):
        opened(Parcel(about, {**tensors, "w//scale": scale}), orders(), SHAPES)


def test_the_largest_believed_change_is_believed(tmp_path: Path) -> None:
    about, tensors = sealed(tmp_path)
    tensors["w"] = torch.full((3, 4), MOST_CHANGE)
    assert float(opened(Parcel(about, tensors), orders(), SHAPES).delta["w"].max()) == MOST_CHANGE


def test_a_party_does_not_send_what_is_no_number(tmp_path: Path) -> None:
    bad = update(delta={"w": torch.tensor([math.nan])})
    with pytest.raises(UsageError, match="the change of w holds a number that is not finite"):
        PlainSealing("int8", tmp_path).seal(bad, orders(1, ("w",)))
    assert list(tmp_path.iterdir()) == []


def test_plain_updates_have_no_second_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="round 1 asks for a second message"):
        PlainSealing("float32", tmp_path).further(Parcel({}), orders())
