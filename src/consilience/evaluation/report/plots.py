"""Plots as inline SVG: a curve over two axes, bars side by side, an interval in a table cell.

Drawn from numbers alone. Colours are classes of the page's style sheet, so that light and dark are
its business; where it does not reach, a plot is still legible in one colour. Every plot says in a
title what it shows, for those who hear the page read.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from consilience.evaluation.report.markup import Markup, element, joined

WIDTH, HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 12, 48
_STEPS = 4
_LETTERS = 12
_FAINT = 0.3

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: what it counts, and from where to where.

    Attributes:
        label: Of what.
        low: Where it begins.
        high: Where it ends, above `low`.
    """

    label: str
    low: float = 0.0
    high: float = 1.0

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Values at equal steps."""
        return [self.low + (self.high - self.low) * i / _STEPS for i in range(_STEPS + 1)]


def curve(
    title: str,
    points: Sequence[Pair],
    x: Axis,
    y: Axis,
    *,
    dots: bool = False,
    diagonal: bool = False,
) -> Markup:
    """A line through points.

    Args:
        title: What it shows.
        points: Values of x and y, in the order in which they are joined.
        x: The axis across.
        y: The axis upwards.
        dots: Whether each point is marked.
        diagonal: Whether the line x = y is drawn.
    """
    places = [(_across(x, a), _upwards(y, b)) for a, b in points]
    joints = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    path = element("polyline", points=joints, class_="line", fill="none", stroke="currentColor")
    marks = [element("circle", cx=a, cy=b, r=3.5, class_="dot") for a, b in places] if dots else []
    equal = [_segment((_LEFT, _floor()), (WIDTH - _RIGHT, _TOP), "guide")] if diagonal else []
    return _plot(title, *_axes(x, y), *equal, path, *marks)


def bars(title: str, groups: Sequence[tuple[str, Sequence[float]]], y: Axis, label: str) -> Markup:
    """Groups of bars side by side.

    Args:
        title: What it shows.
        groups: Each with its name and the height of its bars.
        y: The axis upwards.
        label: What the groups are.
    """
    room = (WIDTH - _LEFT - _RIGHT) / len(groups)
    shapes = [
        shape
        for place, (name, heights) in enumerate(groups)
        for shape in _group(name, heights, y, left=_LEFT + place * room, room=room)
    ]
    return _plot(title, *_upward_axis(y), *_across_label(label), *shapes)


def interval(value: float, low: float, high: float) -> Markup:
    """A value with its interval between 0 and 1, as a small picture."""
    axis = Axis("", 0.0, 1.0)
    left, middle, right = (4 + 112 * axis.share(one) for one in (low, value, high))
    return element(
        "svg",
        _segment((4, 8), (116, 8), "grid"),
        _segment((left, 8), (right, 8), "whisker"),
        element("circle", cx=middle, cy=8, r=3.5, class_="dot"),
        viewBox="0 0 120 16",
        class_="interval",
        aria_hidden="true",
    )


def _plot(title: str, *shapes: Markup) -> Markup:
    return element(
        "svg",
        element("title", title),
        *shapes,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="plot",
        role="img",
    )


def _group(
    name: str, heights: Sequence[float], y: Axis, *, left: float, room: float
) -> Iterator[Markup]:
    wide = room * 0.8 / len(heights)
    for number, height in enumerate(heights):
        top = _upwards(y, height)
        yield element(
            "rect",
            x=left + room * 0.1 + number * wide,
            y=top,
            width=wide,
            height=_floor() - top,
            class_=f"bar bar{number}",
        )
    yield _text(name, left + room / 2, _floor() + 15, "middle")


def _axes(x: Axis, y: Axis) -> list[Markup]:
    marks = [_text(_number(t), _across(x, t), _floor() + 15, "middle") for t in x.ticks()]
    return [*_upward_axis(y), *marks, *_across_label(x.label)]


def _upward_axis(y: Axis) -> Iterator[Markup]:
    for tick in y.ticks():
        level = _upwards(y, tick)
        yield _segment((_LEFT, level), (WIDTH - _RIGHT, level), "grid")
        yield _text(_number(tick), _LEFT - 7, level + 4, "end")
    middle = (_TOP + _floor()) / 2
    turned = f"rotate(-90 13 {middle:.0f})"
    yield element(
        "text", y.label, x=13, y=middle, text_anchor="middle", font_size=_LETTERS, transform=turned
    )


def _across_label(label: str) -> Iterator[Markup]:
    yield _text(label, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, "middle")


def _across(x: Axis, value: float) -> float:
    return _LEFT + x.share(value) * (WIDTH - _LEFT - _RIGHT)


def _upwards(y: Axis, value: float) -> float:
    return _floor() - y.share(value) * (_floor() - _TOP)


def _floor() -> float:
    return HEIGHT - _BOTTOM


def _segment(start: Pair, end: Pair, kind: str) -> Markup:
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return element("line", **ends, class_=kind, stroke="currentColor", stroke_opacity=_FAINT)


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, font_size=_LETTERS)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def legend(*names: str) -> Markup:
    """What the bars of each number are."""
    parts = (
        joined(element("span", "", class_=f"swatch bar{number}"), element("span", name))
        for number, name in enumerate(names)
    )
    return element("p", *parts, class_="legend")


def round_up(value: float) -> float:
    """The next number that divides an axis evenly: four times 1, 2 or 5 of some power of ten."""
    step = max(value, 1e-9) / _STEPS
    power = 10.0 ** math.floor(math.log10(step))
    return _STEPS * power * next(one for one in (1, 2, 5, 10) if one * power >= step * (1 - 1e-9))
