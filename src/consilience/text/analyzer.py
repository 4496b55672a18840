"""The one analyzer of lexical search: text in, tokens out, for Chinese, English and mixtures.

Questions and passages go through the same steps, whichever engine scores them; only the Chinese
question words leave questions alone. It knows no dictionary: Han, kana and Hangul become single
characters and pairs of neighbours, which measured better than a word segmenter
(`docs/benchmarks/retrieval.md`); words of other scripts are folded, stopped and stemmed. It keeps
no offsets: what is cited is a passage, never a token.

No token reaches across white space, so the tokens of each piece of text between two blanks are
worked out once and remembered: running text repeats most of its words.
"""

import re
import threading
import unicodedata
from functools import lru_cache
from itertools import chain, pairwise

import regex
import Stemmer

from consilience.text.normalise import fold_han
from consilience.text.stopwords import CHINESE_QUESTION, ENGLISH

TOKENS = 1
"""Raised whenever `analyze` changes: what was derived by tokens before no longer fits questions."""

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー"
_LETTER = rf"[^\W_{_CJK}]"
_CHUNK = regex.compile(rf"(?P<cjk>[{_CJK}]+)|{_LETTER}+(?:[-'.,]{_LETTER}+)*")
_ASCII_CHUNK = re.compile(r"[A-Za-z0-9]+(?:[-'.,][A-Za-z0-9]+)*")
_CONNECTOR = regex.compile("[-'.,]")
_THOUSANDS = regex.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = regex.compile(r"v?(\d+\.\d+)")
_DOTTED_LETTERS = regex.compile(r"\p{L}(?:\.\p{L})+")
_CONTRACTION = regex.compile(r"'(?:s|d|m|ll|re|ve)$", regex.IGNORECASE)
_NEGATION = regex.compile(r"n't$", regex.IGNORECASE)
_NUMBER_WITH_UNIT = regex.compile(r"(\d+)(\p{L}+)")
_ACCENTS = regex.compile(r"[\u0300-\u036f]+")
_QUESTION_WORDS = regex.compile(CHINESE_QUESTION)
_EDGES = ".,;:!?\"'()[]"  # what no token begins or ends with
_REMEMBERED = 40  # characters of the longest piece that is remembered: not the whole text of a page
_SPELLINGS = str.maketrans("’‘ʼ‐‑", "'''--")


def analyze(text: str) -> list[str]:
    """The lexical tokens of a question or a passage, in order, with repetitions.

    Args:
        text: Any text; full-width forms, traditional characters, accents and case are folded.

    Returns:
        Tokens without white space. Empty when the text holds function words and punctuation only.

    Example:
        >>> analyze("Who designed the 鮭魚 ladders?")
        ['design', '鲑', '鱼', '鲑鱼', 'ladder']
        >>> analyze("1,200.50 kg, 2024-05-01")
        ['1200.50', 'kg', '2024', '5', '1']
    """
    return [
        token
        for piece in text.split()
        for token in (
            _remembered(piece.strip(_EDGES)) if len(piece) <= _REMEMBERED else _tokens(piece)
        )
    ]


def analyze_question(question: str) -> list[str]:
    """The lexical tokens of a question: those of `analyze`, less what merely asks.

    A question that is nothing but question words keeps them.

    Args:
        question: What is asked.

    Example:
        >>> analyze_question("年假有多少天？")
        ['年', '假', '有', '年假', '假有', '天']
    """
    if question.isascii():
        return analyze(question)
    folded = fold_han(unicodedata.normalize("NFKC", question))
    return analyze(_QUESTION_WORDS.sub(" ", folded)) or analyze(folded)


def _tokens(piece: str) -> tuple[str, ...]:
    """The tokens of a piece of text without white space."""
    if piece.isascii():
        return tuple(chain.from_iterable(map(_words, _ASCII_CHUNK.findall(piece))))
    folded = fold_han(unicodedata.normalize("NFKC", piece)).translate(_SPELLINGS)
    return tuple(
        token
        for chunk in _CHUNK.finditer(folded)
        for token in (_characters if chunk["cjk"] else _words)(chunk[0])
    )


_remembered = lru_cache(maxsize=1 << 17)(_tokens)


def _characters(run: str) -> list[str]:
    """Every character of a run and every pair of neighbours."""
    return [*run, *map("".join, pairwise(run))]


def _words(chunk: str) -> tuple[str, ...]:
    """The tokens of letters and digits that no space divides: a word, number, date or address."""
    if chunk.isalpha():
        return _leaf(chunk)
    pieces = chunk.split("-")
    tokens = tuple(chain.from_iterable(map(_unhyphenated, pieces)))
    if len(pieces) == 2 and chunk[0].isalpha():
        return (*tokens, _stem(_plain("".join(pieces))))  # so that e-mail and email meet
    return tokens


def _unhyphenated(piece: str) -> tuple[str, ...]:
    if _NEGATION.search(piece):
        return ()  # only auxiliaries take it
    if _THOUSANDS.fullmatch(piece):
        return (piece.replace(",", ""),)
    if decimal := _DECIMAL.fullmatch(piece.lower()):
        return (decimal[1],)
    if _DOTTED_LETTERS.fullmatch(piece):
        return (_plain(piece.replace(".", "")),)
    leaves = _CONNECTOR.split(_CONTRACTION.sub("", piece))
    return tuple(chain.from_iterable(map(_leaf, leaves)))


def _leaf(leaf: str) -> tuple[str, ...]:
    """The tokens of letters and digits alone; capitals tell WHO and IT from who and it."""
    word = _plain(leaf)
    if not word or (word in ENGLISH and (len(leaf) == 1 or not leaf.isupper())):
        return ()
    if word.isalpha():
        return (_stem(word),)
    if amount := _NUMBER_WITH_UNIT.fullmatch(word):
        return (word, _number(amount[1]), amount[2])  # 5km meets 5 km, and line 32M itself
    return (_number(word) if word.isdecimal() else _stem(word),)


def _plain(word: str) -> str:
    """Case and accents folded; marks that are letters of their script stay."""
    folded = word.casefold()
    if folded.isascii():
        return folded
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    return unicodedata.normalize("NFC", bare)


def _number(digits: str) -> str:
    """05 as 5, so that 2024-05-01 meets 2024年5月1日; longer codes such as 007 stay."""
    return digits.removeprefix("0") if len(digits) == 2 else digits


def _stem(word: str) -> str:
    stem: str = _stemmers.english.stemWord(word)
    return stem


class _Stemmers(threading.local):
    """A stemmer of its own for each thread, since none may be shared."""

    def __init__(self) -> None:
        self.english = Stemmer.Stemmer("english", 0)  # without its own memory of words


_stemmers = _Stemmers()
