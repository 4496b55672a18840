"""Models whose ranking is known without asking them: their weights count words.

Every layer hands on what it is given, and each word that counts has a direction of its own, so the
state of a token is its word and nothing else. Marks and all other words are zero.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from consilience.encoding.folder import write_folder
from tests.retrieval.sentence_models import SPECIAL, write_backbone
from tests.retrieval.sentence_models import WORDS as MULTI_VECTOR_WORDS
from tests.tiny import WORDS, tiny_config, tiny_tensors, tiny_tokenizer

SIZE = 16
COUNTED = WORDS[5:]
"""The words of the tiny model that count: those that are no function words."""


def write_counting_model(folder: Path) -> Path:
    """A tiny model whose encoder counts words."""
    words = tiny_tokenizer()
    tensors = tiny_tensors(tiny_config(words))
    for name, value in tensors.items():
        if name.startswith("retriever.") and ".output.dense." in name:
            tensors[name] = torch.zeros_like(value)
        if name.startswith("embeddings.") and "LayerNorm" not in name:
            tensors[name] = torch.zeros_like(value)
    ids = [tokens.ids[0] for tokens in words.encode(COUNTED)]
    tensors["embeddings.word_embeddings.weight"][ids] = directions(len(ids)).bfloat16()
    write_folder(folder, tiny_config(words), tensors, words.to_json())
    return folder


def write_counting_vectors(folder: Path) -> Path:
    """An encoder of many vectors that counts words; `fee` and what follows in its vocabulary."""
    from sentence_transformers import MultiVectorEncoder
    from transformers import BertModel

    plain = write_backbone(folder / "plain")
    model = BertModel.from_pretrained(plain)
    first = MULTI_VECTOR_WORDS.index("fee")
    counted = MULTI_VECTOR_WORDS[first:]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".output.dense." in name or "_embeddings." in name:
                value.zero_()
        words = model.embeddings.word_embeddings.weight
        words[len(SPECIAL) + first :][: len(counted)] = directions(len(counted))
    model.save_pretrained(plain)
    found = MultiVectorEncoder(str(plain), device="cpu")
    with torch.no_grad():
        weight = found[1].linear.weight
        weight.copy_(torch.eye(*weight.shape))
    found.save_pretrained(str(folder / "saved"))
    return folder / "saved"


def directions(count: int) -> Tensor:
    """A direction for each of some words, `[count, SIZE]`."""
    return torch.eye(SIZE)[:count]


def cosine_of_counts(question: str, passage: str) -> float:
    """The cosine of the numbers of counted words, less their means over all directions."""
    asked, told = (_counts(text) for text in (question, passage))
    return float(asked @ told / np.sqrt((asked @ asked) * (told @ told)))


def _counts(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = np.zeros(SIZE)
    for word in text.split():
        if word in COUNTED:
            counts[COUNTED.index(word)] += 1
    return counts - counts.mean()
