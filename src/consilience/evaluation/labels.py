"""Accuracy and macro-averaged F1, where a question asks for one of a few labels.

What was answered and what is right are compared as they are given; whoever calls decides what
counts as the same label. An answer that is no label at all is wrong for its class, and no class of
its own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consilience.evaluation.statistic import Statistic, Weights, plain, ratio


def accuracy(answers: Sequence[str], labels: Sequence[str]) -> float:
    """The share of answers that are the label.

    Args:
        answers: What was answered, `[questions]`.
        labels: What is right, `[questions]`, at least one.

    Example:
        >>> accuracy(["yes", "no", "no"], ["yes", "yes", "no"])
        0.6666666666666666
    """
    return sum(a == b for a, b in zip(answers, labels, strict=True)) / len(labels)


def macro_f1(answers: Sequence[str], labels: Sequence[str]) -> float:
    """The mean over labels of `F1 = 2 TP / (2 TP + FP + FN)`, each label counting the same.

    Only labels that are right somewhere count. Arguments as `accuracy`.

    Example:
        >>> macro_f1(["yes", "yes", "yes"], ["yes", "yes", "no"])  # 4/5 and 0
        0.4
    """
    return plain(macro_f1_statistic(answers, labels), len(labels))


def macro_f1_statistic(answers: Sequence[str], labels: Sequence[str]) -> Statistic:
    """`macro_f1` of weighted questions; in a resample, over the labels that are in it."""
    given, right = np.asarray(answers, dtype=object), np.asarray(labels, dtype=object)
    classes = sorted(set(labels))

    def statistic(weights: Weights) -> Weights:
        shares = np.stack([_f1(weights, given == one, right == one) for one in classes])
        there = np.stack([weights @ (right == one).astype(float) > 0 for one in classes])
        return ratio(np.where(there, shares, 0.0).sum(0), there.sum(0))

    return statistic


def _f1(weights: Weights, given: NDArray[np.bool_], right: NDArray[np.bool_]) -> Weights:
    hits = 2 * (weights @ (given & right).astype(float))
    return ratio(hits, weights @ given.astype(float) + weights @ right.astype(float))
