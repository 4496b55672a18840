"""HTML and SVG as values: what is not marked up here is escaped, always.

Questions, answers and documents are hostile input. A string becomes text; only `Markup`, which
nothing but this module's functions and the page's own literals make, is taken as it is.
"""

from html import escape
from typing import Union

Content = Union["Markup", str, int]


_WITHOUT_END = frozenset({"input", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: Content, **attributes: str | float) -> Markup:
    """An element with its children.

    Args:
        tag: Its name.
        *children: Text is escaped, markup is not.
        **attributes: An underscore in a name stands for a hyphen, one at its end for nothing, as
            in `class_`; values are escaped.

    Example:
        >>> element("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    start = "".join([tag, *(f' {_name(name)}="{_text(v)}"' for name, v in attributes.items())])
    if tag in _WITHOUT_END:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{''.join(map(_content, children))}</{tag}>")


def joined(*parts: Content) -> Markup:
    """Parts one after the other."""
    return Markup("".join(map(_content, parts)))


def scrolled(content: Markup, name: str) -> Markup:
    """What may be wider than the page: it scrolls by itself, by keys too.

    Args:
        content: Of any width.
        name: What those who hear the page read are told that it is.
    """
    return element("div", content, class_="wide", tabindex="0", role="region", aria_label=name)


def _content(child: Content) -> str:
    return child if isinstance(child, Markup) else _text(child)


def _name(name: str) -> str:
    return name.removesuffix("_").replace("_", "-")


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(_visible(str(value)))


def _visible(text: str) -> str:
    """Text without characters that HTML has no place for."""
    return "".join(c if c in "\t\n" or c.isprintable() or c.isspace() else "\ufffd" for c in text)
