"""The generator that ships: a BERT encoder and a three-layer decoder that may copy.

Implements `Generator`. One call reads all questions over all their passages; the memory of a row is
computed once and shared by its beams.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from consilience.encoding.bert import Embeddings, EncoderStack
from consilience.encoding.compact import assign, build_embeddings, fastest_dtype, shape_of
from consilience.encoding.folder import ModelConfig, ModelFolder
from consilience.encoding.narrow import narrow
from consilience.encoding.tokenizer import SubwordTokenizer
from consilience.generation.base import LEAST, NextToken, Pair, Stretch, TokenRows
from consilience.generation.copying import CopyDecoder, DecoderCache, Source, SourceMemory, below
from consilience.generation.reading import Row, collate, join, mark


@dataclass(slots=True)
class CompactMemory:
    """What was read.

    Attributes:
        source: The decoder's memory of it.
        passages: True at the tokens of passages, `[rows, length]`; at their titles too when ids
            were read, not text.
        rows: The rows with the places of their tokens; empty when ids were read, not text.
        states: Of the encoder, `[rows, length, hidden]`; None where passages stand end to end.
    """

    source: SourceMemory
    passages: Tensor
    rows: list[Row] = field(default_factory=list)
    states: Tensor | None = None


class CompactGenerator(torch.nn.Module):
    """Implements `Generator` with the reader half of a model folder.

    Args:
        config: Sizes.
        tokens: The tokenizer.
        embeddings: Shared with the encoder of the retriever.
        reader: The encoder layers of the generator.
        decoder: The decoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokens: SubwordTokenizer,
        *,
        embeddings: Embeddings,
        reader: EncoderStack,
        decoder: CopyDecoder,
    ) -> None:
        super().__init__()
        self.config, self.tokens = config, tokens
        self.embeddings, self.reader, self.decoder = embeddings, reader, decoder
        self.start, self.end = tokens.start, tokens.separator
        self.none: int | None = tokens.none

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""
        return self.config.vocabulary_size

    def longest_answer(self, memory: CompactMemory) -> int:
        """As many tokens as there are positions after the start token's."""
        del memory
        return self.config.positions - 1

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embeddings.word_embeddings.weight.device

    def narrow(self) -> None:
        """Get ready for many answers: see `encoding.narrow`."""
        narrow(self.embeddings, self.decoder)

    def rows(self, pairs: Sequence[Pair]) -> TokenRows:
        """Questions and passages as padded ids, one row each."""
        return collate(self._joined(pairs), words=self.tokens)

    def _joined(self, pairs: Sequence[Pair]) -> list[Row]:
        """One row for each pair; equal texts are tokenised once."""
        texts = list({text for pair in pairs for text in (pair.question, pair.title, pair.passage)})
        encoded = dict(zip(texts, self.tokens.encode(texts), strict=True))
        return [
            join(
                encoded[pair.question],
                encoded[pair.title],
                encoded[pair.passage],
                words=self.tokens,
                window=self.config.reader_tokens,
            )
            for pair in pairs
        ]

    def answer_ids(self, text: str) -> list[int]:
        """An answer's ids with its end; case and traditional characters are folded."""
        return [*self.tokens.encode([text])[0].ids, self.end]

    def memorise(self, rows: TokenRows) -> CompactMemory:
        """Encoder states of rows as the decoder's memory; differentiable."""
        rows = TokenRows(rows.ids.to(self.device), rows.mask.to(self.device))
        marks = mark(rows, words=self.tokens)
        states = self.reader(self.embeddings(rows.ids, marks.segments), rows.mask)
        source = Source(states=states, mask=rows.mask, ids=rows.ids, copyable=marks.copyable)
        memory = self.decoder.remember(source, self.embeddings)
        return CompactMemory(memory, marks.copyable, states=states)

    @torch.inference_mode()
    def read(self, pairs: Sequence[Pair]) -> CompactMemory:
        """Read questions over passages."""
        joined = self._joined(pairs)
        memory = self.memorise(collate(joined, words=self.tokens))
        begins = torch.tensor([row.passage_at for row in joined], device=self.device)
        places = torch.arange(memory.passages.shape[1], device=self.device)
        return replace(memory, passages=memory.passages & (places >= begins[:, None]), rows=joined)

    def together(self, memory: CompactMemory, k: int) -> CompactMemory:
        """Every `k` rows as one: the decoder attends to, and copies from, all of them."""
        passages = memory.passages.reshape(-1, k * memory.passages.shape[1])
        return CompactMemory(memory.source.together(k), passages)

    def join(self, memories: Sequence[CompactMemory]) -> CompactMemory:
        """The rows of several readings, one after another."""
        source = SourceMemory.join([one.source for one in memories])
        passages = below([one.passages for one in memories], dim=1)
        return CompactMemory(source, passages, [row for one in memories for row in one.rows])

    def quotable(self, memory: CompactMemory) -> TokenRows:
        """The ids of every row, and a mask that is True at those of a passage."""
        return TokenRows(memory.source.ids, memory.passages)

    @torch.inference_mode()
    def keep(
        self, memory: CompactMemory, state: DecoderCache, rows: Tensor
    ) -> tuple[CompactMemory, DecoderCache]:
        """Memory and state of some rows."""
        joined = [memory.rows[row] for row in rows.tolist()] if memory.rows else []
        kept = CompactMemory(memory.source.only(rows), memory.passages[rows], joined)
        return kept, state.only(rows, memory.source.ids.shape[0])

    @torch.inference_mode()
    def begin(self, memory: CompactMemory) -> tuple[DecoderCache, NextToken]:
        """An empty cache with the start token written, and what may follow it."""
        state = DecoderCache(keys=[], values=[])
        opening = torch.full((memory.source.ids.shape[0], 1), self.start, device=self.device)
        return state, self._next(memory, state, opening)

    @torch.inference_mode()
    def step(
        self, memory: CompactMemory, state: DecoderCache, ids: Tensor, parents: Tensor
    ) -> NextToken:
        """`[rows, n]` ids after `[rows, n]` parents to what may follow each."""
        state.follow(parents)
        return self._next(memory, state, ids)

    def _next(self, memory: CompactMemory, state: DecoderCache, ids: Tensor) -> NextToken:
        states = self.decoder.step(ids, memory.source, state, self.embeddings)
        probs = self.decoder.probs(states, memory.source, self.embeddings)
        return NextToken(probs, torch.ones_like(probs[..., 0]))

    def target_log_probs(self, memory: CompactMemory, targets: Tensor) -> Tensor:
        """Log p of targets, `[rows, steps]`, with gradient."""
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.start)
        states = self.decoder(inputs, memory.source, self.embeddings)
        return self.decoder.target_log_probs(states, targets, memory.source, self.embeddings)

    def next_logits(self, memory: CompactMemory, targets: Tensor) -> Tensor:
        """Log p of every token at each step given the target before it, `[rows, steps, v]`."""
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.start)
        states = self.decoder(inputs, memory.source, self.embeddings)
        return self.decoder.probs(states, memory.source, self.embeddings).clamp_min(LEAST).log()

    @torch.inference_mode()
    def score(self, memory: CompactMemory, targets: Tensor) -> Tensor:
        """Log p of given answers, `[rows, steps]`, float32."""
        return self.target_log_probs(memory, targets)

    def decode(self, ids: Sequence[int]) -> str:
        """Plain lower-case text."""
        return self.tokens.decode(ids)

    def words(self, ids: Sequence[int]) -> list[str]:
        """The sub-word of each id."""
        return [word.removeprefix("##") for word in self.tokens.words(ids)]

    @torch.inference_mode()
    def locate(self, memory: CompactMemory, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where the pointer stood for each token, joined to stretches of the passage."""
        if not ids:
            return []
        places = self._pointed(memory, row, ids)
        return _stretches(memory.rows[row], places) if places else []

    def _pointed(self, memory: CompactMemory, row: int, ids: Sequence[int]) -> list[int]:
        """For each token the place in the row that it was copied from, or [] if one was not."""
        source = memory.source.only(slice(row, row + 1))
        inputs = torch.tensor([[self.start, *ids[:-1]]], device=self.device)
        states = self.decoder(inputs, source, self.embeddings)
        scores = self.decoder.pointer_logits(states, source)[0]
        same = source.ids[0][None, :] == torch.tensor(ids, device=self.device)[:, None]
        same[:, : memory.rows[row].passage_at] = False
        same[:, len(memory.rows[row].ids) - 1 :] = False
        return _best_path(scores.log_softmax(-1).cpu(), same.cpu())


def _best_path(scores: Tensor, allowed: Tensor) -> list[int]:
    """The best places for tokens in turn; a step to the next place is worth `_TOGETHER`.

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


_TOGETHER = 1000.0
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


def build_generator(
    folder: ModelFolder,
    tensors: dict[str, Tensor],
    *,
    embeddings: Embeddings | None = None,
    dtype: torch.dtype | None = None,
) -> CompactGenerator:
    """The generator of a checked folder whose tensors were read already.

    Args:
        folder: The folder.
        tensors: Its tensors.
        embeddings: Those of the folder's encoder, to be shared with it; None for its own.
        dtype: Of the weights; None for what is fastest here.
    """
    shape, dtype = shape_of(folder.config), dtype or fastest_dtype()
    with torch.device("meta"):
        reader = EncoderStack(shape, folder.config.encoder_layers)
        decoder = CopyDecoder(shape, folder.config.decoder_layers)
    assign(reader, tensors, "reader.", dtype)
    assign(decoder, tensors, "decoder.", dtype)
    return CompactGenerator(
        folder.config,
        SubwordTokenizer.load(folder.path / "tokenizer.json"),
        embeddings=embeddings or build_embeddings(folder, tensors, dtype),
        reader=reader,
        decoder=decoder,
    )
