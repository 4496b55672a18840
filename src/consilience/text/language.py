"""The language of a question or a document, told by its characters.

Enough to choose a weight or a stop list; no more. Text of another language written in Latin letters
is taken for English, since nothing here treats the two differently.
"""

from typing import Literal

import regex

_HAN = regex.compile(r"\p{Han}")
_LATIN = regex.compile(r"\p{Latin}+")
_OTHER = regex.compile(r"[\p{L}--\p{Han}--\p{Latin}]", regex.V1)
_SHARE = 0.3
_SAMPLE = 20_000  # characters; a guess does not get better by reading a whole book


def language_of(text: str) -> Literal["zh", "en", ""]:
    """`zh`, `en`, or the empty string for other scripts and for text without letters.

    A Han character counts as much as a Latin word, as it says about as much; three in ten are
    enough for Chinese, so that 如何配置 Kubernetes Ingress Controller 的 TLS is Chinese. Kana,
    Hangul or any third script that outweighs both leaves the language open.

    Args:
        text: A question, a passage or a whole document, of which the beginning is looked at.
    """
    text = text[:_SAMPLE]
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    other = len(_OTHER.findall(text))
    if other > han + latin or han + latin == 0:
        return ""
    return "zh" if han >= _SHARE * (han + latin) else "en"
