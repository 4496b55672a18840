"""What is being written: the open ends of every search, as tensors that move together.

Letters: `s` searches (questions times groups), `k` passages, `n` open ends of a search, `t` tokens
written. It knows where each end came from and what every passage gave to each of its tokens; how
ends are chosen is not its affair.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

DEAD = float("-inf")


@dataclass(slots=True)
class Frontier:
    """Open ends; an end whose score is minus infinity is not there.

    Attributes:
        ids: `[s, n, t]`.
        scores: Log p of what was written, as the rules left it, `[s, n]`.
        given: Log p of each token given each passage, `[s, k, n, t]`.
        weights: Log weight of each passage for the next step, `[s, k, n]`.
        lanes: Which sample each end is, `[s, n]`.
        ends: The open end of the generator that each came from, `[s, n]`.
    """

    ids: Tensor
    scores: Tensor
    given: Tensor
    weights: Tensor
    lanes: Tensor
    ends: Tensor

    @classmethod
    def at_start(cls, log_weights: Tensor, *, lanes: int) -> "Frontier":
        """Empty ends of every search under the prior `[s, k]`: one, or one for each sample."""
        s, k = log_weights.shape
        device = log_weights.device
        return cls(
            ids=torch.zeros(s, lanes, 0, dtype=torch.long, device=device),
            scores=log_weights.new_zeros(s, lanes),
            given=log_weights.new_zeros(s, k, lanes, 0),
            weights=log_weights[..., None].expand(s, k, lanes),
            lanes=torch.arange(lanes, device=device).expand(s, lanes),
            ends=torch.zeros(s, lanes, dtype=torch.long, device=device),
        )

    def follow(self, parents: Tensor) -> None:
        """Go on from `parents`, `[s, m]`; all but the scores."""
        t, k = self.ids.shape[2], self.weights.shape[1]
        by_passage = parents[:, None, :].expand(-1, k, -1)
        self.ids = self.ids.gather(1, parents[..., None].expand(-1, -1, t))
        self.given = self.given.gather(2, by_passage[..., None].expand(-1, -1, -1, t))
        self.weights = self.weights.gather(2, by_passage)
        self.lanes = self.lanes.gather(1, parents)
        self.ends = self.ends.gather(1, parents)

    def append(self, tokens: Tensor, given: Tensor, *, move: bool) -> None:
        """One token more for every end.

        Args:
            tokens: `[s, n]`.
            given: Their log p given each passage, `[s, k, n]`.
            move: Whether the weights become the posterior, as they do for RAG-Sequence.
        """
        self.ids = torch.cat([self.ids, tokens[..., None]], dim=-1)
        self.given = torch.cat([self.given, given[..., None]], dim=-1)
        if move:
            self.weights = (self.weights + given).log_softmax(1)

    def keep(self, width: int) -> None:
        """Only the first `width` ends that are there, and no more columns than any search needs."""
        dead = self.scores == DEAD
        order = dead.int().sort(dim=-1, stable=True).indices
        width = max(1, min(width, int((~dead).sum(-1).max())))
        kept = order[:, :width]
        self.follow(kept)
        self.scores = self.scores.gather(1, kept)

    def only(self, searches: Tensor) -> "Frontier":
        """Some searches, `[s]`."""
        fields = ("ids", "scores", "given", "weights", "lanes", "ends")
        return replace(self, **{name: getattr(self, name)[searches] for name in fields})
