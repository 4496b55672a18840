import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.retrieval.hybrid import fuse
from consilience.retrieval.learned_fusion import fuse_scores
from consilience.retrieval.ranking import Ranking
from tests.retrieval.test_hybrid import rankings

ABSENT = float("-inf")


def table(ranking: Ranking, numbers: list[int]) -> torch.Tensor:
    scores = dict(ranking)
    return torch.tensor([[scores.get(number, ABSENT) for number in numbers]], dtype=torch.float64)


@given(rankings, rankings, st.floats(0, 1))
def test_it_is_the_fusion_of_the_search(lexical: Ranking, dense: Ranking, share: float) -> None:
    numbers = sorted({n for n, _ in lexical} | {n for n, _ in dense})
    if not numbers:
        return
    fused = dict(fuse(lexical, dense, share=share))
    found = fuse_scores(table(lexical, numbers), table(dense, numbers), torch.tensor(share))
    # A width that single precision does not see is none here.
    narrow = any(
        0 < max(s) - min(s) < 1e-3 for s in ([x for _, x in r] for r in (lexical, dense)) if s
    )
    if not narrow:
        assert found[0].tolist() == pytest.approx([fused[n] for n in numbers], abs=1e-3)


def test_what_neither_half_brought_stays_absent() -> None:
    lexical = torch.tensor([[2.0, 1.0, ABSENT, ABSENT]])
    dense = torch.tensor([[ABSENT, 0.2, 0.9, ABSENT]])
    fused = fuse_scores(lexical, dense, torch.tensor(0.25))
    assert fused.tolist() == [[0.75, 0.0, 0.25, ABSENT]]


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    lexical = torch.rand(2, 5)
    dense = torch.rand(2, 5, requires_grad=True)
    share = torch.tensor(0.4, requires_grad=True)
    lexical[0, 3] = ABSENT
    weights = torch.rand(2, 5)

    def value(dense: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return (fuse_scores(lexical, dense, share).log_softmax(-1) * weights).sum()

    value(dense, share).backward()
    step = 1e-3
    with torch.no_grad():
        for place in [(0, 0), (0, 3), (1, 4)]:
            moved = torch.zeros_like(dense)
            moved[place] = step
            slope = (value(dense + moved, share) - value(dense - moved, share)) / (2 * step)
            assert dense.grad is not None
            assert float(dense.grad[place]) == pytest.approx(float(slope), abs=2e-3)
        slope = (value(dense, share + step) - value(dense, share - step)) / (2 * step)
    assert share.grad is not None
    assert float(share.grad) == pytest.approx(float(slope), abs=2e-3)


def test_alike_scores_and_empty_halves_have_no_gradient_that_is_no_number() -> None:
    dense = torch.full((2, 3), 0.5, requires_grad=True)
    lexical = torch.full((2, 3), ABSENT)
    share = torch.tensor(0.5, requires_grad=True)
    fuse_scores(lexical, dense, share).sum().backward()
    assert dense.grad is not None
    assert share.grad is not None
    assert dense.grad.isfinite().all()
    assert float(share.grad) == 6.0


def test_the_share_learns_which_half_is_right() -> None:
    """The likelihood of the right passage through the prior of a model moves the weight."""
    from consilience.model.fusion import log_prior

    torch.manual_seed(0)
    lexical, dense = torch.rand(32, 10), torch.rand(32, 10)
    right = dense.argmax(-1)
    raw = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(50):
        optimiser.zero_grad()
        prior = log_prior(fuse_scores(lexical, dense, raw.sigmoid()), torch.tensor(0.2))
        loss = -prior.gather(1, right[:, None]).mean()
        loss.backward()
        optimiser.step()
    assert float(raw.detach().sigmoid()) > 0.9


def test_halves_of_different_candidates_are_refused() -> None:
    with pytest.raises(UsageError) as error:
        fuse_scores(torch.zeros(1, 2), torch.zeros(1, 3), torch.tensor(0.5))
    assert error.value.message == "the halves score [1, 2] and [1, 3] candidates"
