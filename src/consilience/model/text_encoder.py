"""DPR and its like as an `Encoder`: texts through their own tokenizer to vectors for a store.

Vectors keep their length, unlike those of the model that ships: such encoders were trained on the
inner product as it is, and `p(d | x) = softmax(<q(x), d>)` holds only for that. Half precision, in
which a store keeps them, has three decimals at any length.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from consilience.encoding import Side, TokenVectors, Vectors
from consilience.encoding.compact import BATCH_TOKENS, like_lengths
from consilience.model.vectors import PooledEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextEncoder:
    """Implements `Encoder` with two transformers encoders, which may be one and the same.

    Args:
        questions: Of questions.
        passages: Of passages.
        tokenizer: Of both.
    """

    def __init__(
        self,
        questions: PooledEncoder,
        passages: PooledEncoder,
        tokenizer: "PreTrainedTokenizerBase",
    ) -> None:
        self.questions, self.passages, self.tokenizer = questions, passages, tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """Digest of both encoders' weights and the vocabulary, as they were when first asked."""
        digest = hashlib.sha256()
        for word, number in sorted(self.tokenizer.get_vocab().items()):
            digest.update(f"{word}\0{number}\0".encode(errors="replace"))
        for name, value in self._weights():
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:32]

    def move(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.questions.to(device)
        self.passages.to(device)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for side, encoder in (("questions", self.questions), ("passages", self.passages)):
            yield from ((f"{side}.{name}", value) for name, value in encoder.named_parameters())

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        config: Any = self.passages.model.config
        return int(getattr(config, "projection_dim", 0) or config.hidden_size)

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """`[questions, dimension]`."""
        return self._encode(self.questions, questions)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`; text past the window is not read."""
        return self._encode(self.passages, passages)

    def token_rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts as both encoders read them, `[texts, length]` each."""
        return _padded(self._ids(texts), next(self.passages.parameters()).device)

    def token_vectors(self, texts: Sequence[str], *, side: Side) -> list[TokenVectors]:
        """Of each text its tokens with their states; text past the window is not read."""
        encoder = self.questions if side == "questions" else self.passages
        ids, found = self._ids(texts), dict[int, TokenVectors]()
        for batch in like_lengths([len(one) for one in ids], BATCH_TOKENS):
            states = _states(encoder, [ids[place] for place in batch])
            for row, place in enumerate(batch):
                own = states[row, : len(ids[place])].cpu().numpy()
                found[place] = TokenVectors(self._words(ids[place]), own)
        return [found[place] for place in range(len(texts))]

    def _words(self, ids: Sequence[int]) -> list[str]:
        """The sub-word of each id, empty for those that stand for no text."""
        special = set(self.tokenizer.all_special_ids)
        words = list(self.tokenizer.convert_ids_to_tokens(list(ids)))
        return ["" if one in special else word for one, word in zip(ids, words, strict=True)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        config: Any = self.passages.model.config
        most = config.max_position_embeddings
        found = [self.tokenizer(text, truncation=True, max_length=most) for text in texts]
        return [list(one["input_ids"]) for one in found]

    def _encode(self, encoder: PooledEncoder, texts: Sequence[str]) -> Vectors:
        return self._encode_rows(encoder, self._ids(texts))

    def _encode_rows(self, encoder: PooledEncoder, ids: Sequence[list[int]]) -> Vectors:
        """Rows of ids to vectors, `[rows, dimension]`."""
        vectors = np.zeros((len(ids), self.dimension), dtype=np.float32)
        for batch in like_lengths([len(one) for one in ids], BATCH_TOKENS):
            vectors[batch] = _vectors(encoder, [ids[index] for index in batch])
        return vectors


@torch.inference_mode()
def _vectors(encoder: PooledEncoder, ids: list[list[int]]) -> Vectors:
    """Rows of ids to vectors, `[rows, dimension]`."""
    padded, mask = _padded(ids, next(encoder.parameters()).device)
    found: Vectors = encoder(padded, mask).float().cpu().numpy()
    return found


@torch.inference_mode()
def _states(encoder: PooledEncoder, ids: list[list[int]]) -> Tensor:
    """Rows of ids to states of the last layer in float32, `[rows, length, size]`."""
    padded, mask = _padded(ids, next(encoder.parameters()).device)
    # DPR's classes name no last state, but hand on all of them.
    told: Any = encoder.model(
        input_ids=padded, attention_mask=mask.long(), output_hidden_states=True, return_dict=True
    )
    states: Tensor = told.hidden_states[-1].float()
    return states


def _padded(ids: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    length = max(map(len, ids))
    mask = [[True] * len(one) + [False] * (length - len(one)) for one in ids]
    rows = [one + [0] * (length - len(one)) for one in ids]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
