"""Folding of spellings that mean the same, one character for one character.

Because every character stays in its place, an offset into the folded text is an offset into the
text itself. Folding by phrase would read better in places (乾 stays in 乾隆, becomes 干 in 乾燥),
but it moves characters; for matching it is enough that both sides are folded alike.
"""

from collections.abc import Mapping
from functools import lru_cache

_HAN = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def fold_han(text: str) -> str:
    """Traditional Chinese characters replaced by their simplified ones, each by exactly one.

    The map is OpenCC's `t2s` for single characters. Text that is simplified already, and every
    other script, comes back as it is; folding twice is folding once.

    Args:
        text: Any text.

    Returns:
        Text of the same length in code points: `fold_han(text)[i]` stands for `text[i]`.

    Example:
        >>> fold_han("鮭魚在東北")
        '鲑鱼在东北'
    """
    return text if text.isascii() else text.translate(_simplified())


@lru_cache(maxsize=1)
def _simplified() -> Mapping[int, str]:
    """From the code point of a traditional character to its simplified character."""
    from opencc import OpenCC

    characters = [chr(code) for low, high in _HAN for code in range(low, high + 1)]
    # Each on its own line, so that OpenCC finds no phrase across neighbours.
    converted = OpenCC("t2s").convert("\n".join(characters)).split("\n")
    one_step = {old: new for old, new in zip(characters, converted, strict=True) if len(new) == 1}
    return {
        ord(old): one_step.get(new, new) for old, new in one_step.items() if one_step[old] != old
    }
