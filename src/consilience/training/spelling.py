"""Plain text as the ids that an encoder or a generator reads, with the places that may be masked.

Text is always text: a special token that is written out in a document is read letter by letter. It
knows tokenizers and refuses to know models: which ids go where is all that leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.encoding.compact import CompactEncoder
from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer
from consilience.errors import UsageError
from consilience.generation import TokenRows
from consilience.generation.compact import CompactGenerator
from consilience.model.text_encoder import TextEncoder
from consilience.training.objectives import Words

SENTINELS = 100
"""Stretches that one text can lose at most; T5 has as many marks for them."""

PIECE = "##"
"""What a sub-word that goes on with a word begins with, in vocabularies that say so."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How texts become rows of ids.

    Attributes:
        encode: Ids of each text, without marks.
        pieces: The sub-word of each id.
        opening: Ids before a text.
        closing: Ids after a text, and between two.
        pad: What rows are filled up with.
        window: Most ids in a row.
        mask: The id of the mask; None where there is none.
        sentinels: Ids that mark missing stretches, in order; none where the model has no mark.
        words: The first id that is a word, and how many ids there are.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    pieces: Callable[[Sequence[int]], list[str]]
    opening: list[int]
    closing: list[int]
    pad: int
    window: int
    mask: int | None
    sentinels: list[int]
    words: tuple[int, int]

    @property
    def room(self) -> int:
        """Ids of text that fit into a row."""
        return self.window - len(self.opening) - len(self.closing)

    def replaceable(self) -> Words:
        """What a masked token can be replaced by.

        Raises:
            UsageError: The vocabulary has no mask.
        """
        if self.mask is None:
            raise UsageError(
                "the tokenizer of this encoder has no mask", hint="leave the objective mlm out"
            )
        return Words(self.mask, *self.words)


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts, or pairs of texts, as an encoder reads them.

    Attributes:
        ids: `[b, t]`.
        mask: True at tokens, `[b, t]`.
        segments: 1 in the second text of a pair, `[b, t]`.
        plain: True at tokens of a text, `[b, t]`.
        groups: The number of the word that each token belongs to, `[b, t]`.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    plain: Tensor
    groups: Tensor


def rows_of(spelling: Spelling, texts: Sequence[str], device: torch.device) -> Rows:
    """Texts as rows; what does not fit into the window is not read."""
    encoded = [[ids[: spelling.room]] for ids in spelling.encode(texts)]
    return _laid_out(spelling, encoded, device)


def pairs_of(spelling: Spelling, pairs: Sequence[tuple[str, str]], device: torch.device) -> Rows:
    """Pairs of texts as rows; of two that do not fit, each keeps the beginning of its half."""
    first, second = (spelling.encode(side) for side in zip(*pairs, strict=True))
    half = (spelling.room - len(spelling.closing)) // 2
    encoded = [[a[:half], b[:half]] for a, b in zip(first, second, strict=True)]
    return _laid_out(spelling, encoded, device)


def _laid_out(
    spelling: Spelling, encoded: Sequence[Sequence[list[int]]], device: torch.device
) -> Rows:
    laid = [_row(spelling, parts) for parts in encoded]
    length = max(len(ids) for ids, _, _ in laid)
    shape = (len(laid), length)
    ids = torch.full(shape, spelling.pad, dtype=torch.long)
    mask, plain = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    segments, groups = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
    for row, (own, segment, of_text) in enumerate(laid):
        here = slice(0, len(own))
        ids[row, here], mask[row, here] = torch.tensor(own), True
        segments[row, here], plain[row, here] = torch.tensor(segment), torch.tensor(of_text)
        groups[row, here] = torch.tensor(_words_in(spelling.pieces(own)))
    found = (ids, mask, segments, plain, groups)
    return Rows(*(each.to(device) for each in found))


def _row(spelling: Spelling, parts: Sequence[list[int]]) -> tuple[list[int], list[int], list[bool]]:
    """The ids of a row, the segment of each, and whether it is of a text."""
    ids, of_text = list(spelling.opening), [False] * len(spelling.opening)
    segments = [0] * len(ids)
    for number, part in enumerate(parts):
        ids += [*part, *spelling.closing]
        of_text += [*[True] * len(part), *[False] * len(spelling.closing)]
        segments += [number] * (len(part) + len(spelling.closing))
    return ids, segments, of_text


def _words_in(pieces: Sequence[str]) -> list[int]:
    """The number of the word that each piece belongs to."""
    found, number = [], -1
    for piece in pieces:
        number += not (piece.startswith(PIECE) and number >= 0)
        found.append(number)
    return found


def token_rows_of(
    spelling: Spelling, encoded: Sequence[Sequence[int]], device: torch.device
) -> TokenRows:
    """Ids without marks as rows that a generator reads."""
    rows = _laid_out(spelling, [[list(ids[: spelling.room])] for ids in encoded], device)
    return TokenRows(rows.ids, rows.mask)


def spelling_of_encoder(encoder: CompactEncoder | TextEncoder) -> Spelling:
    """How an encoder's texts are spelled."""
    if isinstance(encoder, CompactEncoder):
        words = encoder.words
        return _compact(words, [words.start], encoder.config.passage_tokens)
    config: Any = encoder.passages.model.config
    return _library(encoder.tokenizer, window=config.max_position_embeddings)


def spelling_of_generator(generator: Any) -> Spelling:
    """How a generator's texts are spelled, where they are read alone and no question is asked.

    Raises:
        UsageError: It has no tokenizer.
    """
    if isinstance(generator, CompactGenerator):
        words = generator.tokens
        # What it reads begins with a question; this one is empty.
        opening = [words.start, words.separator]
        return _compact(words, opening, generator.config.reader_tokens)
    tokenizer = getattr(generator, "tokenizer", None)
    if tokenizer is None:
        raise UsageError(
            "this generator has no tokenizer, so it cannot learn from plain text",
            hint="start from a model that has one",
        )
    return _library(tokenizer, window=generator.window)


def _compact(words: SubwordTokenizer, opening: list[int], window: int) -> Spelling:
    return Spelling(
        encode=lambda texts: [tokens.ids for tokens in words.encode(texts)],
        pieces=words.words,
        opening=opening,
        closing=[words.separator],
        pad=words.pad,
        window=window,
        mask=words.mask,
        # It has one mark, so the stretches are told apart by their order.
        sentinels=[words.mask] * SENTINELS,
        words=(len(SPECIAL), len(words)),
    )


def _library(tokenizer: Any, *, window: int) -> Spelling:
    def encode(texts: Sequence[str], *, marked: bool = False) -> list[list[int]]:
        found = tokenizer(
            list(texts), add_special_tokens=marked, split_special_tokens=True, verbose=False
        )
        return [list(ids) for ids in found["input_ids"]]

    (bare,), (marked,) = encode(["a"]), encode(["a"], marked=True)
    at = next((i for i in range(len(marked)) if marked[i : i + len(bare)] == bare), 0)
    mask = tokenizer.mask_token_id
    return Spelling(
        encode=encode,
        pieces=lambda ids: list(tokenizer.convert_ids_to_tokens(list(ids))),
        opening=marked[:at],
        closing=marked[at + len(bare) :],
        pad=tokenizer.pad_token_id or 0,
        window=window,
        mask=mask,
        sentinels=_marks(tokenizer) or ([] if mask is None else [mask] * SENTINELS),
        words=(0, len(tokenizer)),
    )


def _marks(tokenizer: Any) -> list[int]:
    """T5's marks for missing stretches; none in other vocabularies."""
    known = tokenizer.get_vocab()
    names = (f"<extra_id_{number}>" for number in range(SENTINELS))
    return [known[name] for name in names if name in known]
