"""Beside the library: the same model, the same configuration, the same sequences."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from consilience.generation import Seq2SeqGenerator, TokenRows
from consilience.model.decoding import Decoded, DecodingOptions, decode
from tests.model.uncached import UncachedGenerator

ROWS = 6


def bart(seed: int) -> BartForConditionalGeneration:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": 30, "d_model": 16, "max_position_embeddings": 40}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(**sizes, **ids, init_std=0.3, forced_eos_token_id=None)
    return BartForConditionalGeneration(config)


def t5(seed: int) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **ids)
    return T5ForConditionalGeneration(config)


@lru_cache
def half_learned(name: str, seed: int) -> Any:
    """A model after a few steps on random answers of many lengths, so that its own differ, too."""
    model = MODELS[name](seed)
    ids, mask = questions(model.config.pad_token_id)
    answers = torch.randint(3, 30, (ROWS, 13))
    places = torch.arange(13)
    ends = torch.tensor([[2], [4], [6], [8], [10], [12]])
    labels = answers.masked_fill(places == ends, model.config.eos_token_id)
    labels = labels.masked_fill(places > ends, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.eval()
    for _ in range(40):
        optimizer.zero_grad()
        model(ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
    return model


MODELS: dict[str, Callable[[int], Any]] = {"bart": bart, "t5": t5}

CASES: list[dict[str, Any]] = [
    {},
    {"max_length": 9},
    {"min_length": 6},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "max_new_tokens": 15},
    {"num_beams": 2, "num_return_sequences": 2},
    {"num_beams": 4},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 2.0},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": -1.0},
    {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 4, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 2, "early_stopping": True, "length_penalty": 2.0, "max_length": 12},
    {"num_beams": 4, "min_length": 5, "max_length": 8},
    {"num_beams": 3, "min_new_tokens": 4, "max_new_tokens": 6},
    {"num_beams": 4, "no_repeat_ngram_size": 2},
    {"num_beams": 4, "num_return_sequences": 4},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5, "early_stopping": True},
    {"num_beams": 4, "num_return_sequences": 2, "early_stopping": "never"},
    {"num_beams": 4, "forced_bos_token_id": 5},
    {"forced_bos_token_id": 5, "max_length": 7, "forced_eos_token_id": "end"},
    {"num_beams": 4, "forced_eos_token_id": "end", "max_length": 6, "num_return_sequences": 4},
    {"num_beams": 2, "suppress_tokens": [3, 4, 7], "begin_suppress_tokens": [8, 9]},
    {"num_beams": 2, "begin_suppress_tokens": [8, 9, 10], "forced_bos_token_id": 6},
]

REPEATING: list[dict[str, Any]] = [
    {"num_beams": 4, "repetition_penalty": 1.7},
    {"num_beams": 2, "repetition_penalty": 0.6, "max_length": 10},
    {"num_beams": 3, "no_repeat_ngram_size": 3, "repetition_penalty": 1.2},
]


def named(case: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in case.items())


def questions(pad: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(3, 30, (ROWS, 9))
    lengths = torch.tensor([9, 4, 7, 9, 2, 5])[:, None]
    mask = torch.arange(9)[None] < lengths
    return ids.masked_fill(~mask, pad), mask.long()


def sequences(answers: list[list[Decoded]], generator: UncachedGenerator) -> list[list[int]]:
    return [
        [generator.start, *one.ids, *([generator.end] if one.ended else [])]
        for found in answers
        for one in found
    ]


def configured(model: Any, case: dict[str, Any]) -> GenerationConfig:
    end = model.config.eos_token_id
    case = {key: end if value == "end" else value for key, value in case.items()}
    return GenerationConfig(
        pad_token_id=model.config.pad_token_id,
        bos_token_id=getattr(model.config, "bos_token_id", None),
        eos_token_id=end,
        decoder_start_token_id=model.config.decoder_start_token_id,
        **({"max_length": 18} | case),
    )


def written(model: Any, options: DecodingOptions) -> list[list[int]]:
    generator = UncachedGenerator(model)
    memory = generator.read_ids(*questions(model.config.pad_token_id))
    return sequences(decode(generator, memory, torch.zeros(ROWS, 1), options=options), generator)


def assert_as_generate(model: Any, config: GenerationConfig) -> None:
    ids, mask = questions(model.config.pad_token_id)
    with torch.no_grad():
        theirs = model.generate(ids, attention_mask=mask, generation_config=config)
    ours = written(model, DecodingOptions.like_transformers(config))
    assert len(ours) == len(theirs)
    fill = model.config.pad_token_id if config.num_beams in (None, 1) else _fill(config)
    for one, other in zip(ours, theirs.tolist(), strict=True):
        assert [*one, *[fill] * (len(other) - len(one))] == other


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_search_is_that_of_generate(name: str, seed: int, case: dict[str, Any]) -> None:
    model = half_learned(name, seed)
    assert_as_generate(model, configured(model, case))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("case", REPEATING, ids=named)
def test_repetition_is_penalised_as_by_generate(name: str, case: dict[str, Any]) -> None:
    """With models that learned nothing and so repeat themselves, the start token, too."""
    model = MODELS[name](3).eval()
    config = configured(model, case)
    assert_as_generate(model, config)
    options = DecodingOptions.like_transformers(config)
    for without in (replace(options, repetition_penalty=1.0), replace(options, opening=())):
        assert written(model, without) != written(model, options)


def _fill(config: GenerationConfig) -> int:
    """What the library's beam search pads with: not padding when that is 0."""
    return int(config.pad_token_id or config.eos_token_id)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_models_write_answers_of_many_lengths(name: str) -> None:
    """Some ended and some cut, or the comparison would say little."""
    generator = UncachedGenerator(half_learned(name, 1))
    memory = generator.read_ids(*questions(generator.model.config.pad_token_id))
    options = DecodingOptions(beams=4, limit="cut", max_new_tokens=8, returned=4)
    found = decode(generator, memory, torch.zeros(ROWS, 1), options=options)
    flat = [one for answers in found for one in answers]
    assert len({len(one.ids) for one in flat}) > 3
    assert {one.ended for one in flat} == {True, False}


SEARCHES: list[dict[str, Any]] = [
    {},
    {"beams": 4, "returned": 4},
    {"beams": 4, "fusion": "token", "no_repeat_ngram": 2},
    {"beams": 4, "groups": 2, "diversity": 1.0, "returned": 4},
    {"sample": True, "returned": 3, "top_p": 0.9},
    {"search": "thorough", "beams": 3, "returned": 3},
]


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_caches_change_nothing(name: str, search: dict[str, Any]) -> None:
    """A generator that shares and drops what it keeps writes what one without any would."""
    model = half_learned(name, 1)
    slow, fast = UncachedGenerator(model), Seq2SeqGenerator(model, None)
    ids, mask = questions(model.config.pad_token_id)
    scores = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.5, 0.2]]).log_softmax(-1)
    options = DecodingOptions(max_new_tokens=10, **search)
    expected = decode(slow, slow.read_ids(ids, mask), scores, options=options)
    with torch.inference_mode():
        memory = fast.memorise(TokenRows(ids, mask.bool()))
    found = decode(fast, memory, scores, options=options)
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.ids for one in ours] == [one.ids for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)
            torch.testing.assert_close(one.posterior, other.posterior, atol=1e-3, rtol=1e-3)
