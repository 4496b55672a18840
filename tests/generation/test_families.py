from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from consilience.errors import UsageError
from consilience.generation.families import HEADS, PARTS, head_of, parts_of
from tests.generation import library

_ROTARY = {
    "vocab_size": library.VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_GPT2 = GPT2Config(vocab_size=library.VOCABULARY, n_embd=16, n_layer=1, n_head=2)
CAUSAL: dict[str, Any] = {
    "gpt2": lambda: GPT2LMHeadModel(_GPT2),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_ROTARY)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_ROTARY)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_ROTARY)),
}
IDS = torch.tensor([[5, 9, 11, 7], [8, 3, 4, 6]])


@pytest.mark.parametrize("name", sorted(CAUSAL))
def test_heads_of_decoder_only_models(name: str) -> None:
    model = CAUSAL[name]().eval()
    out = model(IDS, output_hidden_states=True)
    assert model.config.model_type == name
    torch.testing.assert_close(head_of(model).logits(out.hidden_states[-1]), out.logits)


@pytest.mark.parametrize("name", sorted(library.FAMILIES))
def test_heads_of_encoder_decoder_models(name: str) -> None:
    model = library.FAMILIES[name]()
    parts, head = parts_of(model), head_of(model)
    encoded = parts.encoder(input_ids=IDS).last_hidden_state
    states = parts.decoder(
        input_ids=IDS, encoder_hidden_states=parts.project(encoded), use_cache=False
    ).last_hidden_state
    expected = model(input_ids=IDS, decoder_input_ids=IDS).logits
    torch.testing.assert_close(head.logits(states), expected, atol=1e-5, rtol=1e-5)


def test_layers_are_those_of_the_decoder() -> None:
    counted = {name: parts_of(make()).layers for name, make in library.FAMILIES.items()}
    assert counted == {"bart": 3, "mbart": 3, "t5": 3, "mt5": 3, "bert2bert": 2, "bert2gpt2": 3}


def test_only_a_t5_whose_head_is_tied_scales_its_states() -> None:
    tied, loose = (
        T5ForConditionalGeneration(
            T5Config(vocab_size=9, d_model=16, num_layers=1, num_heads=2, tie_word_embeddings=tie)
        )
        for tie in (True, False)
    )
    assert float(head_of(tied).prepare(torch.ones(1))) == 0.25
    assert float(head_of(loose).prepare(torch.ones(1))) == 1.0


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type="pegasus"))
    with pytest.raises(
        UsageError, match="a model of type 'pegasus' is not one that can be"
    ) as head:
        head_of(model)
    assert head.value.hint == f"known types: {', '.join(sorted(HEADS))}"
    with pytest.raises(UsageError) as parts:
        parts_of(CAUSAL["gpt2"]())
    assert parts.value.hint == f"known types: {', '.join(sorted(PARTS))}"


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match="a model of type 'int' is not one"):
        head_of(3)
