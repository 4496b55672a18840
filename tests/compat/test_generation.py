"""Answers beside those of transformers' own classes, id for id."""

from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.generation import Asked, Ends, Seq2SeqGenerator
from tests.compat.tiny_rag import batch, pair, rag_config

CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "two beams": {"num_beams": 2},
    "four beams": {"num_beams": 4},
    "two answers": {"num_beams": 3, "num_return_sequences": 2},
    "short": {"num_beams": 2, "max_length": 4},
    "single tokens": {"num_beams": 3, "max_length": 3},
    "at least": {"num_beams": 2, "min_length": 6, "max_length": 12},
    "length penalty": {"num_beams": 4, "length_penalty": 2.0},
    "short answers first": {"num_beams": 4, "length_penalty": -1.0},
    "early": {"num_beams": 4, "early_stopping": True},
    "no repetition": {"num_beams": 2, "no_repeat_ngram_size": 2},
    "repetition penalty": {"num_beams": 2, "repetition_penalty": 1.5},
    "forced start": {"num_beams": 2, "forced_bos_token_id": 0},
    "long": {"num_beams": 2, "max_length": 24},
}
KINDS = ["bart", "t5", "bert2gpt2"]


def questions(config: Any, count: int, seed: int) -> dict[str, torch.Tensor]:
    inputs = batch(config, answers=[[0]] * count, seed=seed)
    inputs.pop("labels")
    return inputs


def unmasked(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, padding being read like text."""
    return inputs | {"context_attention_mask": torch.ones_like(inputs["context_attention_mask"])}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_rag_token_writes_what_transformers_writes(kind: str, case: str) -> None:
    theirs, ours = pair("token", rag_config(kind))
    for seed in range(3):
        inputs = questions(ours.config, 3, seed)
        expected = theirs.generate(**inputs, **CASES[case])
        assert ours.generate(**inputs, **CASES[case]).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_rag_sequence_writes_what_transformers_writes(kind: str, case: str) -> None:
    settings = {"bos_token_id": 3} if kind == "t5" else {}
    theirs, ours = pair("sequence", rag_config(kind, **settings))
    for seed in range(3):
        masked = questions(ours.config, 3, seed)
        for inputs in (masked, unmasked(masked)):
            expected = theirs.generate(**inputs, **CASES[case])
            assert ours.generate(**inputs, **CASES[case]).tolist() == expected.tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_passage_is_not_asked_again_for_what_it_proposed(
    beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One passage proposes all, so nothing is left to ask; of three, a third is known."""
    asked = []

    def ask(self: Seq2SeqGenerator, memory: Any, state: Any, ends: Ends, tokens: Asked) -> Tensor:
        asked.append(int(ends.there.sum()))
        return asking(self, memory, state, ends, tokens)

    asking = Seq2SeqGenerator.ask
    monkeypatch.setattr(Seq2SeqGenerator, "ask", ask)
    for n_docs in (1, 3):
        _, ours = pair("sequence", rag_config(n_docs=n_docs))
        inputs = questions(ours.config, 2, 0)
        ours.generate(**unmasked(inputs), num_beams=beams, max_length=8)
        assert bool(asked) == (n_docs == 3)


@pytest.mark.parametrize("fusion", ["sequence", "token"])
@pytest.mark.parametrize("n_docs", [1, 5])
def test_any_number_of_passages(fusion: str, n_docs: int) -> None:
    theirs, ours = pair(fusion, rag_config(n_docs=n_docs))
    inputs = questions(ours.config, 2, 0)
    expected = theirs.generate(**inputs, num_beams=3)
    assert ours.generate(**inputs, num_beams=3).tolist() == expected.tolist()
