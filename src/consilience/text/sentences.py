"""Sentences by their offsets, in Chinese, English and mixtures, without a model.

Chinese marks end a sentence wherever they stand. The English full stop does so only when what
follows looks like a beginning and what precedes is no abbreviation, initial or list number. Blank
lines always end a sentence; a single line break does unless the line runs on into the next.
"""

from collections.abc import Iterator
from itertools import pairwise

import regex

from consilience.text.span import Span, trimmed

_CLOSING = r"[\p{Pf}\p{Pe}\"'*_~`]*"
_WHOLE = r"(?![\p{M}\u200c\u200d])"  # never part a character from its combining marks
_END = regex.compile(
    rf"""(?x)
      (?P<wide> (?: [。！？；｡] [。！？；｡!?…]* | …{{2,}} ) {_CLOSING} {_WHOLE} )
    | (?P<narrow> [.!?…؟۔।॥]+ {_CLOSING} (?= \s | \Z | [\p{{Han}}\p{{Hiragana}}\p{{Katakana}}] ) )
    | (?P<line> [^\S\n]* \n \s* )
    """
)
_LAST_WORD = regex.compile(r"(?:[\p{L}\p{M}]+\.)*[\p{L}\p{M}\p{N}]+$")
_NEXT_WORD = regex.compile(r"\s*[^\p{L}\p{N}\s]*\s*([\p{L}\p{N}]+)")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_NEVER_LAST = _words(
    """mr mrs ms dr prof rev hon gov sen rep gen col capt lt sgt mt messrs mme st vs cf e.g i.e viz
    approx ca jan feb mar apr aug sept"""
)
_BEFORE_NUMBERS = _words(
    "no nos p pp fig figs eq eqs vol vols ch sec art para jun jul sep oct nov dec"
)
_SELDOM_LAST = _words("inc ltd co corp jr sr dept univ est al etc ed eds u.s u.k a.m p.m ph.d")
_BEGINNERS = _words(
    """the a an this that these those it he she they we you i in on at by for from to as if when
    while after before since during but and or so however there here what which who how why where
    each all most many some its his her their our my no not"""
)
_REACH = 40  # characters looked at on either side of a full stop
_RUNS_ON = 20  # a shorter line of Chinese is a heading or a list item, not a wrapped line


def split_sentences(text: str) -> list[Span]:
    """The sentences of `text`, in order, without the white space around them.

    Closing quotes and brackets stay with the sentence they close. All visible text lies in exactly
    one sentence.

    Args:
        text: Any text.

    Example:
        >>> [(s.start, s.end) for s in split_sentences("It cost 3.5 m. 很贵。Really?")]
        [(0, 14), (15, 18), (18, 25)]
    """
    cuts = [0, *_ends(text), len(text)]
    spans = (trimmed(text, start, end) for start, end in pairwise(cuts))
    return [span for span in spans if span.start < span.end]


def _ends(text: str) -> Iterator[int]:
    for match in _END.finditer(text):
        if match["wide"] or _RULES[match.lastgroup](text, match.start(), match.end()):
            yield match.end()


def _narrow_ends(text: str, start: int, end: int) -> bool:
    """Whether the full stop, question or exclamation mark at `start` ends a sentence."""
    following = _NEXT_WORD.match(text, end, end + _REACH)
    next_word = following[1] if following else ""
    if next_word[:1].islower():
        return False
    return text[start] != "." or end - start > 1 or not _abbreviates(text, start, next_word)


def _abbreviates(text: str, stop: int, next_word: str) -> bool:
    """Whether the full stop at `stop` belongs to the word before it rather than to the sentence."""
    match = _LAST_WORD.search(text, max(0, stop - _REACH), stop)
    if not match:
        return False
    word = match[0].lower()
    if word.isdecimal():
        return _begins_line(text, match.start())
    begins = next_word.lower() in _BEGINNERS and len(next_word) > 1
    if len(word) == 1:
        return match[0].isupper() and word != "i" and not begins
    if word in _BEFORE_NUMBERS:
        return next_word[:1].isdecimal()
    return word in _NEVER_LAST or (word in _SELDOM_LAST and not begins)


def _begins_line(text: str, position: int) -> bool:
    return not text[text.rfind("\n", 0, position) + 1 : position].strip()


def _line_ends(text: str, start: int, end: int) -> bool:
    """Whether the line break from `start` to `end` ends a sentence."""
    if text.count("\n", start, end) > 1 or start == 0 or end == len(text):
        return True
    return not (text[end].islower() or _chinese_runs_on(text, start, end))


def _chinese_runs_on(text: str, start: int, end: int) -> bool:
    line = text[text.rfind("\n", 0, start) + 1 : start]
    return (
        len(line) >= _RUNS_ON and _is_han(text[end]) and (_is_han(line[-1]) or line[-1] in "，、")
    )


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


_RULES = {"narrow": _narrow_ends, "line": _line_ends}
