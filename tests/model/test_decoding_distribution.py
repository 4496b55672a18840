"""The sum of a step, its best tokens and the rules, on tensors in both memory orders."""

import pytest
import torch
from torch import Tensor
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from consilience.generation import NextToken
from consilience.model.decoding.distribution import BLOCK, best, summed
from consilience.model.decoding.processors import Draft, Rule, forbid_repeats, penalise_repetition
from consilience.model.decoding.processors import processed as apply_rules

ORDERS = ["tokens last", "tokens first"]


def ordered(weights: Tensor, order: str) -> Tensor:
    """The same numbers, laid out as one kind of generator or the other would."""
    if order == "tokens last":
        return weights.contiguous()
    rows, n, v = weights.shape
    return weights.reshape(rows * n, v).T.contiguous().T.view(rows, n, v)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("b", "k", "n"), [(1, 1, 1), (2, 3, 1), (3, 2, 4), (2, 5, 3)])
def test_the_sum_is_the_sum(order: str, b: int, k: int, n: int) -> None:
    torch.manual_seed(0)
    weights = ordered(torch.rand(b * k, n, 50), order)
    totals = weights.sum(-1)
    log_weights = torch.randn(b, k, n).log_softmax(1)
    probs = (weights / totals[..., None]).view(b, k, n, 50)
    expected = (probs * log_weights.exp()[..., None]).sum(1)
    mixed = summed(NextToken(weights, totals), log_weights)
    torch.testing.assert_close(mixed.weights / mixed.totals[..., None], expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("v", [7, BLOCK, 10 * BLOCK, 20 * BLOCK + 17])
@pytest.mark.parametrize("count", [1, 2, 8, 40])
def test_the_best_are_the_greatest(order: str, v: int, count: int) -> None:
    torch.manual_seed(v + count)
    weights = ordered(torch.rand(3, 4, v), order)
    values, ids = best(weights, count)
    assert values.shape == (3, 4, min(count, v))
    torch.testing.assert_close(values, weights.topk(min(count, v), dim=-1).values)
    torch.testing.assert_close(weights.gather(-1, ids), values)


def test_the_greatest_may_all_stand_in_one_block_or_in_the_rest() -> None:
    weights = torch.rand(1, 1, 20 * BLOCK + 5)
    weights[..., 3:9] += 2.0
    weights[..., -2:] += 4.0
    _, ids = best(weights, 8)
    v = weights.shape[-1]
    assert set(ids[0, 0].tolist()) == {*range(3, 9), v - 2, v - 1}


def library(rule: str) -> tuple[Rule, object]:
    if rule == "penalty":
        change = Rule(lambda draft: penalise_repetition(draft, penalty=1.8))
        return change, RepetitionPenaltyLogitsProcessor(1.8)
    change = Rule(lambda draft: forbid_repeats(draft, size=2))
    return change, NoRepeatNGramLogitsProcessor(2)


@pytest.mark.parametrize("rule", ["penalty", "ngram"])
@pytest.mark.parametrize("order", ORDERS)
def test_rules_are_those_of_the_library(rule: str, order: str) -> None:
    torch.manual_seed(4)
    ours, theirs = library(rule)
    weights = ordered(torch.rand(3, 2, 6), order)
    totals, before = weights.sum(-1), weights.clone()
    written = torch.randint(0, 6, (3, 2, 12))
    changed = apply_rules(NextToken(weights, totals), (ours,), written, own=False)
    log_probs = (weights / totals[..., None]).log().view(6, 6)
    expected = theirs(written.view(6, 12), log_probs).view(3, 2, 6)  # type: ignore[operator]
    torch.testing.assert_close((changed.weights / totals[..., None]).log(), expected)
    assert torch.equal(weights, before)


def test_what_belongs_to_the_search_is_changed_in_place() -> None:
    weights = torch.rand(1, 1, 6)
    rule = Rule(lambda draft: draft.weights.mul_(0.0))
    mixed = NextToken(weights, weights.sum(-1))
    apply_rules(mixed, (rule,), torch.zeros(1, 1, 0, dtype=torch.long), own=True)
    assert not weights.any()


def test_too_little_written_repeats_nothing() -> None:
    weights = torch.rand(1, 1, 6)
    draft = Draft(weights.clone(), weights.sum(-1), torch.tensor([[[3]]]))
    forbid_repeats(draft, size=3)
    assert torch.equal(draft.weights, weights)


def test_a_rule_speaks_from_its_first_step_until_its_last() -> None:
    rule = Rule(lambda draft: None, first=1, until=3)
    assert [rule.active(step) for step in range(5)] == [False, True, True, False, False]
    assert Rule(lambda draft: None).active(100)
