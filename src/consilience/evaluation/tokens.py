"""Words and characters as metrics count them: one rule for Chinese, English and mixtures.

A Han, kana or Hangul character is a token, and so is a run of letters and digits of any other
script; punctuation is none. Unlike the analyzer of search nothing is stemmed or left out, since a
metric must see what was written. The official scorers have rules of their own, in `answers`.
"""

import unicodedata
from collections.abc import Sequence

import regex

from consilience.text import fold_han

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー"
_TOKEN = regex.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def tokens_of(text: str) -> list[str]:
    """The tokens of a text in lower case, full-width forms folded.

    Example:
        >>> tokens_of("ＭＲＩ检查 costs 1,200.")
        ['mri', '检', '查', 'costs', '1', '200']
    """
    found: list[str] = _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
    return found


def contains(text: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` stands in `text` as consecutive tokens; nothing stands nowhere.

    Args:
        text: Tokens, of `tokens_of`, so that none holds a space.
        part: Likewise.
    """
    return bool(part) and f" {' '.join(part)} " in f" {' '.join(text)} "


def folded_tokens_of(text: str) -> list[str]:
    """`tokens_of` with traditional characters as simplified ones, to find rather than to score."""
    return tokens_of(fold_han(unicodedata.normalize("NFKC", text)))
