from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from consilience.generation import heads
from consilience.generation.heads import Head, Scratch, log_probs_of, next_token, score_targets

ROWS, ENDS, STEPS, HIDDEN = 3, 2, 5, 8


def made(v: int, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> Head:
    source = torch.Generator().manual_seed(v)
    weight = torch.randn(v, HIDDEN, generator=source, dtype=torch.float64).to(dtype)
    shift = torch.randn(v, generator=source, dtype=torch.float64).to(dtype) if bias else None
    return Head(weight.requires_grad_(), None if shift is None else shift.requires_grad_())


def states(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    source = torch.Generator().manual_seed(n)
    return torch.randn(ROWS, n, HIDDEN, generator=source, dtype=torch.float64).to(dtype)


def targets(v: int) -> Tensor:
    return torch.randint(0, v, (ROWS, STEPS), generator=torch.Generator().manual_seed(7))


def plain(of: Tensor, head: Head, ids: Tensor) -> tuple[Tensor, Tensor]:
    full = head.logits(of).log_softmax(-1)
    return full.gather(-1, ids[..., None])[..., 0], full.sum(-1)


class TestLogProbsOf:
    AFTER, IDS = torch.tensor([0, 4, 4, 2]), torch.tensor([3, 0, 4, 1])

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("v", [5, 2048, 5000])
    def test_equals_softmax(self, v: int, bias: bool) -> None:
        head, five = made(v, bias=bias), states(2).flatten(0, 1)[:5]
        expected = head.logits(five).log_softmax(-1)[self.AFTER, self.IDS]
        found = log_probs_of(five, self.AFTER, self.IDS, head)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not found.requires_grad

    def test_half_precision_is_added_up_in_float32(self) -> None:
        head, five = made(3000, dtype=torch.bfloat16), states(2).flatten(0, 1)[:5].bfloat16()
        wide = Head(head.weight.float(), None if head.bias is None else head.bias.float())
        expected = wide.logits(five.float()).log_softmax(-1)[self.AFTER, self.IDS]
        found = log_probs_of(five, self.AFTER, self.IDS, head)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)

    def test_the_head_prepares_the_states(self) -> None:
        head, five = made(50), states(2).flatten(0, 1)[:5]
        scaled = Head(head.weight, head.bias, lambda one: one * 0.25)
        expected = head.logits(five * 0.25).log_softmax(-1)[self.AFTER, self.IDS]
        found = log_probs_of(five, self.AFTER, self.IDS, scaled)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_logits_far_apart_are_numbers(self) -> None:
        head, at = Head(torch.tensor([[1.0], [-1.0], [1.0]])), torch.zeros(2, dtype=torch.long)
        found = log_probs_of(torch.full((1, 1), 50.0), at, torch.tensor([0, 1]), head)
        torch.testing.assert_close(found, torch.tensor([-0.6931472, -100.6931472]))


class TestNextToken:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("v", [5, 2048, 5000])
    def test_equals_softmax(self, v: int, bias: bool) -> None:
        head = made(v, bias=bias)
        following = next_token(states(ENDS), head, Scratch())
        expected = head.logits(states(ENDS)).log_softmax(-1)
        assert following.weights.shape == (ROWS, ENDS, v)
        torch.testing.assert_close(following.weights.sum(-1), following.totals)
        torch.testing.assert_close(following.log_probs(), expected, atol=1e-4, rtol=1e-5)
        assert not following.weights.requires_grad

    def test_the_head_prepares_the_states(self) -> None:
        head = made(50)
        scaled = Head(head.weight, head.bias, lambda one: one * 0.25)
        expected = head.logits(states(ENDS) * 0.25).log_softmax(-1)
        following = next_token(states(ENDS), scaled, Scratch())
        torch.testing.assert_close(following.log_probs(), expected, atol=1e-5, rtol=1e-5)

    def test_logits_far_apart_are_numbers(self) -> None:
        head = Head(torch.tensor([[1.0], [-1.0], [1.0]]))
        following = next_token(torch.full((1, 1, 1), 5000.0), head, Scratch())
        torch.testing.assert_close(following.weights[0, 0, [0, 2]], torch.ones(2))
        assert 0.0 < float(following.weights[0, 0, 1]) < 1e-36
        assert float(following.totals) == 2.0

    def test_weights_of_half_precision_are_read(self) -> None:
        head = made(300, dtype=torch.bfloat16)
        following = next_token(states(ENDS, torch.bfloat16), head, Scratch())
        expected = head.logits(states(ENDS, torch.bfloat16)).float().log_softmax(-1)
        assert following.weights.dtype == torch.float32
        torch.testing.assert_close(following.log_probs(), expected, atol=5e-2, rtol=5e-2)

    def test_steps_write_over_one_another(self) -> None:
        head, scratch = made(40), Scratch()
        wide = next_token(states(4), head, scratch)
        narrow = next_token(states(2), head, scratch)
        assert narrow.weights.data_ptr() == wide.weights.data_ptr()
        wider = next_token(states(6), head, scratch)
        expected = head.logits(states(6)).log_softmax(-1)
        torch.testing.assert_close(wider.log_probs(), expected, atol=1e-5, rtol=1e-5)


class _Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


class TestTargets:
    @pytest.fixture(autouse=True)
    def _small_tiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heads, "_TILE_ELEMENTS", 1)

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("v", [11, 256, 600])
    def test_scores_and_gradients_equal_log_softmax(self, v: int, bias: bool) -> None:
        ids, gradients = targets(v), []
        for way in ("plain", "tiled"):
            head, of = made(v, bias=bias), states(STEPS).requires_grad_()
            if way == "plain":
                log_probs, sums = plain(of, head, ids)
            else:
                scored = score_targets(of, ids, head, with_sums=True)
                assert scored.sums is not None
                log_probs, sums = scored.log_probs, scored.sums
            weighted = log_probs * torch.arange(1.0, STEPS + 1) + 0.01 * sums
            wanted = [of, head.weight, *([head.bias] if head.bias is not None else [])]
            gradients.append([log_probs, sums, *torch.autograd.grad(weighted.sum(), wanted)])
        for expected, found in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)

    def test_gradients_are_those_of_the_function(self) -> None:
        ids = targets(300)
        mask = torch.rand(ROWS, STEPS, generator=torch.Generator().manual_seed(1)) > 0.3

        def scored(of: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
            found = score_targets(of, ids, Head(weight, bias), mask=mask, with_sums=True)
            return found.log_probs, found.sums

        head = made(300, dtype=torch.float64)
        of = states(STEPS, torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(scored, (of, head.weight, head.bias), fast_mode=True)

    def test_what_is_masked_is_zero_and_moves_nothing(self) -> None:
        head, ids = made(30), targets(30)
        mask = torch.zeros(ROWS, STEPS, dtype=torch.bool)
        mask[1, 2] = True
        of = states(STEPS).requires_grad_()
        scored = score_targets(of, ids, head, mask=mask)
        expected, _ = plain(of, head, ids)
        torch.testing.assert_close(scored.log_probs, expected * mask)
        scored.log_probs.sum().backward()
        assert of.grad is not None
        assert of.grad.abs().sum(-1).nonzero().tolist() == [[1, 2]]
        assert scored.sums is None

    def test_nothing_wanted_is_all_zero(self) -> None:
        mask = torch.zeros(ROWS, STEPS, dtype=torch.bool)
        scored = score_targets(states(STEPS), targets(30), made(30), mask=mask)
        torch.testing.assert_close(scored.log_probs, torch.zeros(ROWS, STEPS))

    def test_frozen_weights_get_no_gradient(self) -> None:
        head = made(30)
        frozen = Head(head.weight.detach(), None)
        of = states(STEPS).requires_grad_()
        score_targets(of, targets(30), frozen).log_probs.sum().backward()
        expected = states(STEPS).requires_grad_()
        plain(expected, frozen, targets(30))[0].sum().backward()
        torch.testing.assert_close(of.grad, expected.grad, atol=1e-5, rtol=1e-5)

    def test_under_autocast_the_scores_are_float32(self) -> None:
        head, ids = made(300), targets(300)
        of = states(STEPS, torch.bfloat16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            log_probs = score_targets(of, ids, head).log_probs
        assert log_probs.dtype == torch.float32
        log_probs.sum().backward()
        whole = of.detach().float().requires_grad_()
        exact, _ = plain(whole, head, ids)
        torch.testing.assert_close(log_probs, exact, atol=0.1, rtol=0.02)
        assert of.grad is not None
        assert of.grad.dtype == torch.bfloat16
        assert head.weight.grad is not None
        assert head.weight.grad.dtype == torch.float32
        (expected,) = torch.autograd.grad(exact.sum(), whole)
        torch.testing.assert_close(of.grad.float(), expected, atol=0.1, rtol=0.1)

    def test_under_autocast_states_of_float32_are_multiplied_in_its_type(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        multiplied: set[torch.dtype] = set()
        write = heads._write_product

        def noted(out: Tensor, left: Tensor, right: Tensor) -> None:
            multiplied.update((left.dtype, right.dtype))
            write(out, left, right)

        monkeypatch.setattr(heads, "_write_product", noted)
        head, ids, of = made(300), targets(300), states(STEPS).requires_grad_()
        exact, _ = plain(of, head, ids)
        with torch.autocast("cpu", torch.bfloat16):
            log_probs = score_targets(of, ids, head).log_probs
        assert multiplied == {torch.bfloat16}
        torch.testing.assert_close(log_probs, exact, atol=0.1, rtol=0.02)
        (wanted,) = torch.autograd.grad(exact.sum(), of)
        log_probs.sum().backward()
        assert multiplied == {torch.bfloat16}
        assert of.grad is not None
        assert of.grad.dtype == torch.float32
        torch.testing.assert_close(of.grad, wanted, atol=0.1, rtol=0.1)

    def test_without_autocast_they_stay_as_they_are(self) -> None:
        head, ids, of = made(300), targets(300), states(STEPS).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            log_probs = score_targets(of, ids, head).log_probs
        exact, _ = plain(of, head, ids)
        torch.testing.assert_close(log_probs, exact, atol=1e-5, rtol=1e-5)

    def test_never_are_all_logits_in_memory(self) -> None:
        v = 2000
        head, of = made(v), states(STEPS).requires_grad_()
        with _Largest() as largest:
            score_targets(of, targets(v), head).log_probs.sum().backward()
        assert largest.elements <= v * HIDDEN < v * ROWS * STEPS
