"""Thorough and fast decoding, against enumeration and against the library's own class."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, DPRConfig, GenerationConfig
from transformers import RagConfig as TheirConfig
from transformers import RagSequenceForGeneration as TheirModel

from consilience.generation import Pair, Seq2SeqGenerator, TokenRows
from consilience.model.decoding import (
    DecodingOptions,
    Proposal,
    decode,
    score_answers,
    score_proposals,
)
from consilience.model.fusion import log_prior
from tests.model.tables import (
    MOST,
    PASSAGES,
    QUESTIONS,
    SCORES,
    TableGenerator,
    ask,
    ask_all,
    likelihood,
    memory_of,
    truth,
)
from tests.model.uncached import UncachedGenerator


def proposals(
    generator: TableGenerator, question: str, beams: int
) -> list[dict[tuple[int, ...], float]]:
    """What a beam search over each passage alone finds, with log p under that passage."""
    found = []
    for passage in PASSAGES:
        memory = generator.read([Pair(question, "", passage)])
        options = DecodingOptions(beams=beams, returned=beams, max_new_tokens=MOST)
        (answers,) = decode(generator, memory, torch.zeros(1, 1), options=options)
        found.append({tuple(one.ids): one.log_likelihood for one in answers})
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_full_beams_find_the_most_probable_answer(question: str) -> None:
    generator = TableGenerator(vocabulary=7)
    everything = truth(generator, question, "sequence")
    (found,) = ask(generator, [question], search="thorough", beams=200)
    assert found.log_likelihood == pytest.approx(max(everything.values()), abs=1e-4)
    assert everything[tuple(found.ids)] == pytest.approx(found.log_likelihood, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("returned", [1, 3, 20])
def test_thorough_is_every_candidate_under_every_passage(beams: int, returned: int) -> None:
    generator = TableGenerator(vocabulary=7)
    everything = ask_all(generator, QUESTIONS, search="thorough", beams=beams, returned=returned)
    for question, found in zip(QUESTIONS, everything, strict=True):
        candidates = set().union(*proposals(generator, question, beams))
        scores = {
            ids: likelihood(generator, question, [*ids, generator.end], "sequence")
            for ids in candidates
        }
        expected = sorted(scores, key=lambda ids: -scores[ids])[:returned]
        assert [tuple(one.ids) for one in found] == expected
        for one in found:
            assert one.log_likelihood == pytest.approx(scores[tuple(one.ids)], abs=1e-4)
            assert one.score == pytest.approx(one.log_likelihood, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_fast_counts_nothing_for_a_passage_that_did_not_propose(beams: int) -> None:
    generator = TableGenerator(vocabulary=7)
    weights = log_prior(SCORES)[0].exp().tolist()
    everything = ask_all(generator, QUESTIONS, search="fast", beams=beams, returned=20)
    for question, found in zip(QUESTIONS, everything, strict=True):
        shares: dict[tuple[int, ...], list[float]] = {}
        for d, alone in enumerate(proposals(generator, question, beams)):
            for ids, score in alone.items():
                shares.setdefault(ids, [0.0, 0.0, 0.0])[d] = weights[d] * math.exp(score)
        expected = sorted(shares, key=lambda ids: -sum(shares[ids]))
        assert [tuple(one.ids) for one in found] == expected
        for one in found:
            parts = torch.tensor(shares[tuple(one.ids)])
            assert math.exp(one.log_likelihood) == pytest.approx(float(parts.sum()), rel=1e-4)
            torch.testing.assert_close(one.posterior, parts / parts.sum(), atol=1e-5, rtol=1e-4)


def test_a_passage_that_is_not_there_proposes_nothing() -> None:
    generator = TableGenerator(vocabulary=7)
    scores = torch.tensor([[-math.inf, 0.4, -math.inf], [0.1, 0.2, 0.3]])
    weights = log_prior(scores)
    options = DecodingOptions(search="fast", beams=3, returned=9, max_new_tokens=MOST)
    memory = memory_of(generator, ["who", "what"])
    found, _ = decode(generator, memory, weights, options=options)
    assert {tuple(one.ids) for one in found} == set(proposals(generator, "who", 3)[1])


def test_only_what_no_passage_knows_is_scored_again() -> None:
    """One passage knows all its candidates: the second walk has nothing to ask."""
    generator = TableGenerator(vocabulary=7)
    memory = generator.read([Pair("who", "", "one")])
    exact = DecodingOptions(beams=3, returned=3, max_new_tokens=MOST)
    decode(generator, memory, torch.zeros(1, 1), options=exact)
    searched = len(generator.asked)
    thorough = DecodingOptions(search="thorough", beams=3, returned=3, max_new_tokens=MOST)
    decode(generator, memory, torch.zeros(1, 1), options=thorough)
    assert len(generator.asked) == 2 * searched


def test_what_begins_alike_is_asked_once_and_what_cannot_win_not_at_all() -> None:
    generator = TableGenerator(vocabulary=7)
    ask_all(generator, ["who"], search="fast", beams=30, returned=30)
    searched = len(generator.asked)

    def scored(returned: int) -> tuple[list[int], list[tuple[int, ...]]]:
        generator.asked.clear()
        (found,) = ask_all(generator, ["who"], search="thorough", beams=30, returned=returned)
        return [n for _, n in generator.asked[searched:]], [tuple(one.ids) for one in found]

    ends, answers = scored(90)
    beginnings = [len({ids[:t] for ids in answers if len(ids) >= t}) for t in (1, 2, 3)]
    assert len(ends) == 3
    assert all(n <= most for n, most in zip(ends, beginnings, strict=True))
    assert sum(scored(1)[0]) < sum(ends) / 2


def test_what_is_known_is_not_asked_and_what_cannot_win_is_impossible() -> None:
    generator, k = TableGenerator(vocabulary=7), len(PASSAGES)
    memory, prior = memory_of(generator, ["who", "what"]), log_prior(SCORES.expand(2, -1))
    answers = [[[3, 4, 1], [3, 1], [5, 6, 4, 1]], [[6, 1]]]
    whole = score_answers(generator, memory, answers, k=k)
    for q, question in enumerate(["who", "what"]):
        for i, ids in enumerate(answers[q]):
            alone = generator.score(
                memory_of(generator, [question]), torch.tensor(ids).expand(k, -1)
            )
            torch.testing.assert_close(whole[q, :, i, : len(ids)], alone, atol=1e-5, rtol=0)

    def scored(returned: int | None, *passages: int) -> Tensor:
        proposals = [
            [
                Proposal(ids, {d: whole[q, d, i, : len(ids)] for d in passages})
                for i, ids in enumerate(each)
            ]
            for q, each in enumerate(answers)
        ]
        generator.asked.clear()
        return score_proposals(generator, memory, proposals, prior, returned=returned)

    torch.testing.assert_close(scored(None, 1), whole)
    torch.testing.assert_close(scored(None, 0, 1, 2), whole)
    assert not generator.asked
    values = (prior[..., None] + whole.sum(-1)).logsumexp(1)[0]
    found = scored(1, 0, 1)[0]
    torch.testing.assert_close(found[:, values.argmax()], whole[0][:, values.argmax()])
    assert ((found.sum((0, 2)) < -1e8) == (torch.arange(3) != values.argmax())).all()


def rag_model() -> tuple[TheirModel, BartForConditionalGeneration]:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"vocab_size": 30, "d_model": 16, "max_position_embeddings": 40}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    bart = BartConfig(**sizes, **ids, init_std=0.3, forced_eos_token_id=None)
    dpr = DPRConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config = TheirConfig.from_question_encoder_generator_configs(dpr, bart, n_docs=3)
    model = TheirModel(config).eval()
    return model, model.rag.generator


@pytest.mark.parametrize("forced", [None, 0])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_answers_are_those_of_the_library(forced: int | None, beams: int) -> None:
    """Rows of one length, since the library searches without the mask of its rows."""
    model, bart = rag_model()
    bart.generation_config = GenerationConfig(
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=forced,
        max_length=8,
        no_repeat_ngram_size=2,
    )
    rows = torch.randint(3, 30, (12, 7))
    mask, scores = torch.ones_like(rows), torch.randn(4, 3)
    with torch.no_grad():
        theirs = model.generate(
            context_input_ids=rows,
            context_attention_mask=mask,
            doc_scores=scores,
            num_beams=beams,
            num_return_sequences=beams,
        )
    options = DecodingOptions.like_transformers(
        bart.generation_config, search="thorough", beams=beams, returned=beams
    )
    plain, cached = UncachedGenerator(bart), Seq2SeqGenerator(bart)
    memories = plain.read_ids(rows, mask), cached.memorise(TokenRows(rows, mask.bool()))
    for generator, memory in zip((plain, cached), memories, strict=True):
        found = decode(generator, memory, log_prior(scores), options=options)
        ours = [[2, *one.ids, *([2] if one.ended else [])] for answers in found for one in answers]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs.tolist(), strict=True):
            assert [*one, *[1] * (len(other) - len(one))] == other
