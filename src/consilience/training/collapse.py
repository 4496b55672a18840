"""Whether retrieval still tells questions apart, watched over a window of batches.

A retriever trained with its generator can fail quietly: it proposes the same few passages for every
question, the generator learns to do without them, and the loss goes on falling. Three numbers show
it: how many of the retrieved passages are distinct, how many questions got the most frequent one,
and how much of the prior lies on few passages.

A pure state machine: a state and a batch give the next state. What is done about a collapse is for
whoever trains.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, Literal

import torch
from torch import Tensor

from consilience.errors import ConsilienceError, UsageError
from consilience.model.placing import in_float64

Level = Literal["sound", "warn", "stop"]
Action = Literal["ignore", "warn", "stop"]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one batch retrieved.

    Attributes:
        questions: Of the batch.
        counts: For each passage, how many questions of the batch retrieved it.
        entropy: Of the prior p(d | x), mean over the questions, in nats.
    """

    questions: int
    counts: Mapping[str, int]
    entropy: float

    @property
    def passages(self) -> int:
        """Passages that were retrieved, counted as often as they were."""
        return sum(self.counts.values())

    @property
    def distinct_per_question(self) -> float:
        """Distinct passages for each question: k when no two share one, k / b when all do."""
        return len(self.counts) / max(self.questions, 1)

    @property
    def most_frequent(self) -> float:
        """The share of the questions that retrieved the most frequent passage."""
        return max(self.counts.values(), default=0) / max(self.questions, 1)

    @property
    def perplexity(self) -> float:
        """`exp(entropy)`: among how many passages the prior is as good as evenly shared out."""
        return exp(self.entropy)


@dataclass(frozen=True, slots=True)
class CollapseLimits:
    """When retrieval is taken to have collapsed, and what that is to lead to.

    Attributes:
        action: What a collapse is: nothing, a warning, or the end.
        distinct: Smallest share of distinct passages among those that a window retrieved.
        most_frequent: Largest share of a window's questions that retrieved the same passage.
        perplexity: Smallest perplexity of the prior, mean over a window; None has no limit. A well
            trained prior may be sharp, so this tells less than the others.
        window: Batches that are looked at together; nothing is judged before there are so many.
    """

    action: Action = "warn"
    distinct: float = 0.05
    most_frequent: float = 0.9
    perplexity: float | None = None
    window: int = 20

    def __post_init__(self) -> None:
        shares = (self.distinct, self.most_frequent)
        if min(shares) < 0 or max(shares) > 1 or self.window < 1:
            raise UsageError(
                "distinct and most_frequent must lie between 0 and 1 and window must be 1 or more, "
                f"received distinct={self.distinct}, most_frequent={self.most_frequent}, "
                f"window={self.window}",
                hint="Leave them out for 0.05, 0.9 and 20.",
            )


@dataclass(frozen=True, slots=True)
class Watch:
    """The state: what was seen last, and what to make of it.

    Attributes:
        recent: The batches of the window, the oldest first.
        level: `sound`, or the action of the limits when one was passed.
        reasons: Which limits were passed, and by what.
        changed: Whether the level is another than after the batch before: the time to tell.
    """

    recent: tuple[Retrieved, ...] = ()
    level: Level = "sound"
    reasons: tuple[str, ...] = ()
    changed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON holds it, for a checkpoint."""
        recent = [
            {"questions": each.questions, "counts": dict(each.counts), "entropy": each.entropy}
            for each in self.recent
        ]
        return {"recent": recent, "level": self.level, "reasons": list(self.reasons)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Watch":
        """The state that `to_dict` wrote."""
        recent = tuple(Retrieved(**each) for each in values["recent"])
        return cls(recent, values["level"], tuple(values["reasons"]))


def retrieved(passage_ids: Sequence[Sequence[str | int]], log_prior: Tensor) -> Retrieved:
    """What a batch retrieved.

    Args:
        passage_ids: Names or numbers of each question's passages; a negative number is none.
        log_prior: log p(d | x), very small or minus infinity where there is no passage, `[b, k]`.

    Example:
        >>> seen = retrieved([["a", "b"], ["a", "c"]], torch.full((2, 2), 0.5).log())
        >>> seen.distinct_per_question, seen.most_frequent, round(seen.perplexity, 3)
        (1.5, 1.0, 2.0)
    """
    counts = Counter(str(name) for names in passage_ids for name in set(names) if _is_one(name))
    entropies = torch.special.entr(in_float64(log_prior.detach()).exp()).sum(-1)
    entropy = float(entropies.mean()) if len(entropies) else 0.0
    return Retrieved(len(passage_ids), dict(counts), entropy)


def _is_one(name: str | int) -> bool:
    return isinstance(name, str) or name >= 0


def observe(
    watch: Watch,
    seen: Retrieved,
    limits: CollapseLimits = CollapseLimits(),
    *,
    passages: int | None = None,
) -> Watch:
    """The state after one more batch.

    Args:
        watch: The state before; `Watch()` at the beginning.
        seen: What the batch retrieved.
        limits: When it has collapsed.
        passages: How many passages the store has. A small one cannot give distinct passages to
            many questions, and is measured by what it could give.
    """
    recent = (*watch.recent, seen)[-limits.window :]
    if limits.action == "ignore" or len(recent) < limits.window:
        return replace(watch, recent=recent, level="sound", reasons=(), changed=False)
    reasons = tuple(_reasons(recent, limits, passages))
    level: Level = limits.action if reasons else "sound"
    return Watch(recent, level, reasons, changed=level != watch.level)


def refuse_collapse(watch: Watch) -> None:
    """Raise when the state says stop.

    Raises:
        ConsilienceError: It does; the message has the reasons.
    """
    if watch.level == "stop":
        raise ConsilienceError(
            f"retrieval has collapsed: {'; '.join(watch.reasons)}",
            hint="Begin again from an earlier checkpoint with a lower learning rate for the "
            "encoders, or add a contrastive objective.",
        )


def _reasons(
    recent: Sequence[Retrieved], limits: CollapseLimits, passages: int | None
) -> Iterator[str]:
    counts = _added(each.counts for each in recent)
    questions, drawn = (sum(each.questions for each in recent), sum(counts.values()))
    reachable = min(drawn, passages or drawn)
    if drawn and len(counts) < limits.distinct * reachable:
        yield (
            f"{len(counts)} distinct passages of {reachable} that could be "
            f"(limit {limits.distinct:.0%})"
        )
    chance = min(drawn / questions / passages, 1.0) if passages and questions else 0.0
    most = max(counts.values(), default=0) / max(questions, 1)
    if most > chance + (1 - chance) * limits.most_frequent:
        yield f"one passage for {most:.0%} of the questions (limit {limits.most_frequent:.0%})"
    perplexity = sum(each.perplexity for each in recent) / len(recent)
    if limits.perplexity is not None and perplexity < limits.perplexity:
        yield f"the prior's perplexity is {perplexity:.2f} (limit {limits.perplexity:g})"


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
