"""The encoder that ships: six BERT layers over the shared embeddings, mean of the token states.

Questions and passages go through the same layers. Work is done in batches of like length and, where
the processor multiplies bfloat16, in bfloat16: the vectors are the same to three decimals and come
almost three times as fast.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from consilience.encoding.base import Side, TokenVectors, Vectors
from consilience.encoding.bert import Embeddings, EncoderStack, TransformerShape, mean_pool
from consilience.encoding.folder import ModelConfig, ModelFolder, open_folder, which_folder
from consilience.encoding.narrow import narrow
from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer

BATCH_TOKENS = 4096
RETRIEVER_PARTS = ("embeddings.", "retriever.")
QUESTIONS = "questions."
"""Where a folder keeps layers for questions that are not those for passages."""


def shape_of(config: ModelConfig) -> TransformerShape:
    """The sizes of the layers that a config asks for."""
    return TransformerShape(
        vocabulary_size=config.vocabulary_size,
        hidden_size=config.hidden_size,
        heads=config.heads,
        intermediate_size=config.intermediate_size,
        positions=config.positions,
    )


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it, else float32."""
    native = bool(torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if native else torch.float32


class CompactEncoder:
    """Implements `Encoder` with the retriever half of a model folder.

    Attributes:
        config: Sizes.
        words: The tokenizer.
        embeddings: Shared with the generator.
        layers: The retriever's own.
        asking: Those of questions: the same layers, or a copy of them that was trained while the
            passages' vectors stayed as they were.
    """

    def __init__(
        self,
        config: ModelConfig,
        words: SubwordTokenizer,
        *,
        embeddings: Embeddings,
        layers: EncoderStack,
        fingerprint: str,
        asking: EncoderStack | None = None,
    ) -> None:
        self.config, self.words = config, words
        self.embeddings, self.layers = embeddings, layers
        self.asking = layers if asking is None else asking
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """Digest of what vectors of passages depend on: weights, vocabulary and settings."""
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self.config.hidden_size

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """`[questions, dimension]`, each of length one."""
        return self._encode(questions, self.asking)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`, each of length one; text past the window is not read."""
        return self._encode(passages, self.layers)

    def token_rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts as the layers read them, `[texts, length]` each."""
        return self._padded(self._ids(texts))

    def token_vectors(self, texts: Sequence[str], *, side: Side) -> list[TokenVectors]:
        """Of each text its tokens with their states; text past the window is not read."""
        if not texts:
            return []
        layers = self.asking if side == "questions" else self.layers
        found: dict[int, TokenVectors] = {}
        ids, mask = self.token_rows(texts)
        lengths = mask.sum(1).tolist()
        for batch in like_lengths(lengths, BATCH_TOKENS):
            longest = lengths[batch[-1]]
            states = self._states(ids[batch, :longest], mask[batch, :longest], layers)
            for row, place in enumerate(batch):
                words = self.words.words(ids[place, : lengths[place]].tolist())
                plain = ["" if word in SPECIAL else word for word in words]
                found[place] = TokenVectors(plain, states[row, : lengths[place]].cpu().numpy())
        return [found[place] for place in range(len(texts))]

    def narrow(self) -> None:
        """Get ready for many questions: see `encoding.narrow`."""
        narrow(self.asking)

    def move(self, device: torch.device) -> None:
        """Compute there from now on."""
        for part in (self.embeddings, self.layers, self.asking):
            part.to(device)

    @torch.inference_mode()
    def _states(self, ids: Tensor, mask: Tensor, layers: EncoderStack) -> Tensor:
        """`[texts, length]` ids and mask to `[texts, length, hidden]` in float32."""
        states: Tensor = layers(self.embeddings(ids, torch.zeros_like(ids)), mask)
        return states.float()

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        most = self.config.passage_tokens - 2
        return [
            [self.words.start, *tokens.ids[:most], self.words.separator]
            for tokens in self.words.encode(texts)
        ]

    def _padded(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        length, device = max(map(len, ids)), self.embeddings.word_embeddings.weight.device
        rows = [one + [self.words.pad] * (length - len(one)) for one in ids]
        padded = torch.tensor(rows, device=device)
        return padded, padded != self.words.pad

    def _encode(self, texts: Sequence[str], layers: EncoderStack) -> Vectors:
        ids = self._ids(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for batch in like_lengths([len(one) for one in ids], BATCH_TOKENS):
            vectors[batch] = self._embed([ids[index] for index in batch], layers).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def _embed(self, ids: Sequence[list[int]], layers: EncoderStack) -> Tensor:
        padded, mask = self._padded(ids)
        return mean_pool(layers(self.embeddings(padded, torch.zeros_like(padded)), mask), mask)


def like_lengths(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, each of at most `budget` tokens with its padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def retriever_fingerprint(config: ModelConfig, tensors: dict[str, Tensor], tokenizer: Path) -> str:
    """A digest over all that a passage's vector depends on, 32 hexadecimal digits.

    It is taken over the values, so that a copy saved with more bits than it needs is the same.
    """
    digest = hashlib.sha256(tokenizer.read_bytes())
    settings = asdict(config)
    kept = ("hidden_size", "heads", "encoder_layers", "passage_tokens")
    digest.update(json.dumps({key: settings[key] for key in kept}).encode())
    for name in sorted(tensors):
        if name.startswith(RETRIEVER_PARTS):
            digest.update(name.encode())
            digest.update(tensors[name].float().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def build_encoder(
    folder: ModelFolder, tensors: dict[str, Tensor], *, dtype: torch.dtype | None = None
) -> CompactEncoder:
    """The encoder of a checked folder whose tensors were read already.

    Args:
        folder: The folder.
        tensors: Its tensors.
        dtype: Of the weights; None for what is fastest here.
    """
    dtype = dtype or fastest_dtype()
    with torch.device("meta"):
        layers = EncoderStack(shape_of(folder.config), folder.config.encoder_layers)
    assign(layers, tensors, "retriever.", dtype)
    asking = None
    if any(name.startswith(QUESTIONS) for name in tensors):
        with torch.device("meta"):
            asking = EncoderStack(shape_of(folder.config), folder.config.encoder_layers)
        assign(asking, tensors, QUESTIONS, dtype)
    return CompactEncoder(
        folder.config,
        SubwordTokenizer.load(folder.path / "tokenizer.json"),
        embeddings=build_embeddings(folder, tensors, dtype),
        layers=layers,
        asking=asking,
        fingerprint=retriever_fingerprint(folder.config, tensors, folder.path / "tokenizer.json"),
    )


def build_embeddings(
    folder: ModelFolder, tensors: dict[str, Tensor], dtype: torch.dtype
) -> Embeddings:
    """The embeddings of a checked folder, which its encoder and its generator may share."""
    with torch.device("meta"):
        embeddings = Embeddings(shape_of(folder.config))
    assign(embeddings, tensors, "embeddings.", dtype)
    return embeddings


def assign(
    module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str, dtype: torch.dtype
) -> None:
    """Give a module the tensors under a prefix, ready for inference."""
    own = {k.removeprefix(prefix): v.to(dtype) for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict(own, assign=True)
    module.eval().requires_grad_(False)


def load_encoder(path: Path | None = None) -> CompactEncoder:
    """The encoder of a model folder; None for the one that ships.

    A model is read once in a process; another one at the same place is another model.

    Raises:
        MissingError, DamagedError, VersionError: As `open_folder`.
    """
    return _load(*which_folder(path))


@lru_cache(maxsize=4)
def _load(path: Path, _manifest: str) -> CompactEncoder:
    folder = open_folder(path)
    return build_encoder(folder, folder.tensors())
