"""Which tokens are written next: the best of a beam, of groups of beams, or those drawn.

It sees distributions that are summed and processed already, and knows neither passages nor texts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.generation import NextToken
from consilience.generation.base import LEAST
from consilience.model.decoding.distribution import best
from consilience.model.decoding.options import DecodingOptions
from consilience.model.decoding.sampling import draw


@dataclass(frozen=True, slots=True)
class Choice:
    """Continuations of every search, the best first, or in the order of the samples.

    Attributes:
        parents: The open end that each continues, `[s, m]`.
        tokens: `[s, m]`.
        scores: Log p of all that was written, `[s, m]`; minus infinity where there is none.
    """

    parents: Tensor
    tokens: Tensor
    scores: Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """Where in an answer a token is chosen.

    Attributes:
        number: From 0.
        end: The id that ends an answer.
        options: How it is searched.
    """

    number: int
    end: int
    options: DecodingOptions

    @property
    def first(self) -> bool:
        """Whether the token is the one that is forced to be first."""
        return self.number == 0 and self.options.forced_first is not None

    @property
    def closing(self) -> bool:
        """Whether every answer ends here."""
        return self.number == self.options.closing_step

    @property
    def free(self) -> bool:
        """Whether there is a choice."""
        bound = self.options.limit == "end" or self.options.forced_last is not None
        return not self.first and not (self.closing and bound)


def candidates(mixed: NextToken, step: Step, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best tokens after every open end.

    An end after which the rules allow nothing is closed there, behind everything else.

    Returns:
        Log p and ids, `[s, n, m]`, greatest first.
    """
    if not step.free:
        return _forced(mixed, step)
    values, tokens = best(mixed.weights, count)
    nothing = values[..., :1] <= 0
    tokens[..., :1] = tokens[..., :1].masked_fill(nothing, step.end)
    probs = values / mixed.totals[..., None]
    probs[..., :1] = probs[..., :1].masked_fill(nothing, LEAST)
    return probs.log(), tokens


def _forced(mixed: NextToken, step: Step) -> tuple[Tensor, Tensor]:
    """The one token that must be written; the end pays its price, others are certain."""
    options = step.options
    forced = options.forced_first if step.first else options.forced_last
    token = step.end if forced is None else forced
    probs = mixed.weights[..., token] / mixed.totals
    probs = probs.clamp_min(LEAST) if forced is None else torch.ones_like(probs)
    return probs.log()[..., None], torch.full_like(probs, token, dtype=torch.long)[..., None]


def choose_beams(mixed: NextToken, scores: Tensor, step: Step) -> Choice:
    """The best continuations of every search, twice as many as it has beams.

    Twice, so that when all beams end here there are still as many to go on with.

    Args:
        mixed: `[s, n, v]`.
        scores: Of the open ends, `[s, n]`.
        step: Where.
    """
    if step.options.groups > 1 and step.free:
        return _choose_by_group(mixed, scores, step)
    return _choose(mixed, scores, step)


def _choose(mixed: NextToken, scores: Tensor, step: Step) -> Choice:
    width = 2 * step.options.lanes
    log_probs, tokens = candidates(mixed, step, width)
    s, _, m = tokens.shape
    total = (log_probs + scores[..., None]).view(s, -1)
    kept, flat = total.topk(min(width, total.shape[1]), dim=-1)
    return Choice(flat // m, tokens.view(s, -1).gather(1, flat), kept)


def _choose_by_group(mixed: NextToken, scores: Tensor, step: Step) -> Choice:
    """Diverse beam search (Vijayakumar et al., 2018, algorithm 1, Hamming diversity).

    A group chooses by `log p - diversity * (how many beams of earlier groups took the token)`.
    """
    options, (s, n, v) = step.options, mixed.weights.shape
    b, groups = s // options.groups, options.groups
    weights, totals = mixed.weights.view(b, groups, n, v), mixed.totals.view(b, groups, n)
    apart = scores.view(b, groups, n)
    taken = weights.new_zeros(b, v)
    found = []
    for group in range(groups):
        penalty = options.diversity * taken
        dear = NextToken(weights[:, group] * (-penalty).exp()[:, None], totals[:, group])
        choice = _choose(dear, apart[:, group], step)
        true = choice.scores + penalty.gather(1, choice.tokens)
        found.append((choice.parents, choice.tokens, true))
        alive = (choice.scores > float("-inf")).to(taken.dtype)[:, : options.lanes]
        taken.scatter_add_(1, choice.tokens[:, : options.lanes], alive)
    parents, tokens, true = (torch.stack(part, 1).view(s, -1) for part in zip(*found, strict=True))
    return Choice(parents, tokens, true)


def choose_samples(mixed: NextToken, scores: Tensor, step: Step, uniform: Tensor) -> Choice:
    """One token drawn after every open end.

    Args:
        mixed: `[s, n, v]`.
        scores: `[s, n]`.
        step: Where.
        uniform: The draw of each, in [0, 1), `[s, n]`, float64, on the processor.
    """
    count = step.options.top_k or mixed.weights.shape[-1]
    log_probs, tokens = candidates(mixed, step, count)
    place = draw(log_probs.exp(), uniform, step.options)[..., None]
    parents = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
    gained = log_probs.gather(2, place)[..., 0]
    return Choice(parents, tokens.gather(2, place)[..., 0], scores + gained)
