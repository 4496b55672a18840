"""A stretch of a text, by offsets. Whoever splits text returns spans, so nothing is ever copied."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The half-open stretch `text[start:end]`, in code points."""

    start: int
    end: int


def trimmed(text: str, start: int, end: int) -> Span:
    """The stretch without the white space at its ends; empty when it is all white."""
    inside = text[start:end]
    visible = inside.strip()
    first = start + len(inside) - len(inside.lstrip())
    return Span(first, first + len(visible))
