"""Writing an answer from the sum: greedy and beam search over all passages at once.

Both fusions are searched by the same loop. What is summed at a step is

    p(y_t | x, y_<t) = sum over d of w_d(y_<t) p(y_t | x, d, y_<t)

RAG-Token keeps the weights at the prior. RAG-Sequence moves them to the posterior given what was
written, `w_d(y_<t)` proportional to `p(d | x) p(y_<t | x, d)`, and the product of its steps is then
exactly its sum over whole answers. So every beam's score is the true log p(y | x), no candidate
needs re-scoring, and the posterior of each token is at hand without another pass.

A generator that can say "not in this passage" says it at the first step, for nothing: the share of
the prior whose passages did not say so is the *support* of there being an answer at all. Answers
are then searched given that there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.generation import Generator
from consilience.model.fusion import Fusion, marginal, token_posterior

IMPOSSIBLE = -1e9


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How an answer is searched.

    Attributes:
        fusion: Where the sum stands.
        beams: Answers kept at each step; 1 is greedy.
        max_new_tokens: At most so many tokens are written, the end not counted.
        length_penalty: Finished beams are ranked by log p divided by `length ** length_penalty`.
    """

    fusion: Fusion = "sequence"
    beams: int = 1
    max_new_tokens: int = 48
    length_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """The best answer to one question.

    Attributes:
        ids: Tokens without start and end.
        log_likelihood: log p(y | x) given that an answer exists, the end included, in nats.
        posterior: p(d | x, y), `[k]`.
        token_posteriors: p(d | x, y_t, y_<t) of each token, `[tokens, k]`.
        support: The share of the prior whose passages hold an answer, from 0 to 1.
        supports: The same of each passage alone, `[k]`.
    """

    ids: list[int]
    log_likelihood: float
    posterior: Tensor
    token_posteriors: Tensor
    support: float
    supports: Tensor


@dataclass(slots=True)
class _Beams:
    """What is being written; `n` beams of `b` questions.

    Attributes:
        ids: `[b, n, t]`.
        scores: log p of what was written, `[b, n]`.
        weights: log weight of each passage for the next step, `[b, k, n]`.
        posteriors: log posterior of each token written, `[b, k, n, t]`.
    """

    ids: Tensor
    scores: Tensor
    weights: Tensor
    posteriors: Tensor

    def pick(self, parents: Tensor) -> None:
        """Go on from `parents`, `[b, n]`."""
        b, k, t = self.weights.shape[0], self.weights.shape[1], self.ids.shape[2]
        over_passages = parents[:, None, :].expand(b, k, -1)
        self.ids = self.ids.gather(1, parents[..., None].expand(-1, -1, t))
        self.weights = self.weights.gather(2, over_passages)
        self.posteriors = self.posteriors.gather(2, over_passages[..., None].expand(-1, -1, -1, t))

    def append(self, tokens: Tensor, scores: Tensor, posterior: Tensor) -> None:
        """One token more for every beam."""
        self.ids = torch.cat([self.ids, tokens[..., None]], dim=2)
        self.scores = scores
        self.posteriors = torch.cat([self.posteriors, posterior[..., None]], dim=3)

    def keep(self, width: int) -> Tensor:
        """Only the best `width` beams; returns which they were, `[b, width]`."""
        self.scores, kept = self.scores.topk(min(width, self.scores.shape[1]), dim=-1)
        self.pick(kept)
        return kept


@torch.inference_mode()
def decode(
    generator: Generator, memory: Any, log_weights: Tensor, *, options: DecodingOptions
) -> list[Decoded]:
    """The best answer to each question.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major: row `i * k + j` is passage `j` of question `i`.
        log_weights: log prior, `[b, k]`; minus infinity for a passage that is not there.
        options: How to search.

    Returns:
        One answer per question.
    """
    log_weights = log_weights.clamp_min(IMPOSSIBLE)
    b, k = log_weights.shape
    state, opening = generator.begin(memory)
    first = opening.log_probs().view(b, k, 1, -1)
    supports, first = _supports(first, generator.none)
    support = (log_weights.exp() * supports).sum(-1)
    given = (log_weights + supports.clamp_min(1e-9).log()).log_softmax(-1)
    beams = _search(generator, memory, state, given, first, options)
    return [
        _result(one, supports[index], float(support[index]), options.fusion)
        for index, one in enumerate(beams)
    ]


def _supports(first: Tensor, none: int | None) -> tuple[Tensor, Tensor]:
    """What each passage says of holding an answer, and the first step given that it does."""
    if none is None:
        return torch.ones(first.shape[:2]), first
    log_none = first[..., none].clamp_max(-1e-6)
    allowed = first.clone()
    allowed[..., none] = IMPOSSIBLE
    return (1.0 - log_none.exp())[..., 0], allowed - torch.log1p(-log_none.exp())[..., None]


@dataclass(frozen=True, slots=True)
class _Finished:
    """One whole answer of one question, not yet put into words."""

    ids: list[int]
    score: float
    weights: Tensor
    posteriors: Tensor


def _search(
    generator: Generator,
    memory: Any,
    state: Any,
    log_weights: Tensor,
    first: Tensor,
    options: DecodingOptions,
) -> list[_Finished]:
    b, k = log_weights.shape
    width = options.beams
    beams = _Beams(
        ids=torch.zeros(b, 1, 0, dtype=torch.long),
        scores=torch.zeros(b, 1),
        weights=log_weights[..., None],
        posteriors=torch.zeros(b, k, 1, 0),
    )
    finished: list[list[_Finished]] = [[] for _ in range(b)]
    log_probs = first
    for step in range(options.max_new_tokens + 1):
        last = step == options.max_new_tokens
        parents = _advance(beams, log_probs, width, generator.end, only_end=last, options=options)
        _retire(beams, finished, generator.end, options)
        parents = parents.gather(1, beams.keep(width))
        if last or _settled(beams, finished, options):
            break
        tokens = beams.ids[:, :, -1].repeat_interleave(k, dim=0)
        following = generator.step(memory, state, tokens, parents.repeat_interleave(k, dim=0))
        log_probs = following.log_probs().view(b, k, beams.ids.shape[1], -1)
    return [max(answers, key=lambda answer: _rank(answer, options)) for answers in finished]


def _advance(
    beams: _Beams,
    log_probs: Tensor,
    width: int,
    end: int,
    *,
    only_end: bool,
    options: DecodingOptions,
) -> Tensor:
    """The best `width` continuations of every question; returns the beam each one came from."""
    b, k, n, v = log_probs.shape
    total = marginal(beams.weights, log_probs) + beams.scores[..., None]
    if only_end:
        total = torch.full_like(total, IMPOSSIBLE).index_copy_(
            2, torch.tensor([end]), total[..., end : end + 1]
        )
    # Twice the width: those that end here leave enough to go on with.
    scores, flat = total.view(b, n * v).topk(min(2 * width, n * v), dim=-1)
    parents, tokens = flat // v, flat % v
    beams.pick(parents)
    chosen = log_probs.view(b, k, n * v).gather(2, flat[:, None, :].expand(b, k, -1))
    posterior = token_posterior(beams.weights, chosen)
    beams.append(tokens, scores, posterior)
    if options.fusion == "sequence":
        beams.weights = posterior
    return parents


def _retire(
    beams: _Beams, finished: list[list[_Finished]], end: int, options: DecodingOptions
) -> None:
    """Put finished beams among the best `width` aside and strike all finished ones out."""
    ended = (beams.ids[:, :, -1] == end) & (beams.scores > IMPOSSIBLE / 2)
    for question, beam in ended.nonzero().tolist():
        if beam < options.beams:
            finished[question].append(_finish(beams, question, beam))
    for question, answers in enumerate(finished):
        if not answers and bool((beams.ids[question, :, -1] == end).all()):
            answers.append(_finish(beams, question, 0))
    beams.scores = beams.scores.masked_fill(beams.ids[:, :, -1] == end, IMPOSSIBLE)


def _finish(beams: _Beams, question: int, beam: int) -> _Finished:
    return _Finished(
        ids=beams.ids[question, beam, :-1].tolist(),
        score=float(beams.scores[question, beam]),
        weights=beams.weights[question, :, beam],
        posteriors=beams.posteriors[question, :, beam].T,
    )


def _rank(answer: _Finished, options: DecodingOptions) -> float:
    return answer.score / float(max(1, len(answer.ids)) ** options.length_penalty)


def _settled(beams: _Beams, finished: list[list[_Finished]], options: DecodingOptions) -> bool:
    """Whether no open beam can still beat the best finished answer of its question."""
    if options.length_penalty > 0:
        return all(len(answers) >= options.beams for answers in finished)
    best = torch.tensor([max((a.score for a in f), default=float("-inf")) for f in finished])
    return bool((beams.scores.max(-1).values <= best).all())


def _result(one: _Finished, supports: Tensor, support: float, fusion: Fusion) -> Decoded:
    posteriors = one.posteriors.exp()
    whole = one.weights.exp() if fusion == "sequence" else posteriors.mean(0)
    return Decoded(
        ids=one.ids,
        log_likelihood=one.score,
        posterior=whole / whole.sum(),
        token_posteriors=posteriors[:-1],
        support=support,
        supports=supports,
    )


def pad_answers(answers: Sequence[Sequence[int]], *, end: int) -> Tensor:
    """Answers as `[b, t]`, each followed by at least one `end`."""
    length = max(map(len, answers)) + 1
    return torch.tensor([[*ids, *[end] * (length - len(ids))] for ids in answers])
