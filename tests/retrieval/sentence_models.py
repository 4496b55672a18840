"""Tiny models of sentence-transformers with random weights, written as folders."""

from pathlib import Path

import torch

WORDS = [
    *("what", "where", "is", "the", "a", "and", "open"),
    *("fee", "ward", "hours", "card", "bank", "salmon", "ladder", "river"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_backbone(folder: Path, *, outputs: int | None = None, seed: int = 0) -> Path:
    """A BERT of a few thousand weights with its tokenizer; with `outputs`, a classifier."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        BertTokenizerFast,
    )

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *WORDS, "[Q]", "[D]"]), "utf-8")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), model_max_length=64)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + 2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=outputs or 2,
    )
    torch.manual_seed(seed)
    model = BertModel(config) if outputs is None else BertForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_cross_encoder(folder: Path, *, outputs: int = 1, seed: int = 0) -> Path:
    """A cross-encoder as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder

    plain = write_backbone(folder / "plain", outputs=outputs, seed=seed)
    model = CrossEncoder(str(plain), num_labels=outputs, device="cpu")
    model.save_pretrained(str(folder / "saved"))
    return folder / "saved"


def write_multi_vector(folder: Path, *, seed: int = 0) -> Path:
    """An encoder of many vectors as sentence-transformers saves it."""
    from sentence_transformers import MultiVectorEncoder

    plain = write_backbone(folder / "plain", seed=seed)
    model = MultiVectorEncoder(str(plain), device="cpu")
    model.save_pretrained(str(folder / "saved"))
    return folder / "saved"
