"""Losses, gradients and logits beside those of transformers' own classes."""

from typing import Any

import pytest
import torch
import transformers
from transformers import RagConfig

from consilience.compat.transformers import (
    RagModel,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)
from tests.compat.tiny_rag import batch, pair, rag_config

BOS, END, PAD = 0, 2, 1
RAGGED = [[BOS, 7, 8, 9, END], [BOS, 10, END]]
NO_START = [[7, 8, 9, END], [10, END]]
MIXED = [[BOS, 7, 8, END], [9, 10, END]]
TWICE = [[END, BOS, 7, 8, END], [END, BOS, 9, END]]
MIXED_TWICE = [[END, BOS, 7, 8, END], [END, 9, 10, END]]
SHORT = [[BOS, END], [BOS, END]]
T5 = [[0, 7, 8, 1], [0, 9, 1]]

CASES: dict[str, dict[str, Any]] = {
    "ragged": {"answers": RAGGED},
    "without a start token": {"answers": NO_START},
    "some with a start token": {"answers": MIXED, "exclude": True},
    "start token after the end token": {"answers": TWICE},
    "start token left out": {"answers": TWICE, "exclude": True},
    "start token left out of no row": {"answers": MIXED_TWICE, "exclude": True},
    "smoothed": {"answers": RAGGED, "label_smoothing": 0.1},
    "smoothed, start token left out": {"answers": TWICE, "label_smoothing": 0.1, "exclude": True},
    "reduced": {"answers": RAGGED, "reduce_loss": True},
    "reduced and smoothed": {"answers": RAGGED, "reduce_loss": True, "label_smoothing": 0.1},
    "one passage": {"answers": RAGGED, "n_docs": 1},
    "one passage, smoothed": {"answers": TWICE, "n_docs": 1, "label_smoothing": 0.2},
    "nothing but start and end": {"answers": SHORT},
    "T5": {"answers": T5, "kind": "t5", "bos_token_id": 3},
    "T5, smoothed": {"answers": T5, "kind": "t5", "bos_token_id": 3, "label_smoothing": 0.1},
    "BERT and GPT-2": {"answers": RAGGED, "kind": "bert2gpt2"},
    "five passages": {"answers": RAGGED, "n_docs": 5},
}
WEIGHTS = {
    "bart": ["model.decoder.layers.1.fc1.weight", "model.encoder.layers.0.fc2.bias"],
    "t5": ["shared.weight", "encoder.block.0.layer.1.DenseReluDense.wi.weight"],
    "bert2gpt2": ["decoder.transformer.h.0.crossattention.c_attn.weight"],
}


def gradients(model: Any, inputs: dict[str, torch.Tensor], **how: Any) -> list[torch.Tensor]:
    """Of the loss with respect to the scores and a few weights, and the loss itself."""
    scores = inputs["doc_scores"].clone().requires_grad_()
    found = model(**(inputs | {"doc_scores": scores}), **how)
    named = dict(model.generator.named_parameters())
    weights = [named[name] for name in WEIGHTS[kind_of(model.config)]]
    return [found.loss, *torch.autograd.grad(found.loss.sum(), [scores, *weights])]


def kind_of(config: RagConfig) -> str:
    return {"encoder-decoder": "bert2gpt2"}.get(
        config.generator.model_type, config.generator.model_type
    )


@pytest.mark.parametrize("output_logits", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fusion", ["sequence", "token"])
def test_loss_and_gradients_are_those_of_transformers(
    fusion: str, case: str, output_logits: bool
) -> None:
    settings = dict(CASES[case])
    answers, exclude = settings.pop("answers"), settings.pop("exclude", None)
    how = {"exclude_bos_score": exclude} if fusion == "sequence" else {}
    theirs, ours = pair(fusion, rag_config(settings.pop("kind", "bart"), **settings))
    inputs = batch(theirs.config, answers=answers)
    n_docs = theirs.config.n_docs
    expected = gradients(theirs, inputs, n_docs=n_docs, **how)
    found = gradients(ours, inputs, output_logits=output_logits, **how)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("marginal", [True, False])
@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_logits_are_those_of_transformers(kind: str, marginal: bool) -> None:
    theirs, ours = pair("token", rag_config(kind))
    inputs = batch(theirs.config, answers=RAGGED)
    expected = theirs(**inputs, do_marginalize=marginal).logits
    found = ours(**inputs, do_marginalize=marginal).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_logits_are_left_out_when_they_are_not_wanted() -> None:
    _, ours = pair("token", rag_config())
    inputs = batch(ours.config, answers=RAGGED)
    assert ours(**inputs, output_logits=False).logits is None
    assert ours(**inputs).logits is not None


def test_decoder_input_ids_are_what_rag_sequence_scores() -> None:
    theirs, ours = pair("sequence", rag_config())
    inputs = batch(theirs.config, answers=RAGGED)
    fed = torch.tensor([[END, BOS, 9, 9, END], [END, BOS, 8, END, PAD]])
    expected = theirs(**inputs, decoder_input_ids=fed).loss
    torch.testing.assert_close(ours(**inputs, decoder_input_ids=fed).loss, expected)
    unlike = ours(**(inputs | {"labels": fed})).loss
    torch.testing.assert_close(unlike, expected)


def test_labels_are_what_rag_token_scores() -> None:
    theirs, ours = pair("token", rag_config())
    inputs = batch(theirs.config, answers=RAGGED)
    fed = torch.tensor([[END, BOS, 9, 9, END], [END, BOS, 8, END, PAD]])
    expected = theirs(**inputs, decoder_input_ids=fed).loss
    torch.testing.assert_close(ours(**inputs, decoder_input_ids=fed).loss, expected)
    torch.testing.assert_close(
        ours(**inputs, decoder_input_ids=fed, output_logits=False).loss, expected
    )


@pytest.mark.parametrize("fusion", ["sequence", "token"])
def test_labels_may_be_padded_with_minus_100(fusion: str) -> None:
    _, ours = pair(fusion, rag_config())
    inputs = batch(ours.config, answers=RAGGED)
    expected = ours(**inputs).loss
    labels = inputs["labels"].masked_fill(inputs["labels"] == PAD, -100)
    torch.testing.assert_close(ours(**(inputs | {"labels": labels})).loss, expected)


def test_states_of_every_part_are_given_back() -> None:
    theirs, ours = pair("token", rag_config())
    inputs = batch(ours.config, answers=RAGGED)
    # transformers takes the flag and gives nothing back.
    assert theirs(**inputs, output_hidden_states=True).generator_dec_hidden_states is None
    found = ours(**inputs, output_hidden_states=True)
    assert len(found.generator_dec_hidden_states) == 3
    assert len(found.generator_enc_hidden_states) == 2


def test_encoder_outputs_stand_for_contexts() -> None:
    theirs, ours = pair("token", rag_config())
    inputs = batch(ours.config, answers=RAGGED)
    rows, mask = inputs.pop("context_input_ids"), inputs["context_attention_mask"]
    encoded = ours.generator.get_encoder()(input_ids=rows, attention_mask=mask)
    expected = theirs(**inputs, encoder_outputs=encoded).loss
    torch.testing.assert_close(ours(**inputs, encoder_outputs=encoded).loss, expected)


def test_the_base_model_says_what_transformers_says() -> None:
    theirs = transformers.RagModel(rag_config()).eval()
    ours = RagModel(theirs.config, theirs.question_encoder, theirs.generator).eval()
    inputs = batch(ours.config, answers=RAGGED)
    inputs["decoder_input_ids"] = inputs.pop("labels")
    torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits)


def test_names_are_those_of_transformers() -> None:
    for kind in (RagModel, RagTokenForGeneration, RagSequenceForGeneration):
        assert hasattr(transformers, kind.__name__)
