"""Objectives of a retriever: hand-worked values, gradients, and what must not matter."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from consilience.training.objectives import (
    false_negative_mask,
    info_nce,
    kl_distillation,
    margin_mse,
)

POSITIVES = torch.tensor([0, 2, 1])


def scores(b: int = 3, p: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, p, dtype=torch.float64, generator=generator)


class TestInfoNce:
    def test_is_cross_entropy_over_the_batch(self) -> None:
        expected = torch.nn.functional.cross_entropy(scores() / 0.5, POSITIVES)
        torch.testing.assert_close(info_nce(scores(), POSITIVES, temperature=0.5), expected)

    def test_by_hand(self) -> None:
        given = torch.tensor([[math.log(3.0), 0.0]])
        assert float(info_nce(given, torch.tensor([0]))) == pytest.approx(math.log(4 / 3))

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_gradient_agrees_with_finite_differences(self, symmetric: bool) -> None:
        masked = torch.zeros(3, 5, dtype=torch.bool)
        masked[0, 3] = masked[1, 0] = True
        temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

        def loss(values: torch.Tensor, degree: torch.Tensor) -> torch.Tensor:
            return info_nce(
                values, POSITIVES, temperature=degree, masked=masked, symmetric=symmetric
            )

        assert gradcheck(loss, (scores().requires_grad_(), temperature))

    def test_a_masked_passage_is_as_one_that_is_not_there(self) -> None:
        masked = torch.zeros(3, 5, dtype=torch.bool)
        masked[:, 4] = True
        torch.testing.assert_close(
            info_nce(scores(), POSITIVES, masked=masked), info_nce(scores()[:, :4], POSITIVES)
        )

    def test_the_right_passage_cannot_be_masked(self) -> None:
        everything = torch.ones(3, 5, dtype=torch.bool)
        given = scores().requires_grad_()
        loss = info_nce(given, POSITIVES, masked=everything, symmetric=True)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert given.grad is not None
        assert float(given.grad.abs().max()) == 0.0

    def test_a_question_without_positive_is_left_out(self) -> None:
        given = scores().requires_grad_()
        loss = info_nce(given, torch.tensor([0, -1, 1]), symmetric=True)
        both = info_nce(given[[0, 2]], torch.tensor([0, 1]), symmetric=True)
        torch.testing.assert_close(loss, both)
        (gradient,) = torch.autograd.grad(loss, given)
        assert float(gradient[1].abs().max()) == 0.0

    def test_no_positive_at_all_is_zero_and_moves_nothing(self) -> None:
        given = scores().requires_grad_()
        loss = info_nce(given, torch.tensor([-1, -1, -1]), symmetric=True)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert given.grad is not None
        assert float(given.grad.abs().max()) == 0.0

    def test_the_order_of_questions_and_of_passages_does_not_matter(self) -> None:
        rows, columns = torch.tensor([2, 0, 1]), torch.tensor([4, 1, 0, 3, 2])
        moved = torch.argsort(columns)[POSITIVES[rows]]
        for symmetric in (False, True):
            torch.testing.assert_close(
                info_nce(scores()[rows][:, columns], moved, symmetric=symmetric),
                info_nce(scores(), POSITIVES, symmetric=symmetric),
            )

    def test_the_other_direction_tells_questions_apart(self) -> None:
        given = scores(3, 3)
        positives = torch.arange(3)
        there = torch.nn.functional.cross_entropy(given, positives)
        back = torch.nn.functional.cross_entropy(given.T, positives)
        found = info_nce(given, positives, symmetric=True)
        torch.testing.assert_close(found, (there + back) / 2)

    def test_two_questions_of_one_passage_are_not_told_apart(self) -> None:
        given = scores(2, 3)
        loss = info_nce(given, torch.tensor([1, 1]), symmetric=True)
        torch.testing.assert_close(loss, info_nce(given, torch.tensor([1, 1])) / 2)

    def test_half_precision_is_computed_in_full(self) -> None:
        given = torch.tensor([[75.03, 74.5]]).bfloat16()
        assert info_nce(given, torch.tensor([0])).dtype is torch.float32


class TestFalseNegatives:
    def test_passages_of_the_same_group(self) -> None:
        mask = false_negative_mask(torch.tensor([7, 8, 7, 9]), torch.tensor([0, 1, 2]))
        assert mask.tolist() == [
            [False, False, True, False],
            [False, False, False, False],
            [True, False, False, False],
        ]

    def test_passages_that_score_too_high(self) -> None:
        given = torch.tensor([[1.0, 0.95, 0.8, 2.0]])
        groups, positives = torch.arange(4), torch.tensor([0])
        found = false_negative_mask(groups, positives, scores=given, margin=0.1)
        assert found.tolist() == [[False, True, False, True]]
        found = false_negative_mask(groups, positives, scores=given)
        assert found.tolist() == [[False, False, False, True]]

    def test_without_a_positive_nothing_is_masked(self) -> None:
        given = torch.ones(1, 3)
        found = false_negative_mask(
            torch.tensor([1, 1, 1]), torch.tensor([-1]), scores=given, margin=1.0
        )
        assert not found.any()


class TestMarginMse:
    def test_by_hand(self) -> None:
        student, teacher = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[5.0, 4.0, 1.0]])
        assert float(margin_mse(student, teacher)) == pytest.approx((1.0 + 1.0) / 2)

    def test_levels_do_not_matter(self) -> None:
        student, teacher = scores(2, 4), scores(2, 4, seed=1)
        torch.testing.assert_close(
            margin_mse(student + 5.0, teacher - 3.0), margin_mse(student, teacher)
        )

    def test_gradient_reaches_the_student_alone(self) -> None:
        student, teacher = scores(2, 4).requires_grad_(), scores(2, 4, seed=1).requires_grad_()
        assert gradcheck(lambda values: margin_mse(values, teacher), (student,))
        margin_mse(student, teacher).backward()
        assert teacher.grad is None

    def test_missing_passages_do_not_count(self) -> None:
        student, teacher = scores(2, 4), scores(2, 4, seed=1)
        mask = torch.tensor([[True, True, True, False], [False, True, True, True]])
        expected = margin_mse(student[:1, :3], teacher[:1, :3])
        torch.testing.assert_close(margin_mse(student, teacher, mask=mask), expected)
        assert float(margin_mse(student[:, :1], teacher[:, :1])) == 0.0


class TestKlDistillation:
    def test_is_the_divergence_of_torch(self) -> None:
        student, teacher = scores(3, 4), scores(3, 4, seed=1)
        told, wanted = (student / 2).log_softmax(-1), (teacher / 2).softmax(-1)
        expected = 4 * torch.nn.functional.kl_div(told, wanted, reduction="batchmean")
        torch.testing.assert_close(kl_distillation(student, teacher, temperature=2.0), expected)

    def test_gradient_agrees_with_finite_differences(self) -> None:
        teacher = scores(3, 4, seed=1)
        mask = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])

        def loss(values: torch.Tensor) -> torch.Tensor:
            return kl_distillation(values, teacher, temperature=3.0, mask=mask)

        assert gradcheck(loss, (scores(3, 4).requires_grad_(),))

    def test_levels_do_not_matter_and_equality_is_zero(self) -> None:
        student = scores(3, 4)
        assert abs(float(kl_distillation(student + 2.0, student))) < 1e-12

    def test_one_passage_leaves_nothing_to_order(self) -> None:
        assert float(kl_distillation(scores(3, 1), scores(3, 1, seed=1))) == 0.0

    def test_missing_passages_do_not_count(self) -> None:
        student, teacher = scores(2, 4), scores(2, 4, seed=1)
        mask = torch.tensor([[True, True, True, False], [False] * 4])
        expected = kl_distillation(student[:1, :3], teacher[:1, :3])
        torch.testing.assert_close(kl_distillation(student, teacher, mask=mask), expected)
