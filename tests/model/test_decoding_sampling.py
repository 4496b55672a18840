import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from consilience.model.decoding.options import Sum
from consilience.model.fusion import log_prior, marginal
from tests.model.tables import QUESTIONS, SCORES, TableGenerator, ask_all, memory_of, truth

DRAWN = 3000


def first_step(generator: TableGenerator, question: str) -> Tensor:
    """p of the first token under the sum, `[v]`."""
    rows = [generator.distribution(row, ()) for row in memory_of(generator, [question])]
    return marginal(log_prior(SCORES)[..., None], torch.stack(rows)[None, :, None])[0, 0].exp()


def chi_square(counts: Counter[int], probs: Tensor) -> float:
    expected = DRAWN * probs
    return sum((counts[i] - float(e)) ** 2 / float(e) for i, e in enumerate(expected) if e > 0)


def draw_first(question: str, **options: object) -> Counter[int]:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask_all(
        generator,
        [question],
        sample=True,
        returned=DRAWN,
        max_new_tokens=1,
        limit="cut",
        **options,
    )
    return Counter(one.ids[0] if one.ids else generator.end for one in found)


@pytest.mark.parametrize("seed", [0, 1])
def test_tokens_are_drawn_with_their_probability(seed: int) -> None:
    probs = first_step(TableGenerator(vocabulary=7), "who")
    assert chi_square(draw_first("who", seed=seed), probs) < 25.0


def test_the_temperature_is_that_of_the_distribution() -> None:
    probs = first_step(TableGenerator(vocabulary=7), "who") ** 2
    counts = draw_first("who", temperature=0.5)
    assert chi_square(counts, probs / probs.sum()) < 25.0
    assert chi_square(counts, first_step(TableGenerator(vocabulary=7), "who")) > 100.0


def test_top_k_draws_among_the_best() -> None:
    probs = first_step(TableGenerator(vocabulary=7), "what")
    kept = probs * (probs >= probs.topk(3).values[-1])
    counts = draw_first("what", top_k=3)
    assert set(counts) == set(kept.nonzero()[:, 0].tolist())
    assert chi_square(counts, kept / kept.sum()) < 25.0


def test_top_p_draws_among_the_fewest_that_hold_so_much() -> None:
    probs = first_step(TableGenerator(vocabulary=7), "what")
    order = probs.argsort(descending=True)
    sums = probs[order].cumsum(0)
    top_p = float(sums[1] + sums[2]) / 2
    kept = torch.zeros(7).index_copy_(0, order[:3], probs[order[:3]])
    counts = draw_first("what", top_p=top_p)
    assert set(counts) == set(order[:3].tolist())
    assert chi_square(counts, kept / kept.sum()) < 25.0


@pytest.mark.parametrize("fusion", ["sequence", "token", "average"])
def test_whole_answers_are_drawn_with_their_probability(fusion: Sum) -> None:
    """The weights of passages move along with each sample."""
    generator = TableGenerator(vocabulary=4)
    (found,) = ask_all(generator, ["who"], fusion=fusion, sample=True, returned=DRAWN, seed=3)
    everything = truth(generator, "who", fusion)
    counts = Counter(tuple(one.ids) for one in found)
    probs = {ids: math.exp(score) for ids, score in everything.items() if len(ids) < 3}
    statistic = sum((counts[i] - DRAWN * p) ** 2 / (DRAWN * p) for i, p in probs.items())
    assert len(probs) == 7
    assert statistic < 35.0
    for one in found[:50]:
        assert one.log_likelihood == pytest.approx(everything[tuple(one.ids)], abs=1e-4)


def test_the_best_token_alone_is_greedy() -> None:
    generator = TableGenerator(vocabulary=7)
    greedy = ask_all(generator, QUESTIONS)
    drawn = ask_all(generator, QUESTIONS, sample=True, top_k=1, returned=2, seed=11)
    for (best,), samples in zip(greedy, drawn, strict=True):
        assert [one.ids for one in samples] == [best.ids, best.ids]


def test_a_sample_is_its_own_whatever_the_others() -> None:
    generator = TableGenerator(vocabulary=7)
    (many,) = ask_all(generator, ["who"], sample=True, returned=5, seed=2)
    (first,) = ask_all(generator, ["who"], sample=True, seed=2)
    assert first[0].ids == many[0].ids
    assert len({tuple(one.ids) for one in many}) > 1
    (again,) = ask_all(generator, ["who"], sample=True, returned=5, seed=2)
    assert [one.ids for one in again] == [one.ids for one in many]
    (other,) = ask_all(generator, ["who"], sample=True, returned=5, seed=3)
    assert [one.ids for one in other] != [one.ids for one in many]
