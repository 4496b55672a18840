"""Pairs made from plain text: what belongs together because an author wrote it together.

Texts or ids in, pairs out, by a seeded source of randomness. Nothing here knows a model; the pairs
are learned from with `info_nce`, with a loss of two classes, or as prompt and answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from consilience.errors import UsageError
from consilience.text import Span, split_sentences

Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts of which the first is asked for the second."""

    question: str
    passage: str


@dataclass(frozen=True, slots=True)
class SentencePair:
    """Two sentences, and whether the second followed the first."""

    first: str
    second: str
    follows: bool


def inverse_cloze(
    text: str, rng: random.Random, *, kept: float = 0.1, shortest: int = 8
) -> TextPair | None:
    """A sentence as the question for the text around it.

    In one of ten pairs the sentence stays in its text, so that a retriever also learns to match
    words.

    Use it to warm up a retriever before any question exists. Do not expect the wording of people's
    questions from it.

    Source: Lee et al., 2019, "Latent Retrieval for Weakly Supervised Open Domain Question
    Answering", section 4.

    Args:
        text: A passage of several sentences.
        rng: Where to.
        kept: How often the sentence stays.
        shortest: Characters that a sentence must have to be asked with.

    Returns:
        None when the text has fewer than two sentences, or none that is long enough.

    Example:
        >>> inverse_cloze("Ash grows fast. Oak lasts.", random.Random(1), kept=0, shortest=12)
        TextPair(question='Ash grows fast.', passage='Oak lasts.')
    """
    sentences = split_sentences(text)
    long = [span for span in sentences if span.end - span.start >= shortest]
    if len(sentences) < 2 or not long:
        return None
    span = rng.choice(long)
    stays = rng.random() < kept
    return TextPair(text[span.start : span.end], text.strip() if stays else without(text, span))


def without(text: str, span: Span) -> str:
    """The text with one stretch taken out, and a blank where two words would touch."""
    left, right = text[: span.start].rstrip(), text[span.end :].lstrip()
    touches = left and right and left[-1].isascii() and right[0].isascii()
    return f"{left} {right}" if touches else left + right


def independent_crops(
    units: Sequence[Unit],
    rng: random.Random,
    *,
    least: float = 0.05,
    most: float = 0.5,
    dropped: float = 0.1,
) -> tuple[list[Unit], list[Unit]] | None:
    """Two stretches of one document, drawn independently; each is the other's positive.

    They may overlap, which teaches words; where they do not, they teach meaning.

    Use it to train a retriever on a bare collection. It measured better than the inverse cloze task
    in the paper, without any labels at all.

    Source: Izacard et al., 2022, "Unsupervised Dense Information Retrieval with Contrastive
    Learning" (Contriever), sections 3.2 and 4.

    Args:
        units: Ids or words of a document.
        rng: Where to.
        least: Shortest stretch, as a share of the document.
        most: Longest stretch.
        dropped: Share of the units left out of a stretch.

    Returns:
        None for an empty document.

    Raises:
        UsageError: Shares out of order.
    """
    if not 0 < least <= most <= 1 or not 0 <= dropped < 1:
        raise UsageError(
            "crops need 0 < least <= most <= 1 and 0 <= dropped < 1, received "
            f"least={least}, most={most}, dropped={dropped}",
            hint="Leave them out for Contriever's 0.05, 0.5 and 0.1.",
        )
    if not units:
        return None
    crops = [_crop(units, rng.uniform(least, most), rng) for _ in range(2)]
    first, second = (_thinned(crop, dropped, rng) for crop in crops)
    return first, second


def _crop(units: Sequence[Unit], share: float, rng: random.Random) -> Sequence[Unit]:
    length = max(1, round(len(units) * share))
    start = rng.randrange(len(units) - length + 1)
    return units[start : start + length]


def _thinned(units: Sequence[Unit], dropped: float, rng: random.Random) -> list[Unit]:
    """Units less those dropped; never nothing."""
    kept = [unit for unit in units if rng.random() >= dropped]
    return kept or [rng.choice(units)]


def next_sentence_pairs(
    documents: Sequence[Sequence[str]], rng: random.Random
) -> list[SentencePair]:
    """Next sentence prediction: half the pairs follow one another, half come from two documents.

    Use it for encoders that read two texts in one row, as rerankers and support heads do. It helps
    little elsewhere (Liu et al., 2019, "RoBERTa", section 4.2).

    Source: Devlin et al., 2019, "BERT", section 3.1.

    Args:
        documents: The sentences of each.
        rng: Where to.

    Returns:
        One pair for every sentence that another follows, in order.

    Raises:
        UsageError: Fewer than two documents have a sentence.

    Example:
        >>> pairs = next_sentence_pairs([["a", "b"], ["c"]], random.Random(0))
        >>> pairs[0].first, pairs[0].second in "bc"
        ('a', True)
    """
    filled = [index for index, sentences in enumerate(documents) if sentences]
    if len(filled) < 2:
        raise UsageError(
            f"sentences that do not follow need two documents, received {len(filled)}",
            hint="Give more than one document.",
        )
    return [
        _sentence_pair(documents, index, place, filled, rng)
        for index, sentences in enumerate(documents)
        for place in range(len(sentences) - 1)
    ]


def _sentence_pair(
    documents: Sequence[Sequence[str]],
    index: int,
    place: int,
    filled: Sequence[int],
    rng: random.Random,
) -> SentencePair:
    first = documents[index][place]
    if rng.random() < 0.5:
        return SentencePair(first, documents[index][place + 1], True)
    other = rng.choice([each for each in filled if each != index])
    return SentencePair(first, rng.choice(documents[other]), False)


def prefix_continuation(
    units: Sequence[Unit], rng: random.Random, *, least: float = 0.1, most: float = 0.9
) -> tuple[list[Unit], list[Unit]] | None:
    """A text cut in two: the first part is read, the second is written.

    Use it for generators that should go on in the style of a collection, and, with passages
    retrieved for the first part, for joint training without questions.

    Source: Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", section 3.2.1 (prefix language modelling).

    Args:
        units: Ids or words.
        rng: Where to.
        least: Shortest first part, as a share of the text.
        most: Longest first part.

    Returns:
        None for fewer than two units; otherwise neither part is empty.

    Raises:
        UsageError: Shares out of order.
    """
    if not 0 <= least <= most <= 1:
        raise UsageError(
            f"a prefix needs 0 <= least <= most <= 1, received least={least}, most={most}",
            hint="Leave them out for 0.1 and 0.9.",
        )
    if len(units) < 2:
        return None
    first = min(max(1, round(len(units) * least)), len(units) - 1)
    last = max(first, min(len(units) - 1, round(len(units) * most)))
    cut = rng.randint(first, last)
    return list(units[:cut]), list(units[cut:])
