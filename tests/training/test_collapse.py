"""Collapse is seen when it comes, told once, and over when it is over."""

import json
import math
from typing import Any

import pytest
import torch

from consilience.errors import ConsilienceError, UsageError
from consilience.training.collapse import (
    CollapseLimits,
    Retrieved,
    Watch,
    observe,
    refuse_collapse,
    retrieved,
)


def batch(names: list[list[str]]) -> Retrieved:
    return retrieved(names, torch.full((len(names), len(names[0])), 1 / len(names[0])).log())


SPREAD = batch([[f"p{n}", f"q{n}"] for n in range(10)])
SAME = batch([["p0", "p1"]] * 10)
THREE = CollapseLimits(distinct=0.2, most_frequent=0.5, window=3)


def after(*seen: Retrieved, limits: CollapseLimits = THREE, **given: Any) -> Watch:
    watch = Watch()
    for each in seen:
        watch = observe(watch, each, limits, **given)
    return watch


def test_what_a_batch_retrieved() -> None:
    assert (SPREAD.passages, SPREAD.distinct_per_question, SPREAD.most_frequent) == (20, 2.0, 0.1)
    assert (SAME.passages, SAME.distinct_per_question, SAME.most_frequent) == (20, 0.2, 1.0)
    assert pytest.approx(math.log(2)) == SAME.entropy
    assert pytest.approx(2.0) == SAME.perplexity


def test_entropy_of_a_prior_with_missing_passages() -> None:
    prior = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log()
    assert retrieved([["a"], ["a", "b"]], prior).entropy == pytest.approx(math.log(2) / 2)
    assert retrieved([["a"]], torch.tensor([[0.0, -1e9]])).entropy == 0.0
    assert retrieved([], torch.zeros(0, 2)).perplexity == 1.0


def test_numbers_below_zero_are_no_passages() -> None:
    seen = retrieved([[3, -1], [3, 4]], torch.zeros(2, 2))
    assert seen.counts == {"3": 2, "4": 1}


def test_a_passage_counts_once_a_question() -> None:
    assert batch([["a", "a"], ["b", "c"]]).counts == {"a": 1, "b": 1, "c": 1}


def test_nothing_is_judged_before_the_window_is_full() -> None:
    assert after(SAME, SAME).level == "sound"
    assert after(SAME, SAME, SAME).level == "warn"


def test_the_reasons_say_what_was_seen() -> None:
    assert after(SAME, SAME, SAME).reasons == (
        "2 distinct passages of 60 that could be (limit 20%)",
        "one passage for 100% of the questions (limit 50%)",
    )


def test_a_change_is_told_once_and_back_again() -> None:
    watch = after(SAME, SAME, SAME)
    assert watch.changed
    watch = observe(watch, SAME, THREE)
    assert (watch.level, watch.changed) == ("warn", False)
    for _ in range(3):
        watch = observe(watch, SPREAD, THREE)
    assert (watch.level, watch.reasons) == ("sound", ())
    back = [observe(after(SAME, SAME, SAME, SPREAD, SPREAD), SPREAD, THREE).level]
    assert back == ["sound"]


def test_the_window_forgets() -> None:
    watch = after(SAME, SAME, SPREAD, SPREAD, SPREAD)
    assert watch.level == "sound"
    assert watch.recent == (SPREAD,) * 3


def test_distinct_passages_are_counted_over_the_whole_window() -> None:
    """The same ten questions again and again are a collapse, other ones are none."""
    limits = CollapseLimits(distinct=0.5, most_frequent=1.0, window=3)
    assert after(SPREAD, SPREAD, SPREAD, limits=limits).level == "warn"
    others = [batch([[f"{i}p{n}", f"{i}q{n}"] for n in range(10)]) for i in range(3)]
    assert after(*others, limits=limits).level == "sound"


def test_a_small_store_is_measured_by_what_it_could_give() -> None:
    """Four passages, two a question: a random retriever gives each passage to half of them."""
    names = [["a", "b"], ["c", "d"], ["a", "d"], ["b", "c"]]
    small = batch(names * 5)
    limits = CollapseLimits(distinct=0.2, most_frequent=0.4, window=1)
    assert after(small, limits=limits).level == "warn"
    assert after(small, limits=limits, passages=4).level == "sound"
    assert after(SAME, limits=limits, passages=4).level == "warn"


def test_a_sharp_prior_counts_only_where_it_is_asked_for() -> None:
    sharp = Retrieved(10, SPREAD.counts, entropy=0.0)
    limits = CollapseLimits(window=1, perplexity=1.5)
    assert after(sharp, limits=CollapseLimits(window=1)).level == "sound"
    assert after(sharp, limits=limits).reasons == ("the prior's perplexity is 1.00 (limit 1.5)",)
    assert after(SPREAD, limits=limits).level == "sound"


def test_what_is_done_about_it() -> None:
    stop = CollapseLimits(action="stop", window=1)
    ignore = CollapseLimits(action="ignore", window=1)
    assert after(SAME, limits=ignore).level == "sound"
    refuse_collapse(after(SAME, limits=CollapseLimits(window=1)))
    with pytest.raises(ConsilienceError) as caught:
        refuse_collapse(after(SAME, limits=stop))
    assert caught.value.message == (
        "retrieval has collapsed: one passage for 100% of the questions (limit 90%)"
    )
    assert caught.value.hint.startswith("Begin again from an earlier checkpoint")


def test_the_state_goes_through_a_checkpoint() -> None:
    watch = after(SAME, SPREAD)
    again = Watch.of_dict(json.loads(json.dumps(watch.to_dict())))
    assert again == watch
    assert observe(again, SAME, THREE) == observe(watch, SAME, THREE)


@pytest.mark.parametrize("given", [{"distinct": 2.0}, {"most_frequent": -0.1}, {"window": 0}])
def test_limits_that_are_none(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        CollapseLimits(**given)
    name, value = next(iter(given.items()))
    assert f"{name}={value}" in caught.value.message
