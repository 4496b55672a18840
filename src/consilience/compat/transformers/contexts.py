"""What the generator reads: a passage and the question behind it, as one row of ids.

    prefix title / text // question

Two ways to make a long row fit: transformers cuts it on the right, where the question stands;
`whole_questions` cuts the passage instead. Which one is used is for the retriever to say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase, RagConfig

from consilience.errors import UsageError

Docs = Sequence[Mapping[str, Sequence[str]]]
"""For each question, the columns `title` and `text` of its passages."""


def context_heads(docs: Docs, prefix: str | None, config: RagConfig, n_docs: int) -> list[str]:
    """What stands before the question in every row, question-major."""
    return [
        f"{prefix or ''}{_unquoted(one['title'][j])}{config.title_sep}{one['text'][j]}"
        for one in docs
        for j in range(n_docs)
    ]


def joined(heads: Sequence[str], questions: Sequence[str], config: RagConfig) -> list[str]:
    """Rows as transformers writes them: pairs of spaces become one space, once."""
    each = len(heads) // max(1, len(questions))
    tails = [config.doc_sep + question for question in questions for _ in range(each)]
    return [(head + tail).replace("  ", " ") for head, tail in zip(heads, tails, strict=True)]


def cut_on_the_right(
    rows: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, length: int, tensors: str | None
) -> BatchEncoding:
    """Rows as ids, each of exactly `length`: padded, or cut at its end, question or not."""
    made: BatchEncoding = tokenizer(
        list(rows), max_length=length, padding="max_length", truncation=True, return_tensors=tensors
    )
    return made


def whole_questions(
    rows: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tails: Sequence[int],
    length: int,
    tensors: str | None,
) -> BatchEncoding:
    """Rows as ids, at most `length`, where the passage is what is cut.

    Args:
        rows: Texts, `[rows]`.
        tokenizer: The generator's; it must know where its tokens stand in the text.
        tails: How many characters at the end of each row are kept: separator and question.
        length: The most ids of a row. A question that is longer by itself loses its end.
        tensors: As a tokenizer's `return_tensors`.

    Raises:
        UsageError: The tokenizer does not know where its tokens stand.
    """
    if not tokenizer.is_fast:
        raise UsageError(
            f"{type(tokenizer).__name__} does not tell where its tokens stand in a text",
            hint="load it with AutoTokenizer, or use hf_compat=True to cut rows on the right",
        )
    found = tokenizer(list(rows), return_offsets_mapping=True)
    ids = [
        _fitted(one, offsets, len(row) - tail, length)
        for one, offsets, row, tail in zip(
            found["input_ids"], found["offset_mapping"], rows, tails, strict=True
        )
    ]
    return tokenizer.pad({"input_ids": ids}, return_tensors=tensors)


def _fitted(ids: Sequence[int], offsets: Sequence[Any], passage_end: int, length: int) -> list[int]:
    """Take what is too much out of the end of the passage, and only then out of the question's.

    Special tokens, which stand nowhere in the text, stay: those before the passage and those after
    the question.
    """
    surplus = len(ids) - length
    if surplus <= 0:
        return list(ids)
    inside = [i for i, (start, end) in enumerate(offsets) if end > start]
    first, last = inside[0], inside[-1] + 1
    middle = next((i for i in inside if offsets[i][1] > passage_end), last)
    kept = max(first, middle - surplus)
    asked = min(last, middle + length - kept - (len(ids) - last))
    return [*ids[:kept], *ids[middle:asked], *ids[last:]]


def _unquoted(title: str) -> str:
    return title.removeprefix('"').removesuffix('"')
