"""The generator that ships: a BERT encoder and a three-layer decoder that may copy.

Implements `Generator`. One call reads all questions over all their passages; the memory of a row is
computed once and shared by its beams.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from consilience.encoding.bert import Embeddings, EncoderStack
from consilience.encoding.compact import assign, build_embeddings, fastest_dtype, shape_of
from consilience.encoding.folder import ModelConfig, ModelFolder
from consilience.encoding.tokenizer import SubwordTokenizer
from consilience.generation.base import Pair, Stretch
from consilience.generation.copying import CopyDecoder, DecoderCache, SourceMemory
from consilience.generation.reading import Row, collate, join


@dataclass(slots=True)
class CompactMemory:
    """What was read: the rows and the decoder's memory of them."""

    rows: list[Row]
    source: SourceMemory


class CompactGenerator(torch.nn.Module):
    """Implements `Generator` with the reader half of a model folder.

    Args:
        config: Sizes.
        words: The tokenizer.
        embeddings: Shared with the encoder of the retriever.
        reader: The encoder layers of the generator.
        decoder: The decoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        words: SubwordTokenizer,
        *,
        embeddings: Embeddings,
        reader: EncoderStack,
        decoder: CopyDecoder,
    ) -> None:
        super().__init__()
        self.config, self.words = config, words
        self.embeddings, self.reader, self.decoder = embeddings, reader, decoder
        self.start, self.end = words.start, words.separator
        self.none: int | None = words.none

    def rows(self, pairs: Sequence[Pair]) -> list[Row]:
        """Questions and passages as ids, one row each; equal texts are tokenised once."""
        texts = list({text for pair in pairs for text in (pair.question, pair.title, pair.passage)})
        tokens = dict(zip(texts, self.words.encode(texts), strict=True))
        return [
            join(
                tokens[pair.question],
                tokens[pair.title],
                tokens[pair.passage],
                words=self.words,
                window=self.config.reader_tokens,
            )
            for pair in pairs
        ]

    def memorise(self, rows: Sequence[Row]) -> SourceMemory:
        """Encoder states of rows as the decoder's memory; differentiable."""
        batch = collate(rows, words=self.words)
        states = self.reader(self.embeddings(batch.ids, batch.segments), batch.mask)
        return self.decoder.remember(batch.source(states), self.embeddings)

    @torch.inference_mode()
    def read(self, pairs: Sequence[Pair]) -> CompactMemory:
        """Read questions over passages."""
        rows = self.rows(pairs)
        return CompactMemory(rows, self.memorise(rows))

    def begin(self, memory: CompactMemory) -> DecoderCache:  # noqa: ARG002 - the protocol's shape
        """An empty cache."""
        return DecoderCache(keys=[], values=[])

    @torch.inference_mode()
    def step(self, memory: CompactMemory, state: DecoderCache, ids: Tensor) -> Tensor:
        """`[rows, beams]` ids just written to `[rows, beams, vocabulary]` log p, float32."""
        states = self.decoder.step(ids, memory.source, state, self.embeddings)
        return self.decoder.log_probs(states, memory.source, self.embeddings)

    def reorder(self, state: DecoderCache, parents: Tensor) -> None:
        """Beam `i` of each row goes on from beam `parents[row, i]`."""
        rows = parents.shape[0]
        width = state.keys[0].shape[0] // rows
        flat = (torch.arange(rows)[:, None] * width + parents).reshape(-1)
        state.keys = [keys[flat] for keys in state.keys]
        state.values = [values[flat] for values in state.values]

    def target_log_probs(self, memory: SourceMemory, targets: Tensor) -> Tensor:
        """Log p of targets, `[rows, steps]`, with gradient."""
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.start)
        states = self.decoder(inputs, memory, self.embeddings)
        return self.decoder.target_log_probs(states, targets, memory, self.embeddings)

    def next_log_probs(self, memory: SourceMemory, targets: Tensor) -> Tensor:
        """Log p of every token at each step given the target before it, `[rows, steps, v]`."""
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.start)
        states = self.decoder(inputs, memory, self.embeddings)
        return self.decoder.log_probs(states, memory, self.embeddings)

    @torch.inference_mode()
    def score(self, memory: CompactMemory, targets: Tensor) -> Tensor:
        """Log p of given answers, `[rows, steps]`, float32."""
        return self.target_log_probs(memory.source, targets)

    def decode(self, ids: Sequence[int]) -> str:
        """Plain lower-case text."""
        return self.words.decode(ids)

    @torch.inference_mode()
    def locate(self, memory: CompactMemory, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where the pointer stood for each token, joined to stretches of the passage."""
        if not ids:
            return []
        places = self._pointed(memory, row, ids)
        return _stretches(memory.rows[row], places) if places else []

    def _pointed(self, memory: CompactMemory, row: int, ids: Sequence[int]) -> list[int]:
        """For each token the place in the row that it was copied from, or [] if one was not."""
        source = _only(memory.source, row)
        inputs = torch.tensor([[self.start, *ids[:-1]]])
        states = self.decoder(inputs, source, self.embeddings)
        scores = self.decoder.pointer_logits(states, source)[0]
        same = source.ids[0][None, :] == torch.tensor(ids)[:, None]
        same[:, : memory.rows[row].passage_at] = False
        same[:, len(memory.rows[row].ids) - 1 :] = False
        return _best_path(scores.log_softmax(-1), same)


def _best_path(scores: Tensor, allowed: Tensor) -> list[int]:
    """The best places for tokens in turn; a step to the next place is worth one extra nat a token.

    Args:
        scores: Of each place for each token, `[tokens, places]`.
        allowed: Whether the place holds the token, `[tokens, places]`.
    """
    if not bool(allowed.any(1).all()):
        return []
    best = scores[0].masked_fill(~allowed[0], float("-inf"))
    back: list[Tensor] = []
    for token in range(1, scores.shape[0]):
        jump, jumped_from = best.max(0)
        follow = functional.pad(best[:-1], (1, 0), value=float("-inf")) + _TOGETHER
        back.append(torch.where(follow >= jump, torch.arange(len(best)) - 1, jumped_from))
        reached = torch.maximum(follow, jump) + scores[token]
        best = reached.masked_fill(~allowed[token], float("-inf"))
    path = [int(best.argmax())]
    for pointer in reversed(back):
        path.append(int(pointer[path[-1]]))
    return path[::-1]


_TOGETHER = 20.0
"""Nats that tokens standing side by side are worth: an answer is one stretch if it can be."""


def _stretches(row: Row, places: Sequence[int]) -> list[Stretch]:
    """Places in a row as character stretches of its passage, neighbours joined."""
    found: list[Stretch] = []
    for index, place in enumerate(places):
        start, end = row.offsets[place - row.passage_at]
        if found and place == places[index - 1] + 1:
            found[-1] = Stretch(found[-1].start, end)
        else:
            found.append(Stretch(start, end))
    return found


def _only(source: SourceMemory, row: int) -> SourceMemory:
    """The memory of one row."""
    one = slice(row, row + 1)
    return SourceMemory(
        keys=[keys[one] for keys in source.keys],
        values=[values[one] for values in source.values],
        bias=source.bias[one],
        pointers=source.pointers[one],
        pointer_bias=source.pointer_bias[one],
        ids=source.ids[one],
    )


def build_generator(
    folder: ModelFolder, tensors: dict[str, Tensor], *, embeddings: Embeddings | None = None
) -> CompactGenerator:
    """The generator of a checked folder whose tensors were read already.

    Args:
        folder: The folder.
        tensors: Its tensors.
        embeddings: Those of the folder's encoder, to be shared with it; None for its own.
    """
    shape, dtype = shape_of(folder.config), fastest_dtype()
    with torch.device("meta"):
        reader = EncoderStack(shape, folder.config.encoder_layers)
        decoder = CopyDecoder(shape, folder.config.decoder_layers)
    assign(reader, tensors, "reader.", dtype)
    assign(decoder, tensors, "decoder.", dtype)
    return CompactGenerator(
        folder.config,
        SubwordTokenizer.load(folder.path / "tokenizer.json"),
        embeddings=build_embeddings(folder, tensors) if embeddings is None else embeddings,
        reader=reader,
        decoder=decoder,
    )
