import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import NextToken, Pair
from consilience.model.decoding import DecodingOptions, decode, pad_answers
from consilience.model.decoding.options import Sum
from consilience.model.fusion import log_prior
from tests.model.tables import (
    MOST,
    PASSAGES,
    QUESTIONS,
    SCORES,
    ShrinkingTables,
    TableGenerator,
    TableState,
    ask,
    ask_all,
    likelihood,
    memory_of,
    truth,
)

SUMS: tuple[Sum, ...] = ("sequence", "token", "average")

MODES: list[dict[str, Any]] = [
    {},
    {"fusion": "token"},
    {"beams": 3, "returned": 3},
    {"beams": 4, "groups": 2, "diversity": 1.0, "returned": 4},
    {"sample": True, "returned": 3, "seed": 7},
    {"sample": True, "top_k": 3, "top_p": 0.8, "temperature": 0.7, "fusion": "average"},
    {"search": "thorough", "beams": 2, "returned": 3},
    {"search": "fast", "beams": 3, "returned": 2},
    {"beams": 3, "repetition_penalty": 1.5, "no_repeat_ngram": 2, "min_new_tokens": 2},
    {"beams": 2, "limit": "cut", "length_penalty": 1.0, "early_stopping": False},
    {"stop": ("4",), "beams": 2},
]


def named(mode: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in mode.items()) or "greedy"


@pytest.mark.parametrize("fusion", SUMS)
@pytest.mark.parametrize("question", ["who", "what", "when"])
def test_a_full_beam_finds_the_most_probable_answer(fusion: Sum, question: str) -> None:
    generator = TableGenerator(vocabulary=7)
    everything = truth(generator, question, fusion)
    best = max(everything, key=everything.__getitem__)
    (found,) = ask(generator, [question], fusion=fusion, beams=200)
    assert tuple(found.ids) == best
    assert found.log_likelihood == pytest.approx(everything[best], abs=1e-4)


@pytest.mark.parametrize("fusion", SUMS)
def test_a_full_beam_finds_every_answer_in_order(fusion: Sum) -> None:
    generator = TableGenerator(vocabulary=7)
    everything = truth(generator, "who", fusion)
    (found,) = ask_all(generator, ["who"], fusion=fusion, beams=200, returned=200)
    assert {tuple(one.ids) for one in found} == set(everything)
    scores = [one.log_likelihood for one in found]
    assert scores == pytest.approx(sorted(everything.values(), reverse=True), abs=1e-4)


@pytest.mark.parametrize("fusion", SUMS)
@pytest.mark.parametrize(
    ("none", "sequences"), [(False, 1 + 5 + 25 + 125), (True, 1 + 4 + 16 + 64)]
)
def test_all_there_is_to_write_adds_up_to_one(fusion: Sum, none: bool, sequences: int) -> None:
    generator = TableGenerator(vocabulary=7, none=none)
    (found,) = ask_all(generator, ["what"], fusion=fusion, beams=200, returned=200, limit="cut")
    assert len(found) == sequences
    assert sum(math.exp(one.log_likelihood) for one in found) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("fusion", SUMS)
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_the_score_is_the_true_log_likelihood(fusion: Sum, beams: int) -> None:
    generator = TableGenerator(vocabulary=7)
    for question in QUESTIONS:
        (found,) = ask(generator, [question], fusion=fusion, beams=beams)
        expected = likelihood(generator, question, [*found.ids, generator.end], fusion)
        assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
        assert found.score == pytest.approx(expected, abs=1e-4)
        assert found.ended


def test_an_answer_that_is_cut_is_worth_its_tokens_only() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask_all(generator, ["who"], beams=3, returned=3, limit="cut", max_new_tokens=1)
    cut = [one for one in found if not one.ended]
    assert cut
    for one in cut:
        assert len(one.ids) == 1
        expected = likelihood(generator, "who", one.ids, "sequence")
        assert one.log_likelihood == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fusion", ["token", "average"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_takes_the_best_token_of_the_sum_at_every_step(fusion: Sum, question: str) -> None:
    generator = TableGenerator(vocabulary=7)
    # Weights that moved would first be seen in the choice of a later token.
    most = 8
    (found,) = ask(generator, [question], fusion=fusion, max_new_tokens=most)
    weights = log_prior(SCORES)[0]
    memory = memory_of(generator, [question])
    prefix: tuple[int, ...] = ()
    for _ in range(most):
        rows = torch.stack([generator.distribution(row, prefix) for row in memory])
        token = int((rows + weights[:, None]).logsumexp(0).argmax())
        if token == generator.end:
            break
        prefix = (*prefix, token)
    assert tuple(found.ids) == prefix


def naive_beams(
    generator: TableGenerator, question: str, width: int, groups: int, diversity: float
) -> list[tuple[int, ...]]:
    """Beam search with groups, written down as it is explained: over a dictionary of prefixes."""
    finished: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(groups)]
    fronts: list[list[tuple[int, ...]]] = [[()] for _ in range(groups)]
    for step in range(MOST + 1):
        taken: Counter[int] = Counter()
        for group in range(groups):
            options = [
                (*prefix, token)
                for prefix in fronts[group]
                for token in (range(1, generator.vocabulary) if step < MOST else [generator.end])
            ]
            scores = {ids: likelihood(generator, question, ids, "sequence") for ids in options}
            dear = {ids: s - diversity * taken[ids[-1]] for ids, s in scores.items()}
            if step == MOST:
                dear = scores
            order = sorted(options, key=lambda ids: -dear[ids])
            taken.update(ids[-1] for ids in order[:width])
            finished[group] += [(scores[i], i) for i in order[:width] if i[-1] == generator.end]
            finished[group] = sorted(finished[group], reverse=True)[:width]
            open_ends = [ids for ids in order if ids[-1] != generator.end][:width]
            best = max((scores[ids] for ids in open_ends), default=-math.inf)
            settled = len(finished[group]) == width and (
                width == 1 or best <= finished[group][-1][0]
            )
            fronts[group] = [] if settled else open_ends
    together = [one for found in finished for one in found]
    return [ids[:-1] for _, ids in sorted(together, key=lambda one: -one[0])]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("width", "groups"), [(1, 3), (2, 2), (3, 2)])
def test_groups_are_searched_one_after_the_other(question: str, width: int, groups: int) -> None:
    generator = TableGenerator(vocabulary=7)
    beams = width * groups
    (found,) = ask_all(
        generator,
        [question],
        beams=beams,
        groups=groups,
        diversity=1.3,
        returned=beams,
        early_stopping="never",
    )
    expected = naive_beams(generator, question, width, groups, 1.3)
    assert [tuple(one.ids) for one in found] == expected


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("vocabulary", "width"), [(7, 4), (5, 2), (5, 4)])
def test_beams_are_those_of_the_definition(question: str, vocabulary: int, width: int) -> None:
    generator = TableGenerator(vocabulary=vocabulary)
    (found,) = ask_all(generator, [question], beams=width, returned=width)
    assert [tuple(one.ids) for one in found] == naive_beams(generator, question, width, 1, 0.0)


def test_groups_without_a_penalty_worth_the_name_are_all_the_same() -> None:
    generator = TableGenerator(vocabulary=7)
    (alone,) = ask_all(generator, ["who"], beams=2, returned=2)
    (grouped,) = ask_all(generator, ["who"], beams=6, groups=3, diversity=1e-9, returned=6)
    expected = sorted([one.ids for one in alone] * 3)
    assert sorted(one.ids for one in grouped) == expected


def test_a_heavy_penalty_makes_every_group_begin_differently() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask_all(
        generator, ["who"], beams=4, groups=4, diversity=50.0, returned=4, min_new_tokens=1
    )
    assert len({one.ids[0] for one in found}) == 4
    for one in found:
        expected = likelihood(generator, "who", [*one.ids, generator.end], "sequence")
        assert one.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("mode", MODES, ids=named)
@pytest.mark.parametrize("tables", [TableGenerator, ShrinkingTables])
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(
    mode: dict[str, Any], tables: type[TableGenerator]
) -> None:
    generator = tables(vocabulary=7, none=True)
    together = ask_all(generator, QUESTIONS, **mode)
    backwards = ask_all(generator, QUESTIONS[::-1], **mode)[::-1]
    for question, found, other in zip(QUESTIONS, together, backwards, strict=True):
        (alone,) = ask_all(TableGenerator(vocabulary=7, none=True), [question], **mode)
        assert [one.ids for one in alone] == [one.ids for one in found]
        assert [one.ids for one in other] == [one.ids for one in found]
        for one, here in zip(alone, found, strict=True):
            assert one.log_likelihood == pytest.approx(here.log_likelihood, abs=1e-5)
            torch.testing.assert_close(one.posterior, here.posterior)
            torch.testing.assert_close(one.token_posteriors, here.token_posteriors)


@pytest.mark.parametrize("mode", MODES, ids=named)
def test_posteriors_follow_bayes_in_every_mode(mode: dict[str, Any]) -> None:
    generator = TableGenerator(vocabulary=7)
    for found in ask_all(generator, ["who", "where"], **mode):
        assert found
        for one in found:
            assert one.token_posteriors.shape == (len(one.ids), 3)
            torch.testing.assert_close(one.posterior.sum(), torch.tensor(1.0))
            sums = one.token_posteriors.sum(-1)
            torch.testing.assert_close(sums, torch.ones(len(one.ids)), atol=1e-5, rtol=1e-5)


def test_a_settled_question_costs_nothing_more() -> None:
    """Four questions end after 0 to 3 tokens; rows are left out from a quarter on."""
    plain, shrinking = TableGenerator(vocabulary=7), ShrinkingTables(vocabulary=7)
    options = {"fusion": "token", "max_new_tokens": 6}
    questions = [f"question {i}" for i in range(12)]
    expected = [one.ids for one in ask(plain, questions, **options)]
    assert [one.ids for one in ask(shrinking, questions, **options)] == expected
    assert {rows for rows, _ in plain.asked} == {36}
    rows = [rows for rows, _ in shrinking.asked]
    assert rows[-1] < rows[0]
    still = [sum(len(ids) >= step for ids in expected) for step in range(1, len(rows) + 1)]
    assert all(
        3 * live <= asked < 6 * max(live, 1) or asked == 36
        for live, asked in zip(still, rows, strict=True)
    )


def test_no_answer_is_longer_than_the_generator_can_write() -> None:
    class Short(TableGenerator):
        def longest_answer(self, memory: Any) -> int:
            return 2

    options = {"max_new_tokens": 9, "min_new_tokens": 5, "limit": "cut"}
    (found,) = ask(Short(vocabulary=7), ["who"], **options)
    assert len(found.ids) == 2
    (whole,) = ask(TableGenerator(vocabulary=7), ["who"], **options)
    assert len(whole.ids) >= 5


def test_no_more_open_ends_than_there_are_to_follow() -> None:
    """A forced first token leaves one beam, whatever their number."""
    generator = TableGenerator(vocabulary=7)
    ask(generator, ["who"], beams=4, forced_first=3)
    assert generator.asked[0] == (3, 1)


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("limit", ["end", "cut"])
def test_never_more_than_max_new_tokens(most: int, limit: str) -> None:
    generator = TableGenerator(vocabulary=7)
    for found in ask(generator, QUESTIONS, max_new_tokens=most, beams=2, limit=limit):
        assert len(found.ids) + (limit == "cut" and found.ended) <= most


@pytest.mark.parametrize("mode", MODES, ids=named)
def test_a_missing_passage_changes_nothing(mode: dict[str, Any]) -> None:
    generator = TableGenerator(vocabulary=7)
    scores = torch.tensor([[0.8, 0.2, float("-inf")]])
    (padded,) = ask_all(generator, ["who"], scores, **mode)
    memory = generator.read([Pair("who", "", p) for p in PASSAGES[:2]])
    how = DecodingOptions(**{"max_new_tokens": MOST} | mode)
    (short,) = decode(generator, memory, log_prior(scores[:, :2]), options=how)
    assert [one.ids for one in padded] == [one.ids for one in short]
    for one, other in zip(padded, short, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5)
        assert float(one.posterior[2]) == pytest.approx(0.0, abs=1e-6)


def test_posteriors_follow_bayes() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask(generator, ["who"], fusion="sequence", beams=4)
    targets = pad_answers([found.ids] * 3, end=generator.end)
    scores = generator.score(memory_of(generator, ["who"]), targets)
    joint = log_prior(SCORES)[0, :, None] + scores.cumsum(-1)
    torch.testing.assert_close(found.posterior, joint[:, -1].softmax(-1), atol=1e-5, rtol=1e-4)
    running = joint.softmax(0).T[: len(found.ids)]
    torch.testing.assert_close(found.token_posteriors, running, atol=1e-5, rtol=1e-4)


def test_posteriors_of_tokens_under_the_prior() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask(generator, ["who"], fusion="token", beams=4)
    targets = pad_answers([found.ids] * 3, end=generator.end)
    scores = generator.score(memory_of(generator, ["who"]), targets)
    shares = (log_prior(SCORES)[0, :, None] + scores).softmax(0).T
    torch.testing.assert_close(found.token_posteriors, shares[:-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.posterior, shares.mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", SUMS)
@pytest.mark.parametrize("beams", [1, 3])
def test_posteriors_cost_no_further_pass(fusion: Sum, beams: int) -> None:
    """One step a token is all that is asked of a generator, and it is read once."""

    class Asked(TableGenerator):
        reads = 0

        def read(self, pairs: Sequence[Pair]) -> list[str]:
            self.reads += 1
            return super().read(pairs)

        def score(self, memory: list[str], targets: Tensor) -> Tensor:
            raise AssertionError("the answer was scored again")

    generator = Asked(vocabulary=7)
    how: dict[str, Any] = {"fusion": fusion, "beams": beams, "min_new_tokens": 2}
    (found,) = ask_all(generator, ["who"], returned=beams, **how)
    assert generator.reads == 1
    assert len(generator.asked) == MOST
    for one in found:
        assert one.posterior.shape == (len(PASSAGES),)
        assert one.token_posteriors.shape == (len(one.ids), len(PASSAGES))


@pytest.mark.parametrize("mode", MODES, ids=named)
def test_support_is_the_prior_mass_of_passages_that_hold_an_answer(mode: dict[str, Any]) -> None:
    generator = TableGenerator(vocabulary=7, none=True)
    memory = memory_of(generator, ["who"])
    none = torch.stack([generator.distribution(row, ())[2].exp() for row in memory])
    for found in ask_all(generator, ["who"], **mode)[0]:
        torch.testing.assert_close(found.supports, 1 - none, atol=1e-5, rtol=1e-4)
        assert found.support == pytest.approx(
            float((log_prior(SCORES)[0].exp() * (1 - none)).sum()), abs=1e-5
        )
        assert generator.none not in found.ids


@pytest.mark.parametrize("search", ["exact", "thorough"])
def test_the_answer_is_searched_given_that_there_is_one(search: str) -> None:
    """p(y | x, y is an answer): the whole sum over answers divided by the support."""
    generator = TableGenerator(vocabulary=6, none=True)
    everything = truth(generator, "who", "sequence")
    (found,) = ask(generator, ["who"], search=search, beams=100)
    best = max(everything, key=everything.__getitem__)
    assert tuple(found.ids) == best
    expected = everything[best] - math.log(found.support)
    assert found.log_likelihood == pytest.approx(expected, abs=1e-4)


def test_one_row_a_question_is_the_generator_itself() -> None:
    """As fusions that join the passages before the decoder are decoded."""
    generator = TableGenerator(vocabulary=7)
    memory = generator.together(memory_of(generator, QUESTIONS), 3)
    options = DecodingOptions(beams=3, max_new_tokens=MOST)
    found = decode(generator, memory, torch.zeros(4, 1), options=options)
    for row, (one,) in zip(memory, found, strict=True):
        targets = pad_answers([one.ids], end=generator.end)
        assert one.log_likelihood == pytest.approx(
            float(generator.score([row], targets).sum()), abs=1e-4
        )
        assert one.posterior.tolist() == [1.0]


def test_what_the_generator_keeps_is_not_changed() -> None:
    """With one passage a step's sum lies in the generator's own memory."""

    class Keeping(TableGenerator):
        def begin(self, memory: list[str]) -> tuple[TableState, NextToken]:
            state, self.first = super().begin(memory)
            return state, self.first

    generator = Keeping(vocabulary=7)
    memory = generator.read([Pair("who", "", "one")])
    options = DecodingOptions(min_new_tokens=1, suppress=(3,), repetition_penalty=2.0, opening=(4,))
    decode(generator, memory, torch.zeros(1, 1), options=options)
    probs = generator.distribution(memory[0], ()).exp()
    torch.testing.assert_close(generator.first.weights[0, 0], 2.0 * probs)


def test_where_the_rules_leave_no_token_the_answer_ends() -> None:
    generator = TableGenerator(vocabulary=5)
    options = {"no_repeat_ngram": 1, "max_new_tokens": 9, "min_new_tokens": 8, "beams": 2}
    for found in ask(generator, QUESTIONS, **options):
        assert sorted(found.ids) == [2, 3, 4]


def test_stop_strings_end_an_answer_before_they_begin() -> None:
    generator = TableGenerator(vocabulary=7)
    (free,) = ask(generator, ["what"], fusion="token", max_new_tokens=6, min_new_tokens=6)
    text = generator.decode(free.ids)
    stop = text[3:6]
    (found,) = ask(
        generator, ["what"], fusion="token", max_new_tokens=6, min_new_tokens=6, stop=("zz", stop)
    )
    assert found.stopped_by == stop
    assert found.text(generator) == text.split(stop)[0]
    assert not found.ended
    assert found.ids == free.ids[: len(found.ids)]
    assert found.log_likelihood > free.log_likelihood
    assert generator.decode(found.ids).startswith(found.text(generator))
    assert found.token_posteriors.shape[0] == len(found.ids)


def test_weights_that_are_no_distribution_are_named() -> None:
    generator = TableGenerator()
    memory = memory_of(generator, ["who"])
    with pytest.raises(UsageError, match=r"question 0 are not a distribution: \[nan, 0.0, 0.0\]"):
        decode(generator, memory, torch.tensor([[math.nan, 0, 0]]), options=DecodingOptions())
    with pytest.raises(UsageError, match="question 0 are not a distribution"):
        decode(generator, memory, torch.full((1, 3), -math.inf), options=DecodingOptions())
    with pytest.raises(UsageError, match=r"must be \[questions, passages\], received \[3\]"):
        decode(generator, memory, torch.zeros(3), options=DecodingOptions())


def test_a_token_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(UsageError, match="suppress names token 9, but the vocabulary has 5"):
        ask(TableGenerator(), ["who"], suppress=(9,))
