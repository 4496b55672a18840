"""Where a passage has the words of an answer, for generators that copy nothing token by token."""

import re
from itertools import pairwise

from consilience.generation.base import Stretch

_WORD = r"[0-9A-Za-z]"


def find_text(text: str, passage: str) -> list[Stretch]:
    """Where a passage has a text for the first time, or nothing.

    Capitals and the width of gaps do not matter. A Latin word or a number is found whole only:
    an answer of 5 was not taken from a passage that says 25.
    """
    words = text.split()
    if not words:
        return []
    pattern = re.escape(words[0])
    for before, after in pairwise(words):
        apart = re.fullmatch(_WORD * 2, before[-1] + after[0])
        pattern += (r"\s+" if apart else r"\s*") + re.escape(after)
    opened = rf"(?<!{_WORD})" if re.match(_WORD, words[0]) else ""
    closed = rf"(?!{_WORD})" if re.match(_WORD, words[-1][-1]) else ""
    found = re.search(opened + pattern + closed, passage, re.IGNORECASE)
    return [] if found is None else [Stretch(*found.span())]
