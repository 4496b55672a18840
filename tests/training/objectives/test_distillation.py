"""A student and its teacher."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from consilience.errors import UsageError
from consilience.training.objectives import distil_posterior, distil_states, distil_sum

MASK = torch.tensor([[True, True, False], [True, False, False]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_the_sum_is_the_divergence_of_torch_at_the_tokens() -> None:
    student, teacher = drawn(2, 3, 5), drawn(2, 3, 5, seed=1)
    told, wanted = (student / 2)[MASK].log_softmax(-1), (teacher / 2)[MASK].softmax(-1)
    expected = 4 * torch.nn.functional.kl_div(told, wanted, reduction="batchmean")
    torch.testing.assert_close(distil_sum(student, teacher, MASK, temperature=2.0), expected)


def test_no_gradient_reaches_a_teacher() -> None:
    student, teacher = drawn(2, 3, 5).requires_grad_(), drawn(2, 3, 5, seed=1).requires_grad_()
    distil_sum(student, teacher, MASK).backward()
    distil_states(student, teacher, MASK).backward()
    distil_posterior(student[:, 0], teacher[:, 0].softmax(-1)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_gradients_agree_with_finite_differences() -> None:
    teacher, given = drawn(2, 3, 5, seed=1), drawn(2, 3, 5).requires_grad_()
    assert gradcheck(lambda z: distil_sum(z, teacher, MASK, temperature=3.0), (given,))
    posterior = drawn(2, 4, seed=2).softmax(-1)
    assert gradcheck(lambda s: distil_posterior(s, posterior), (drawn(2, 4).requires_grad_(),))
    projection = drawn(5, 4, seed=3).requires_grad_()
    states = drawn(2, 3, 4, seed=4)
    for likeness in ("cosine", "mse"):

        def loss(own: Tensor, matrix: Tensor, likeness: str = likeness) -> Tensor:
            return distil_states(
                own,
                states,
                MASK,
                projection=matrix,
                likeness=likeness,  # type: ignore[arg-type]
            )

        assert gradcheck(loss, (given, projection))


def test_words_that_the_teacher_rules_out() -> None:
    teacher = torch.tensor([[[0.0, 1.0, float("-inf")]]])
    student = torch.tensor([[[0.0, 1.0, float("-inf")]]], requires_grad=True)
    loss = distil_sum(student, teacher, torch.tensor([[True]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(UsageError, match=r"logits are \[2, 3, 5\] and the teacher's \[2, 3, 6\]"):
        distil_sum(drawn(2, 3, 5), drawn(2, 3, 6), MASK)


def test_the_posterior_becomes_the_prior() -> None:
    posterior = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    scores = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    distil_posterior(scores, posterior).backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.full((1, 3), 1 / 3).double() - posterior)


def test_a_share_of_passages_that_the_student_has_not_is_shared_out() -> None:
    posterior = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, False]])
    scores = drawn(2, 3)
    expected = distil_posterior(scores[:1, :2], torch.tensor([[2 / 3, 1 / 3]]).double())
    torch.testing.assert_close(distil_posterior(scores, posterior, mask=mask), expected)


def test_states_by_hand() -> None:
    student = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    assert float(distil_states(student, teacher, mask)) == pytest.approx(1 - 0.5**0.5)
    assert float(distil_states(student, teacher, mask, likeness="mse")) == pytest.approx(0.5)


def test_only_mse_sees_lengths() -> None:
    student, teacher = drawn(2, 3, 5), drawn(2, 3, 5, seed=1)
    torch.testing.assert_close(
        distil_states(3 * student, teacher, MASK), distil_states(student, teacher, MASK)
    )
    assert float(distil_states(3 * student, teacher, MASK, likeness="mse")) > float(
        distil_states(student, teacher, MASK, likeness="mse")
    )


def test_states_of_other_sizes_need_a_projection() -> None:
    with pytest.raises(UsageError) as caught:
        distil_states(drawn(2, 3, 5), drawn(2, 3, 4), MASK)
    assert caught.value.hint == "Give projection, a parameter of [5, 4]."


def test_no_token_is_zero() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert float(distil_sum(drawn(2, 3, 5), drawn(2, 3, 5, seed=1), nothing)) == 0.0
    assert float(distil_states(drawn(2, 3, 5), drawn(2, 3, 5, seed=1), nothing)) == 0.0
