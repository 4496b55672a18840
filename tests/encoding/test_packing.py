"""Matrices in eight bits: how near they stay, what they become again, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.encoding.packing import FEWEST_ROWS, GROUP, opened, packed, rounded
from consilience.errors import DamagedError


def matrix(rows: int, columns: int, *, spread: float = 0.05, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, columns, generator=draw)


@settings(deadline=None)
@given(
    rows=st.integers(FEWEST_ROWS, 40),
    columns=st.sampled_from([1, 7, 64, 100, 128, 192]),
    power=st.integers(-30, 30),
    seed=st.integers(0, 1000),
)
def test_no_weight_moves_by_more_than_half_a_scale(
    rows: int, columns: int, power: int, seed: int
) -> None:
    weight = matrix(rows, columns, spread=2.0**power, seed=seed)
    codes, scales = rounded(weight)
    grouped = weight.reshape(*scales.shape, -1)
    again = codes.reshape(*scales.shape, -1).float() * scales[..., None]
    assert bool(((again - grouped).abs() <= 0.5001 * scales[..., None]).all())
    assert int(codes.abs().max()) == 127


def test_neighbours_of_a_large_weight_suffer_in_their_group_alone() -> None:
    weight = matrix(16, 2 * GROUP)
    weight[3, 5] = 40.0
    _, scales = rounded(weight)
    assert scales.shape == (16, 2)
    assert float(scales[3, 0]) == pytest.approx(40 / 127)
    assert float(scales[3, 1]) < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_opened_is_bfloat16_and_packs_to_the_same_again(dtype: torch.dtype) -> None:
    tensors = {"a.weight": matrix(32, 128).to(dtype), "a.bias": torch.ones(5)}
    once = packed(tensors)
    assert set(once) == {"a.weight.int8", "a.weight.scale", "a.bias"}
    whole = opened(once)
    assert whole["a.weight"].dtype == torch.bfloat16
    assert torch.equal(whole["a.bias"], tensors["a.bias"])
    twice = packed(whole)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_what_is_opened_is_near_what_was_packed() -> None:
    weight = matrix(64, 256)
    error = opened(packed({"w": weight}))["w"].float() - weight
    assert float(error.norm() / weight.norm()) < 0.008


def test_zeros_stay_zeros() -> None:
    weight = torch.zeros(16, 64)
    assert torch.equal(opened(packed({"w": weight}))["w"].float(), weight)


@pytest.mark.parametrize(
    "kept",
    [torch.ones(7), torch.ones(FEWEST_ROWS - 1, 64), torch.ones(20, 8, 3), torch.ones(20, 8).int()],
)
def test_vectors_few_rows_and_whole_numbers_stay_as_they_are(kept: torch.Tensor) -> None:
    assert torch.equal(packed({"one": kept})["one"], kept)


def test_what_is_written_lies_end_to_end() -> None:
    across = packed({"few": matrix(8, 4).t(), "many": matrix(64, 32).t()})
    assert all(part.is_contiguous() for part in across.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    weight = matrix(16, 64)
    weight[1, 2] = value
    with pytest.raises(DamagedError, match=r"tensor a\.b holds numbers that are not finite"):
        packed({"a.b": weight})


def test_codes_without_scales_and_scales_without_codes_are_refused() -> None:
    whole = packed({"w": matrix(16, 64)})
    with pytest.raises(DamagedError, match=r"the codes w\.int8 have no scales beside them"):
        opened({"w.int8": whole["w.int8"]})
    with pytest.raises(DamagedError, match=r"the scales w\.scale have no codes beside them"):
        opened({"w.scale": whole["w.scale"]})


@pytest.mark.parametrize(
    "scales",
    [
        torch.ones(15, 1),
        torch.ones(16, 3),
        torch.ones(16),
        torch.ones(16, 0),
        torch.ones(16, 128),
        torch.ones(16, 1, dtype=torch.float64),
        torch.zeros(16, 1),
        torch.full((16, 1), float("nan")),
        torch.full((16, 1), float("inf")),
    ],
)
def test_scales_that_do_not_fit_are_refused(scales: torch.Tensor) -> None:
    codes = packed({"w": matrix(16, 64)})["w.int8"]
    with pytest.raises(DamagedError, match=r"w: codes \[16, 64\] int8 and scales .* do not belong"):
        opened({"w.int8": codes, "w.scale": scales})


def test_codes_of_another_type_are_refused() -> None:
    with pytest.raises(DamagedError, match=r"codes \[16, 64\] int32 and scales"):
        opened({"w.int8": torch.ones(16, 64).int(), "w.scale": torch.ones(16, 1)})
