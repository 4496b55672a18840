"""What the shipped generator reads: a question and one passage as one row of ids.

    [CLS] question [SEP] title : passage [SEP]

The question is never cut while the passage has anything left to give. Offsets of the passage's
tokens come along, so that what the pointer copies can be found again in the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.encoding.tokenizer import SubwordTokenizer, Tokens
from consilience.generation.base import TokenRows

LEAST_PASSAGE = 128
"""Tokens that are kept for the passage, whatever the question's length."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question over one passage, as ids.

    Attributes:
        ids: All ids.
        passage_at: Where the passage's ids begin in `ids`.
        offsets: Of the passage's tokens, in characters of the passage.
    """

    ids: list[int]
    passage_at: int
    offsets: list[tuple[int, int]]


def join(
    question: Tokens, title: Tokens, passage: Tokens, *, words: SubwordTokenizer, window: int
) -> Row:
    """One row of at most `window` ids; a question too long for it keeps its head and its tail."""
    asked = _shorten(question.ids, window - LEAST_PASSAGE - 3)
    head = [words.start, *asked, words.separator, *title.ids[:24]]
    room = window - len(head) - 1
    return Row(
        ids=[*head, *passage.ids[:room], words.separator],
        passage_at=len(head),
        offsets=passage.offsets[:room],
    )


def _shorten(ids: list[int], most: int) -> list[int]:
    if len(ids) <= most:
        return ids
    head = most // 3
    return ids[:head] + ids[len(ids) - (most - head) :]


@dataclass(frozen=True, slots=True)
class Marks:
    """What the separators of rows tell.

    Attributes:
        segments: 1 from the title on, `[rows, length]`.
        copyable: True at the title's and the passage's tokens, `[rows, length]`.
    """

    segments: Tensor
    copyable: Tensor


def collate(rows: Sequence[Row], *, words: SubwordTokenizer) -> TokenRows:
    """Rows as padded tensors."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), words.pad, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
    return TokenRows(ids, ids != words.pad)


def mark(rows: TokenRows, *, words: SubwordTokenizer) -> Marks:
    """Where the question ends and what may be copied."""
    separators = rows.ids == words.separator
    segments = (separators.cumsum(1) - separators.long() > 0) & rows.mask
    return Marks(segments.long(), segments & ~separators)
