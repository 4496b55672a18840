"""RAG-Sequence searched passage by passage: candidates of each, summed over all.

Every passage is searched alone with beams, all passages of all questions in one batch; equal
candidates of a question are one. *Thorough* decoding scores each candidate under every passage,
*fast* decoding counts p = 0 where a passage's own beams did not propose it (Lewis et al., 2020,
"Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks", section 2.5).

A candidate is never scored under a passage that proposed it, since that search knows the numbers.
What is missing is scored by walking the tree of the candidates' beginnings: at each level one open
end of the generator stands for all candidates that begin alike. Log p only falls along the way, so
a candidate whose passages cannot reach the answers to be returned any more is left out of the
levels that follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from consilience.generation import Asked, Asking, Ends, Generator, NextToken
from consilience.model.decoding.opening import IMPOSSIBLE, Opening, begin
from consilience.model.decoding.options import DecodingOptions
from consilience.model.decoding.result import Finished
from consilience.model.decoding.search import Search

ROUNDING = 1e-4
"""Nats by which a bound may miss a sum of float32 numbers."""

ABSENT = IMPOSSIBLE / 2


@dataclass(slots=True)
class Proposal:
    """An answer that some passages of a question proposed.

    Attributes:
        ids: Without the start token.
        given: Log p of each token given each passage that is known to have given it, by the
            passage's place, `[tokens]` each.
    """

    ids: Sequence[int]
    given: dict[int, Tensor] = field(default_factory=dict)


def search_passages(
    generator: Generator, memory: Any, opening: Opening, options: DecodingOptions
) -> list[list[Finished]]:
    """The best answers of every question by thorough or fast decoding.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        opening: Of the same rows.
        options: `search` says which of the two.
    """
    found = _search_alone(generator, memory, opening, options)
    if not found:
        return []
    proposals = [[one.proposal for one in each] for each in found]
    candidates = _Candidates.of(proposals, opening.log_weights, options.returned)
    if options.search == "fast":
        candidates.count_absent_as_impossible()
    else:
        _score(generator, memory, candidates, forced=options.forced_first is not None)
    return candidates.best([[one.answer for one in each] for each in found])


def score_answers(
    generator: Generator, memory: Any, answers: Sequence[Sequence[Sequence[int]]], *, k: int
) -> Tensor:
    """Log p of given answers under every passage, common beginnings computed once.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        answers: For each question its answers, `c` at most, without the start token; at least one
            answer of one token.
        k: Passages of a question.

    Returns:
        `[b, k, c, t]`, zero past the end of an answer.
    """
    proposals = [[Proposal(ids) for ids in each] for each in answers]
    log_weights = torch.zeros(len(answers), k, device=generator.device)
    return score_proposals(generator, memory, proposals, log_weights)


def score_proposals(
    generator: Generator,
    memory: Any,
    proposals: Sequence[Sequence[Proposal]],
    log_weights: Tensor,
    *,
    returned: int | None = None,
) -> Tensor:
    """Log p of proposed answers under every passage; what is known of them is not asked again.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        proposals: For each question, `c` at most; at least one of one token.
        log_weights: log prior, `[b, k]`; a passage that is not there is not asked.
        returned: How many of each question matter: the best by log p(y | x). None for all.

    Returns:
        `[b, k, c, t]`, zero past the end of an answer. An answer that cannot be among those that
        matter is impossible (-1e9 nats at its first token).
    """
    most = max(map(len, proposals))
    candidates = _Candidates.of(proposals, log_weights, returned or most)
    _score(generator, memory, candidates, forced=False)
    out = (candidates.lengths > 0) & ~candidates.alive
    first = candidates.given[..., 0].masked_fill(out[:, None], IMPOSSIBLE)
    return torch.cat([first[..., None], candidates.given[..., 1:]], dim=-1)


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer as the first passage's search left it, and who else proposed it."""

    answer: Finished
    proposal: Proposal


def _search_alone(
    generator: Generator, memory: Any, opening: Opening, options: DecodingOptions
) -> list[list[_Found]]:
    """What the search of each passage finds, equal answers of a question as one."""
    b, k = opening.log_weights.shape
    alone = replace(options, search="exact", returned=options.beams)
    certain = opening.log_weights.new_zeros(b * k, 1)
    found = Search(generator, memory, opening.state, opening.first, certain, alone).run()
    here = (opening.log_weights > ABSENT).tolist()
    together: list[list[_Found]] = []
    for q in range(b):
        merged: dict[tuple[int, ...], _Found] = {}
        for d in (d for d in range(k) if here[q][d]):
            for one in found[q * k + d]:
                same = merged.setdefault(tuple(one.ids), _Found(one, Proposal(one.ids)))
                same.proposal.given[d] = one.given[0]
        together.append(list(merged.values()))
    return together


def _numbered(proposals: Sequence[Sequence[Proposal]]) -> Iterator[tuple[int, int, Proposal]]:
    """Every candidate with its question and its place."""
    for q, found in enumerate(proposals):
        for i, one in enumerate(found):
            yield q, i, one


@dataclass(slots=True)
class _Candidates:
    """Candidates of `b` questions as tensors; `c` at most of each, `t` tokens at most.

    Attributes:
        log_weights: log prior, `[b, k]`.
        ids: `[b, c, t]`.
        lengths: In tokens, 0 where there is no candidate, `[b, c]`.
        known: Whether the passage proposed it, or is not there, `[b, k, c]`.
        given: Log p of each token given each passage, as far as it is known, `[b, k, c, t]`.
        alive: Whether it may still be among the best, `[b, c]`.
        returned: How many are wanted.
    """

    log_weights: Tensor
    ids: Tensor
    lengths: Tensor
    known: Tensor
    given: Tensor
    alive: Tensor
    returned: int

    @classmethod
    def of(
        cls, proposals: Sequence[Sequence[Proposal]], log_weights: Tensor, returned: int
    ) -> "_Candidates":
        """Proposals as tensors; of passages that are not there, nothing need be known."""
        device = log_weights.device
        c = max(map(len, proposals))
        t = max(len(one.ids) for found in proposals for one in found)
        ids = torch.zeros(len(proposals), c, t, dtype=torch.long)
        lengths = torch.zeros(len(proposals), c, dtype=torch.long)
        known = (log_weights <= ABSENT).cpu()[..., None].repeat(1, 1, c)
        given = torch.zeros(*known.shape, t)
        for q, i, one in _numbered(proposals):
            lengths[q, i] = length = len(one.ids)
            ids[q, i, :length] = torch.tensor(one.ids)
            for d, log_probs in one.given.items():
                known[q, d, i] = True
                given[q, d, i, :length] = log_probs.cpu()
        ids, lengths, known, given = (part.to(device) for part in (ids, lengths, known, given))
        return cls(log_weights, ids, lengths, known, given, lengths > 0, returned)

    def count_absent_as_impossible(self) -> None:
        """A passage that did not propose a candidate gives it nothing."""
        self.given[..., 0] = self.given[..., 0].masked_fill(~self.known, IMPOSSIBLE)

    def joint(self) -> Tensor:
        """Log p(d | x) plus log p of what is known of each candidate given d, `[b, k, c]`."""
        return self.log_weights[..., None] + self.given.sum(-1)

    def wanted(self, level: int) -> Tensor:
        """Whether the token at `level` of a candidate is asked of a passage, `[b, k, c]`."""
        return (self.alive & (self.lengths > level))[:, None] & ~self.known

    def prune(self, written: int) -> None:
        """Leave out what cannot be among the best any more, `written` tokens being scored.

        A candidate is worth at most the sum of what its passages have given so far, and at least
        the sum over those passages that are through with it.
        """
        joint = self.joint()
        through = self.known | (self.lengths <= written)[:, None]
        least = joint.masked_fill(~through, float("-inf")).logsumexp(1)
        least = least.masked_fill(self.lengths == 0, float("-inf"))
        bar = least.topk(min(self.returned, least.shape[1]), dim=-1).values[:, -1:]
        self.alive &= joint.logsumexp(1) >= bar - ROUNDING

    def best(self, answers: Sequence[Sequence[Finished]]) -> list[list[Finished]]:
        """The best of each question's answers, ranked by log p(y | x)."""
        scores = self.joint().logsumexp(1).masked_fill(~self.alive, float("-inf"))
        order = scores.sort(dim=-1, descending=True, stable=True).indices.tolist()
        kept = self.alive.sum(-1).clamp(max=self.returned).tolist()
        values, given = scores.tolist(), self.given.cpu()
        return [
            [
                replace(
                    answers[q][i],
                    given=given[q, :, i, : len(answers[q][i].ids)],
                    score=values[q][i],
                )
                for i in order[q][: kept[q]]
            ]
            for q in range(len(answers))
        ]


@dataclass(slots=True)
class _Beginnings:
    """The candidates' beginnings of one length, and the generator's open end of each.

    Attributes:
        alike: Whether two candidates have begun alike, `[b, c, c]`.
        leader: The first candidate that has begun like each, `[b, c]`.
        places: The open end of each leader in a row, `[b, k, c]`.
    """

    alike: Tensor
    leader: Tensor
    places: Tensor

    @classmethod
    def empty(cls, candidates: _Candidates) -> "_Beginnings":
        """Before the first token all begin alike, and candidate 0 stands for all."""
        b, c, _ = candidates.ids.shape
        return cls(
            alike=torch.ones(b, c, c, dtype=torch.bool, device=candidates.ids.device),
            leader=torch.zeros_like(candidates.lengths),
            places=torch.zeros_like(candidates.known, dtype=torch.long),
        )

    def extend(self, tokens: Tensor, wanted: Tensor) -> Ends:
        """Go on by one token.

        Args:
            tokens: Of each candidate, `[b, c]`.
            wanted: The candidates whose next token a row will be asked for, `[b, k, c]`.

        Returns:
            The new open ends, `[b * k, n]`.
        """
        parents = self.ends(wanted.shape)
        self.alike &= tokens[:, :, None] == tokens[:, None, :]
        self.leader = self.alike.int().argmax(-1)
        leaders = self.leader[:, None].expand(wanted.shape)
        needed = torch.zeros_like(self.places).scatter_add_(2, leaders, wanted.long()) > 0
        self.places = (needed.long().cumsum(-1) - 1).clamp_min(0)
        spread = tokens[:, None].expand(wanted.shape)
        parts = (spread, parents, torch.ones_like(needed))
        packed = (_packed(part, needed, self.places).flatten(0, 1) for part in parts)
        return Ends(*packed)

    def ends(self, shape: torch.Size) -> Tensor:
        """The open end at which each candidate stands in each row, `[b, k, c]`."""
        return self.places.gather(2, self.leader[:, None].expand(shape))


def _score(generator: Generator, memory: Any, candidates: _Candidates, *, forced: bool) -> None:
    """Fill in what is not known, level by level; `forced` says that the first token is certain."""
    walk, beginnings = _Walk.at_start(generator, memory), _Beginnings.empty(candidates)
    for level in range(candidates.ids.shape[2]):
        wanted = candidates.wanted(level)
        if not bool(wanted.any()):
            return
        new = beginnings.extend(candidates.ids[..., level - 1], wanted) if level else None
        if level or not forced:
            # What is not wanted may stand at an end that is not there.
            ends = beginnings.ends(wanted.shape) * wanted
            ids = candidates.ids[:, None, :, level].expand(wanted.shape)
            asked = Asked(*(part.flatten(0, 1) for part in (ids, ends, wanted)))
            candidates.given[..., level] += walk.ask(new, asked).view(wanted.shape)
        candidates.prune(level + 1)


@dataclass(slots=True)
class _Walk:
    """A generator that is led along answers that are known."""

    generator: Generator
    memory: Any
    state: Any
    first: NextToken

    @classmethod
    def at_start(cls, generator: Generator, memory: Any) -> "_Walk":
        """Before the first token."""
        state, first, _ = begin(generator, memory)
        return cls(generator, memory, state, first)

    def ask(self, new: Ends | None, asked: Asked) -> Tensor:
        """Log p of tokens after new open ends, or of first tokens; 0 where none is wanted."""
        if new is not None and isinstance(self.generator, Asking):
            return self.generator.ask(self.memory, self.state, new, asked)
        following = self.first
        if new is not None:
            following = self.generator.step(self.memory, self.state, new.ids, new.parents)
        return following.of(asked.ids, asked.ends).masked_fill(~asked.wanted, 0.0)


def _packed(values: Tensor, needed: Tensor, places: Tensor) -> Tensor:
    """The values of leaders at their open ends, 0 at ends that a row does not need.

    Args:
        values: `[b, k, c]`.
        needed: `[b, k, c]`.
        places: `[b, k, c]`.

    Returns:
        `[b, k, n]`.
    """
    n = int(needed.sum(-1).max())
    packed = values.new_zeros(*values.shape[:2], n + 1)
    return packed.scatter_(2, places.masked_fill(~needed, n), values)[..., :n]
