"""Exact match and F1 of an answer against reference answers.

English follows SQuAD 2's scorer (Rajpurkar et al., 2018): lower case, no punctuation, no articles,
words as a bag. Chinese follows CMRC 2018's (Cui et al., 2019): its own list of punctuation left
out, Han characters and words of other scripts as tokens, overlap counted as the longest common
stretch. Of several references the best counts, as in SQuAD, CMRC and KILT. All return a share
from 0 to 1.

What differs from the Chinese scorer, on purpose: two empty strings agree, so that a withheld
answer is right where there is none, and rare Han characters are characters too.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""The characters that CMRC's scorer drops; a full stop of English is none of them."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_HAN = r"\u3400-\u9fff"
_CHINESE_TOKEN = re.compile(
    rf"[{_HAN}]|[^\W_{_HAN}]+(?:[.,'][^\W_{_HAN}]+)*|[^\s{_HAN}]"  # 3.5 is one token, 50% is two
)


def exact_match(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """1.0 if the answer equals a reference after normalisation, else 0.0.

    Args:
        answer: What was answered.
        references: What would be right; empty means that no answer is right but the empty one.
        language: `zh` for CMRC's rules, anything else for SQuAD's.

    Example:
        >>> exact_match("The Denver Broncos.", ["Denver Broncos"])
        1.0
    """
    given = normalised(answer, language=language)
    return float(any(given == normalised(one, language=language) for one in references or [""]))


def f1(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """Harmonic mean of precision and recall of tokens; arguments as `exact_match`.

    Example:
        >>> f1("三个工作日", ["三个日"], language="zh")  # 三个 is two of five, and two of three
        0.5
    """
    tokens = _tokens(answer, language)
    return max(_f1(tokens, _tokens(one, language), language) for one in references or [""])


def normalised(text: str, *, language: str) -> str:
    """A text as the scorer of its language compares it."""
    lowered = text.lower()
    if language == "zh":
        return "".join(c for c in lowered.strip() if c not in _CHINESE_PUNCTUATION)
    kept = "".join(c for c in lowered if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _tokens(text: str, language: str) -> list[str]:
    plain = normalised(text, language=language)
    return _CHINESE_TOKEN.findall(plain) if language == "zh" else plain.split()


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
