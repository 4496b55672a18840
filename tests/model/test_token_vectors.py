"""What DPR's classes make of each token, for late interaction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizerFast

from consilience.documents import Passage
from consilience.encoding import TokenEncoder
from consilience.model.text_encoder import TextEncoder
from consilience.model.vectors import PooledEncoder
from consilience.retrieval.late_interaction import MaxSim
from tests.model.small import dpr

TEXTS = ["the fee", "the bank of the ward"]


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    questions, passages = dpr()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["the", "fee", "bank", "of", "ward"]]
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    return TextEncoder(PooledEncoder(questions), PooledEncoder(passages), tokenizer)


def test_each_token_has_the_state_of_its_sides_last_layer(encoder: TextEncoder) -> None:
    assert isinstance(encoder, TokenEncoder)
    for side, pooled in (("questions", encoder.questions), ("passages", encoder.passages)):
        told = encoder.token_vectors(TEXTS, side=side)  # type: ignore[arg-type]
        for text, one in zip(TEXTS, told, strict=True):
            assert one.words == ["", *text.split(), ""]
            row = encoder.tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                model = pooled.model
                own = model(**row, output_hidden_states=True, return_dict=True).hidden_states[-1]
            np.testing.assert_allclose(one.vectors, own[0].numpy(), rtol=1e-4, atol=1e-5)


def test_it_can_be_reranked_with(encoder: TextEncoder) -> None:
    passages = [Passage(t, t, "", "s", None, 0, len(t)) for t in TEXTS]
    assert MaxSim(encoder).score("fee of the bank", passages).shape == (2,)
