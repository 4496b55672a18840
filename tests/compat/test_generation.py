"""Answers beside those of transformers' own classes, id for id."""

from functools import lru_cache
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


@lru_cache
def beside(fusion: str, kind: str) -> tuple[Any, Any]:
    """A model of transformers and ours; the T5 ends its answers at many lengths."""
    settings = {"bos_token_id": 3} if (fusion, kind) == ("sequence", "t5") else {}
    theirs, ours = pair(fusion, rag_config(kind, **settings))
    if kind == "t5":
        teach_lengths(theirs.generator)
    return theirs, ours


def teach_lengths(model: Any) -> None:
    """A few steps on random answers: with random weights alone no T5 ends before its limit."""
    torch.manual_seed(1)
    rows, answers = torch.randint(5, 40, (6, 7)), torch.randint(5, 40, (6, 13))
    ends, places = torch.arange(2, 14, 2)[:, None], torch.arange(13)
    labels = answers.masked_fill(places == ends, model.config.eos_token_id)
    labels = labels.masked_fill(places > ends, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        model(rows, labels=labels).loss.backward()
        optimizer.step()


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
    theirs, ours = beside("token", kind)
    for seed in range(3):
        inputs = questions(ours.config, 3, seed)
        expected = theirs.generate(**inputs, **CASES[case])
        assert ours.generate(**inputs, **CASES[case]).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_rag_sequence_writes_what_transformers_writes(kind: str, case: str) -> None:
    theirs, ours = beside("sequence", kind)
    for seed in range(3):
        masked = questions(ours.config, 3, seed)
        for inputs in (masked, unmasked(masked)):
            expected = theirs.generate(**inputs, **CASES[case])
            assert ours.generate(**inputs, **CASES[case]).tolist() == expected.tolist()


@pytest.mark.parametrize("fusion", ["token", "sequence"])
def test_the_t5_ends_its_answers_at_many_lengths(fusion: str) -> None:
    """Or how they are filled up would not be seen."""
    theirs, _ = beside(fusion, "t5")
    end, inputs = theirs.generator.config.eos_token_id, questions(theirs.config, 3, 0)
    rows = theirs.generate(**inputs, num_beams=4, num_return_sequences=4).tolist()
    assert len({row.index(end) for row in rows if end in row}) > 1


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
