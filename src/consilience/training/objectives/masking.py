"""Ids with something taken out, and what was taken: masked language modelling, span corruption.

Functions of ids and a seeded source of randomness; no tokenizer, no model. Which ids may be masked
is the caller's to say.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model.fusion import exact
from consilience.training.objectives.reduction import mean_where

IGNORED = -100
"""The label of a position that is not learned from."""


@dataclass(frozen=True, slots=True)
class Masking:
    """How much is masked, and by what.

    Attributes:
        share: Of tokens (or words) that are to be predicted.
        as_mask: Of these, the share that becomes the mask.
        as_random: Of these, the share that becomes any word; the rest stay as they are.
    """

    share: float = 0.15
    as_mask: float = 0.8
    as_random: float = 0.1

    def __post_init__(self) -> None:
        parts = (self.share, self.as_mask, self.as_random)
        if min(parts) < 0 or max(parts) > 1 or self.as_mask + self.as_random > 1:
            raise UsageError(
                "shares must lie between 0 and 1, and as_mask + as_random must not pass 1; "
                f"received share={self.share}, as_mask={self.as_mask}, as_random={self.as_random}",
                hint="Leave them out for BERT's 0.15, 0.8 and 0.1.",
            )


@dataclass(frozen=True, slots=True)
class Words:
    """What a token can be replaced by.

    Attributes:
        mask: The id of the mask.
        first: The first id that is a word.
        size: How many ids there are.
    """

    mask: int
    first: int
    size: int


@dataclass(frozen=True, slots=True)
class Masked:
    """A batch for masked language modelling.

    Attributes:
        ids: What the model reads, `[b, t]`.
        labels: What it must tell, -100 where nothing is asked, `[b, t]`.
    """

    ids: Tensor
    labels: Tensor


def mask_tokens(
    ids: Tensor,
    maskable: Tensor,
    *,
    words: Words,
    generator: torch.Generator,
    masking: Masking = Masking(),
    groups: Tensor | None = None,
) -> Masked:
    """Masked language modelling: 15 % of the tokens, of which 80 / 10 / 10 % mask, random, kept.

    With `groups` whole words are chosen, and all their tokens with them; each token then becomes
    the mask, a random one or itself by its own draw.

    Use it for going on with the pre-training of an encoder on the texts of a store.

    Source: Devlin et al., 2019, "BERT", section 3.1 and appendix A.1; whole words as in its later
    release, for Chinese Cui et al., 2021, "Pre-Training with Whole Word Masking for Chinese BERT".

    Args:
        ids: `[b, t]`.
        maskable: True where a token may be chosen: not at padding or special tokens, `[b, t]`.
        words: The mask and the range of words.
        generator: On the processor; draws are the same whatever the device of `ids`.
        masking: How much, and by what.
        groups: The number of the word that each token belongs to, from 0 in each row, `[b, t]`.

    Example:
        >>> some = torch.arange(10, 30)[None]
        >>> whole = Masking(share=1.0, as_mask=1.0, as_random=0.0)
        >>> masked = mask_tokens(some, some > 11, words=Words(4, 5, 99), masking=whole,
        ...                      generator=torch.Generator().manual_seed(0))
        >>> masked.ids[0, :4].tolist(), masked.labels[0, :4].tolist()
        ([10, 11, 4, 4], [-100, -100, 12, 13])
    """
    chosen = maskable & (_draws(ids, groups, generator) < masking.share)
    how = torch.rand(ids.shape, generator=generator).to(ids.device)
    others = torch.randint(words.first, words.size, ids.shape, generator=generator).to(ids)
    hidden = chosen & (how < masking.as_mask)
    swapped = chosen & ~hidden & (how < masking.as_mask + masking.as_random)
    read = torch.where(swapped, others, ids.masked_fill(hidden, words.mask))
    return Masked(read, ids.masked_fill(~chosen, IGNORED))


def _draws(ids: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:
    """A number from 0 to 1 for every token, the same for tokens of one word, `[b, t]`."""
    if groups is None:
        return torch.rand(ids.shape, generator=generator).to(ids.device)
    drawn = torch.rand(len(ids), max(int(groups.max()), 0) + 1, generator=generator).to(ids.device)
    return drawn.gather(1, groups.clamp_min(0))


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`-(1 / n) sum log p(label)` over the n labels that are not -100; zero when there is none.

    Args:
        logits: `[b, t, v]`.
        labels: `[b, t]`.

    Returns:
        Nats a token.
    """
    kept = labels != IGNORED
    told = exact(logits).log_softmax(-1).gather(-1, labels.masked_fill(~kept, 0)[..., None])
    return mean_where(-told[..., 0], kept)


@dataclass(frozen=True, slots=True)
class Corrupted:
    """An example of span corruption.

    Attributes:
        inputs: The text with each missing stretch marked by one sentinel.
        targets: Each sentinel with its stretch, then the sentinel after the last, then the end.
    """

    inputs: list[int]
    targets: list[int]


def corrupt_spans(
    ids: Sequence[int],
    rng: random.Random,
    *,
    sentinels: Sequence[int],
    end: int,
    share: float = 0.15,
    length: float = 3.0,
) -> Corrupted | None:
    """T5's pre-training: stretches of 3 tokens on average, 15 % of all, to be told in order.

        Thank you <X> me to your party <Y> week.   ->   <X> for inviting <Y> last <Z>

    Use it for going on with the pre-training of an encoder-decoder on the texts of a store.

    Source: Raffel et al., 2020, "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", section 3.1.4.

    Args:
        ids: Without special tokens.
        rng: Where to.
        sentinels: Ids that mark a stretch, in their order.
        end: The id that ends both sides.
        share: Of the tokens that go missing.
        length: Of a stretch on average, in tokens.

    Returns:
        None for fewer than two tokens, of which nothing could be left.

    Raises:
        UsageError: More stretches than there are sentinels.
    """
    if len(ids) < 2:
        return None
    missing = min(max(round(len(ids) * share), 1), len(ids) - 1)
    stretches = min(max(round(missing / length), 1), missing, len(ids) - missing)
    if stretches >= len(sentinels):
        raise UsageError(
            f"{stretches} stretches need {stretches + 1} sentinels, there are {len(sentinels)}",
            hint="Cut the text into shorter pieces, or make `length` larger.",
        )
    kept, gone = (_partition(n, stretches, rng) for n in (len(ids) - missing, missing))
    return _corrupted(ids, list(zip(kept, gone, strict=True)), sentinels, end)


def _corrupted(
    ids: Sequence[int], lengths: Sequence[tuple[int, int]], sentinels: Sequence[int], end: int
) -> Corrupted:
    inputs: list[int] = []
    targets: list[int] = []
    position = 0
    for sentinel, (kept, gone) in zip(sentinels, lengths, strict=False):
        cut = position + kept
        inputs += [*ids[position:cut], sentinel]
        targets += [sentinel, *ids[cut : cut + gone]]
        position = cut + gone
    return Corrupted([*inputs, end], [*targets, sentinels[len(lengths)], end])


def _partition(total: int, parts: int, rng: random.Random) -> list[int]:
    """`total` as a sum of so many numbers of at least one, every way equally likely."""
    cuts = sorted(rng.sample(range(1, total), parts - 1))
    return [right - left for left, right in zip([0, *cuts], [*cuts, total], strict=True)]
