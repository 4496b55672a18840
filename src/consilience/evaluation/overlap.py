"""ROUGE and BLEU, in Chinese as in English.

ROUGE is that of the package rouge-score, given our tokens, since its own drop every Chinese
character. BLEU is sacrebleu's, with its Chinese tokenizer for Chinese and 13a for the rest; of each
answer its counts are kept, so that the BLEU of any set of answers is a sum and can be resampled.
Both packages come with the extra `evaluation` and are loaded when they are first needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from consilience.errors import DependencyError
from consilience.evaluation.statistic import Statistic, Values, Weights, plain
from consilience.evaluation.tokens import tokens_of

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

INSTALL = "pip install 'consilience[evaluation]'"
ORDERS = 4


@dataclass(frozen=True, slots=True)
class Rouge:
    """F1 of single tokens, of pairs and of the longest common subsequence, from 0 to 1."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


@dataclass(frozen=True, slots=True)
class BleuCounts:
    """What one answer adds to BLEU.

    Attributes:
        matched: n-grams that stand in a reference, for n = 1 … 4, each as often as there at most.
        written: n-grams of the answer, for n = 1 … 4.
        length: Tokens of the answer.
        reference_length: Tokens of the reference that is nearest in length.
    """

    matched: tuple[int, ...]
    written: tuple[int, ...]
    length: int
    reference_length: int


def require_overlap_packages() -> None:
    """Do nothing if ROUGE and BLEU can be measured.

    Raises:
        DependencyError: A package of the extra `evaluation` is not installed.
    """
    _rouge_scorer()
    _bleu("13a")


def rouge(answer: str, references: Sequence[str]) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004); of several references the best for each.

    Args:
        answer: What was answered.
        references: What would be right, at least one.

    Raises:
        DependencyError: The package rouge-score is not installed.
    """
    best = _rouge_scorer().score_multi(list(references), answer)
    return Rouge(*(float(best[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")))


def bleu_counts(answer: str, references: Sequence[str], *, language: str = "en") -> BleuCounts:
    """What an answer adds to the BLEU of all.

    Args:
        answer: What was answered.
        references: What would be right, at least one.
        language: `zh` for Chinese characters as tokens.

    Raises:
        DependencyError: The package sacrebleu is not installed.
    """
    scorer = _bleu("zh" if language == "zh" else "13a")
    found = scorer.sentence_score(answer, list(references))
    return BleuCounts(tuple(found.counts), tuple(found.totals), found.sys_len, found.ref_len)


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], *, language: str) -> float:
    """BLEU of a set of answers (Papineni et al., 2002; Post, 2018), from 0 to 1.

    sacrebleu prints a hundred times this. The geometric mean of four precisions says little of
    answers of a few words; it is meant for sentences.

    Args:
        answers: What was answered, `[questions]`.
        references: What would be right, for each question.
        language: `zh` for Chinese characters as tokens.

    Raises:
        DependencyError: The package sacrebleu is not installed.
    """
    pairs = zip(answers, references, strict=True)
    counts = [bleu_counts(one, right, language=language) for one, right in pairs]
    return plain(bleu_statistic(counts), len(counts))


def bleu_statistic(counts: Sequence[BleuCounts]) -> Statistic:
    """BLEU of weighted answers.

    `BP * exp(1/4 sum over n of log p_n)`, `BP = exp(min(0, 1 - reference length / length))`; the
    i-th order without a match has `p_n = 1 / (2^i * written)`, as in mteval-v13a.
    """
    table = np.array([(*c.matched, *c.written, c.length, c.reference_length) for c in counts])

    def statistic(weights: Weights) -> Values:
        sums = weights @ table.astype(float)
        matched, written = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]
        length, wanted = sums[:, -2], sums[:, -1]
        brevity = np.exp(np.minimum(0.0, 1.0 - wanted / np.maximum(length, 1e-9)))
        found: Values = brevity * _geometric_mean(matched, written)
        return found

    return statistic


def _geometric_mean(matched: Weights, written: Weights) -> Values:
    """The geometric mean of smoothed precisions, 0 where an order is missing, `[resamples]`."""
    missed = (matched == 0).cumsum(1)
    smoothed = np.where(matched > 0, matched, 0.5**missed) / np.maximum(written, 1.0)
    usable = (written > 0).all(1) & (matched > 0).any(1)
    return np.where(usable, np.exp(np.log(smoothed).mean(1)), 0.0)


class _Tokens:
    """Our tokens, as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        return tokens_of(text)


@lru_cache(maxsize=1)
def _rouge_scorer() -> "RougeScorer":
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("ROUGE", "rouge-score") from error
    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Tokens())


@lru_cache(maxsize=2)
def _bleu(tokenizer: str) -> "BLEU":
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise _missing("BLEU", "sacrebleu") from error
    return BLEU(tokenize=tokenizer, effective_order=True)


def _missing(measure: str, package: str) -> DependencyError:
    return DependencyError(f"{measure} needs the package {package}, not installed", hint=INSTALL)
