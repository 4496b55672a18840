"""A guess at the language of a text, good enough to choose an analyzer and a hybrid weight.

It counts scripts and knows no words: Chinese is told by its Han characters, English by Latin
letters, and everything else (Japanese by its kana, too) is left unnamed rather than named wrongly.
"""

import re

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_LETTER = re.compile(r"[^\W\d_]")
_SAMPLE = 20_000  # characters; a guess does not get better by reading a whole book


def guess_language(text: str) -> str:
    """`zh`, `en`, or the empty string where neither carries the text.

    One Han character weighs as much as one Latin word, since that is about what it says.
    """
    sample = text[:_SAMPLE]
    if sample.isascii():
        return "en" if _LATIN_WORD.search(sample) else ""
    han, latin = len(_HAN.findall(sample)), len(_LATIN_WORD.findall(sample))
    if 10 * len(_KANA.findall(sample)) > han + latin:
        return ""
    if han > latin:
        return "zh"
    return "en" if _mostly_ascii(sample) else ""


def _mostly_ascii(sample: str) -> bool:
    letters = _LETTER.findall(sample)
    ascii_letters = sum(letter.isascii() for letter in letters)
    return bool(letters) and ascii_letters >= 0.6 * len(letters)
