"""Exact match and F1 of an answer against reference answers.

English follows SQuAD's scorer (Rajpurkar et al., 2016): lower case, no punctuation, no articles,
words as a bag. Chinese follows CMRC 2018's (Cui et al., 2019): no punctuation, characters and Latin
words as tokens, overlap counted as the longest common stretch. Of several references the best
counts. Both return a share from 0 to 1.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_CHINESE_PUNCTUATION = "，。：？！“”‘’；《》（）…—～「」、·『』【】"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


def exact_match(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """1.0 if the answer equals a reference after normalisation, else 0.0.

    Args:
        answer: What was answered.
        references: What would be right; empty means that no answer is right but the empty one.
        language: `zh` for CMRC's rules, anything else for SQuAD's.
    """
    tokens = _tokens(answer, language)
    return float(any(tokens == _tokens(one, language) for one in references or [""]))


def f1(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """Harmonic mean of precision and recall of tokens; arguments as `exact_match`."""
    tokens = _tokens(answer, language)
    return max(_f1(tokens, _tokens(one, language), language) for one in references or [""])


def _tokens(text: str, language: str) -> list[str]:
    lowered = text.lower()
    if language == "zh":
        kept = "".join(
            " " if c in string.punctuation or c in _CHINESE_PUNCTUATION else c for c in lowered
        )
        return _CHINESE_TOKEN.findall(kept)
    kept = "".join(c for c in lowered if c not in string.punctuation)
    return _ARTICLES.sub(" ", kept).split()


def _f1(answer: list[str], reference: list[str], language: str) -> float:
    if not answer or not reference:
        return float(answer == reference)
    if language == "zh":
        common = _longest_common_stretch(answer, reference)
    else:
        common = sum((Counter(answer) & Counter(reference)).values())
    return 2.0 * common / (len(answer) + len(reference))


def _longest_common_stretch(left: list[str], right: list[str]) -> int:
    """The length of the longest run of tokens that stands in both."""
    best, row = 0, [0] * (len(right) + 1)
    for token in left:
        row = [0] + [row[i] + 1 if token == other else 0 for i, other in enumerate(right)]
        best = max(best, *row)
    return best
