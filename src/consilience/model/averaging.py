"""Weights of the fusion `average`: how much each rank of a retriever's list counts.

The average of distributions, `p(y_t | x, y_<t) = sum_i w_i p(y_t | x, d_i, y_<t)`, is RAG-Token
with weights that know only the place of a passage in the list, not its score. They are given, or
learned as `w = softmax(a)` with one parameter a rank. Knows neither passages nor scores.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from consilience.errors import UsageError


class RankWeights(nn.Module):
    """One weight for each rank, the best passage first.

    Args:
        weights: Above zero, one a rank; they need not add up to one. `RankWeights([1] * 5)` begins
            with the plain mean of five.
        learned: Whether training moves them.

    Raises:
        UsageError: No weight, or one that is not above zero.
    """

    def __init__(self, weights: Sequence[float], *, learned: bool = True) -> None:
        super().__init__()
        given = torch.tensor(list(weights), dtype=torch.float32)
        if not len(given) or not bool((given > 0).all() & given.isfinite().all()):
            raise UsageError(
                f"weights of ranks must be above zero, received {list(weights)}",
                hint="RankWeights([1.0] * 5) is the mean of five passages",
            )
        self.log_weights = nn.Parameter(given.log(), requires_grad=learned)

    def forward(self, present: Tensor) -> Tensor:
        """Log weights over the passages that are there.

        Args:
            present: True where a question has a passage, `[b, k]`.

        Returns:
            `[b, k]`, each row the logarithm of a distribution, minus infinity where none is.

        Raises:
            UsageError: More passages than ranks.
        """
        k, ranks = present.shape[1], len(self.log_weights)
        if k > ranks:
            raise UsageError(
                f"there are weights for {ranks} ranks, received {k} passages a question",
                hint=f"take k={ranks}, or build RankWeights with {k} weights",
            )
        return _among(self.log_weights[:k].float().expand(present.shape), present)

    def told(self) -> dict[str, float]:
        """The weight of each rank, adding up to one, for a log."""
        shares = self.log_weights.detach().float().softmax(0).tolist()
        return {f"rank_{place}": round(share, 6) for place, share in enumerate(shares, start=1)}


def uniform(present: Tensor) -> Tensor:
    """The plain mean over the passages that are there; as `RankWeights.forward`."""
    return _among(torch.zeros(present.shape, device=present.device), present)


def _among(log_weights: Tensor, present: Tensor) -> Tensor:
    return log_weights.masked_fill(~present, float("-inf")).log_softmax(-1)
