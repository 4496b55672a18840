"""Recall, reciprocal rank and nDCG of one ranking.

A ranking is a sequence of booleans, the best place first: whether what stands there is relevant.
Each relevant thing must be marked once, at its first place. Means over questions are the business
of whoever has many. Values equal those of trec_eval for judgements of 0 and 1.
"""

import math
from collections.abc import Sequence


def recall_at(k: int, found: Sequence[bool], *, relevant: int = 1) -> float:
    """The share of the relevant that stands among the first `k`.

    Args:
        k: How many places count.
        found: Whether each place holds something relevant, `[places]`.
        relevant: How many relevant things there are in all, at least 1.

    Example:
        >>> recall_at(2, [False, True, True], relevant=2)
        0.5
    """
    return sum(found[:k]) / relevant


def reciprocal_rank_at(k: int, found: Sequence[bool]) -> float:
    """`1 / rank` of the first relevant place among the first `k`, 0 if there is none.

    Example:
        >>> reciprocal_rank_at(10, [False, True])
        0.5
    """
    return next((1 / rank for rank, one in enumerate(found[:k], start=1) if one), 0.0)


def ndcg_at(k: int, found: Sequence[bool], *, relevant: int = 1) -> float:
    """Discounted gain over that of the best ranking (Järvelin and Kekäläinen, 2002).

    `DCG = sum over ranks r <= k of [relevant at r] / log2(r + 1)`. Arguments as `recall_at`.

    Example:
        >>> ndcg_at(10, [True, False, True], relevant=2) == 1.5 / (1 + 1 / math.log2(3))
        True
    """
    best = [True] * min(k, relevant)
    return _dcg(found[:k]) / _dcg(best)


def _dcg(found: Sequence[bool]) -> float:
    return sum(1 / math.log2(rank + 1) for rank, one in enumerate(found, start=1) if one)
