"""Rules that change the next token's distribution before a token is chosen.

Each rule touches only the tokens that it speaks of, in place and in probability space, and says at
which steps it has anything to say; a step without rules copies nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from consilience.generation import Generator, NextToken
from consilience.generation.base import LEAST
from consilience.model.decoding.options import DecodingOptions


@dataclass(frozen=True, slots=True)
class Draft:
    """What a rule may change.

    Attributes:
        weights: p of each token times the total, changed in place, `[s, n, v]`.
        totals: `[s, n]`.
        written: What was written before, `[s, n, t]`.
    """

    weights: Tensor
    totals: Tensor
    written: Tensor


@dataclass(frozen=True, slots=True)
class Rule:
    """A change that is made from step `first` until before step `until`, counted from 0."""

    change: Callable[[Draft], None]
    first: int = 0
    until: int | None = None

    def active(self, step: int) -> bool:
        """Whether it speaks at a step."""
        return step >= self.first and (self.until is None or step < self.until)


def penalise_repetition(draft: Draft, *, penalty: float) -> None:
    """`log p` of tokens already written times `penalty` (Keskar et al., 2019, section 4.1).

    The paper divides scores above zero instead; a log probability never is.
    """
    probs = draft.weights.gather(-1, draft.written) / draft.totals[..., None]
    changed = probs.clamp_min(LEAST) ** penalty
    draft.weights.scatter_(-1, draft.written, changed * draft.totals[..., None])


def forbid_repeats(draft: Draft, *, size: int) -> None:
    """No sequence of `size` tokens is completed a second time (Paulus et al., 2018)."""
    written = draft.written
    if written.shape[-1] < size:
        return
    windows = written.unfold(-1, size, 1)
    last = written[..., written.shape[-1] - size + 1 :]
    repeats = (windows[..., :-1] == last[..., None, :]).all(-1)
    # A product, since the same token may end one window that repeats and one that does not.
    factors = (~repeats).to(draft.weights.dtype)
    draft.weights.scatter_reduce_(-1, windows[..., -1], factors, "prod")


def forbid(draft: Draft, *, ids: Tensor) -> None:
    """Some tokens have no probability."""
    draft.weights.index_fill_(-1, ids, 0.0)


def rules_of(options: DecodingOptions, generator: Generator) -> tuple[Rule, ...]:
    """The rules that options ask for, in the order in which transformers applies them."""
    rules = []
    if options.repetition_penalty != 1.0:
        rules.append(Rule(partial(penalise_repetition, penalty=options.repetition_penalty)))
    if options.no_repeat_ngram:
        rules.append(Rule(partial(forbid_repeats, size=options.no_repeat_ngram)))
    return (*rules, *_forbidden(options, generator))


def _forbidden(options: DecodingOptions, generator: Generator) -> list[Rule]:
    # The first token that is chosen is the second that is written when the first is forced.
    begin = 0 if options.forced_first is None else 1
    spans: list[tuple[tuple[int, ...], int, int | None]] = [
        (() if generator.none is None else (generator.none,), 0, 1),
        ((generator.end,), 0, options.min_new_tokens),
        (options.suppress, 0, None),
        (options.suppress_first, begin, begin + 1),
    ]
    return [
        Rule(partial(forbid, ids=torch.tensor(ids, device=generator.device)), first, until)
        for ids, first, until in spans
        if ids and until != 0
    ]


def processed(
    following: NextToken, rules: tuple[Rule, ...], written: Tensor, *, own: bool
) -> NextToken:
    """A step's distribution under the rules that speak at this step.

    Args:
        following: `[s, n, v]`.
        rules: Those that are active.
        written: `[s, n, t]`.
        own: Whether the weights may be changed where they lie.
    """
    if not rules:
        return following
    weights = following.weights if own else following.weights.clone()
    draft = Draft(weights, following.totals, written)
    for rule in rules:
        rule.change(draft)
    return NextToken(weights, following.totals)
