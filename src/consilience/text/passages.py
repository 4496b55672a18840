"""Passages: stretches of a text short enough to retrieve, rank and read as one.

The text is first cut into units that should stay whole (sentences, lines of tables, headings with
what follows them; pieces of a sentence only where it is too long by itself). Passages are then the
sequence of runs of units with the least total cost, found exactly by dynamic programming: passages
want to be full, and to begin where the author began something. All that leaves this module are
offsets, so a passage is the source's own characters by construction.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import regex

from consilience.errors import UsageError
from consilience.text.sentences import split_sentences
from consilience.text.span import Span, trimmed


@dataclass(frozen=True, slots=True)
class PassageSize:
    """How much text makes a passage. Mixed text fills a share of each.

    The defaults leave room for a question, a title and the marks between them in 256 sub-word
    tokens: about 1.35 tokens per English word, one per Chinese character or mark.

    Attributes:
        words: Words of scripts that space them; a long one counts for several.
        characters: Han, kana, Hangul and their punctuation.
    """

    words: int = 160
    characters: int = 220

    def __post_init__(self) -> None:
        if min(self.words, self.characters) < 1:
            raise UsageError(
                f"words and characters must be 1 or more, received words={self.words}, "
                f"characters={self.characters}",
                hint="Leave the size out for passages that fit the shipped model.",
            )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch that should stay whole, and what it costs to cut before it all the same."""

    span: Span
    cut: float
    is_heading: bool = False


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece in its place.

    Attributes:
        span: Where it is.
        weight: Its share of a full passage.
        cut: What a passage that begins here costs.
        across: What a passage that runs across its beginning costs.
    """

    span: Span
    weight: float
    cut: float
    across: float


# Costs, in units of a passage that is left entirely empty. Splitting a paragraph pays only where
# passages would be less than about half full; crossing a heading is dearer than two half-full ones.
_CUT_HEADING, _CUT_PARAGRAPH, _CUT_LINE, _CUT_SENTENCE = 0.0, 0.05, 0.1, 0.25
_CUT_FINER = (0.5, 1.0, 1.5)
_CUT_AFTER_HEADING = 10.0
_ACROSS_HEADING = 0.6

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\u3001-\u303f\uff00-\uffef"
_COUNTED = regex.compile(rf"(?P<character>[{_CJK}])|[^\s{_CJK}]+")
_LONG_WORD = 12  # letters that one word may have before it counts as two
_WHOLE_LINE = regex.compile(
    r"""(?xm) ^(?:
      (?P<heading> \#{1,6} [^\S\n]+ \S.*
                 | 第[\d零〇一二三四五六七八九十百]+[编章节条][^\n。；]{0,30} )
    | [^\n:：;；]{1,80} [:：] [^\n;；]* [;；] [^\n:：;；]{1,80} [:：] .*
    | [^\S\n]* \| .* \| [^\S\n]*
    )$"""
)
_BLANK_LINE = regex.compile(r"\n[^\S\n]*\n|\f")
_FINER = (
    regex.compile(r"[^,;:，、；：]*(?:[,;:，、；：]+(?![\p{M}\u200c\u200d])|.\Z)", regex.S),
    regex.compile(r"\s*\S+"),
    regex.compile(rf"\X{{1,{_LONG_WORD}}}"),
)
_FINEST = 1 / 4  # of a passage; what is cut out of an over-long sentence need not be finer


def split_passages(
    text: str,
    *,
    breaks: Sequence[int] = (),
    size: PassageSize = PassageSize(),
    overlap_sentences: int = 0,
) -> list[Span]:
    r"""The passages of `text`, in order, each without white space at its ends.

    Every visible character lies in a passage. Without overlap passages share nothing; a sentence
    longer than a passage is cut at a comma, else between words, else between user-perceived
    characters (grapheme clusters).

    Args:
        text: Any text.
        breaks: Offsets where a page begins. A passage does not run across one unless a paragraph
            does, which is when no blank line stands there.
        size: How much makes a passage.
        overlap_sentences: How many sentences of the passage before are repeated at the beginning
            of the next, on top of its size; never all of them, and never across a page break.

    Raises:
        UsageError: A negative overlap.

    Example:
        >>> text = "# Leave\n\nStaff have 25 days.\n"
        >>> [text[span.start : span.end] for span in split_passages(text)]
        ['# Leave\n\nStaff have 25 days.']
    """
    if overlap_sentences < 0:
        raise UsageError(
            f"overlap_sentences must be 0 or more, received {overlap_sentences}",
            hint="Leave it out for passages that share nothing.",
        )
    return [
        span
        for section in _sections(_units(text, size), text, sorted(breaks))
        for span in _spans(section, _best_cuts(section), overlap_sentences)
    ]


def _spans(section: list[_Unit], cuts: list[int], overlap: int) -> Iterator[Span]:
    earliest = 0
    for first, last in pairwise(cuts):
        begin = max(earliest, first - overlap)
        yield Span(section[begin].span.start, section[last - 1].span.end)
        earliest = first + 1


def _best_cuts(section: list[_Unit]) -> list[int]:
    """Indices of the units with which passages begin, and the end: the cheapest of all ways."""
    cost, begin = [0.0], [0]
    for end in range(1, len(section) + 1):
        best, start = min((cost[i] + price, i) for i, price in _passages_to(section, end))
        cost.append(best)
        begin.append(start)
    cuts = [len(section)]
    while cuts[-1]:
        cuts.append(begin[cuts[-1]])
    return cuts[::-1]


def _passages_to(section: list[_Unit], end: int) -> Iterator[tuple[int, float]]:
    """Every passage that ends before the unit `end`: its first unit, and its cost."""
    weight = across = 0.0
    for start in range(end - 1, -1, -1):
        unit = section[start]
        weight += unit.weight
        if weight > 1 and start < end - 1:
            return
        yield start, unit.cut + across + (1 - weight) ** 2
        across += unit.across


def _sections(units: Iterator[_Unit], text: str, breaks: list[int]) -> Iterator[list[_Unit]]:
    """The units between page breaks."""
    section: list[_Unit] = []
    for unit in units:
        if section and _is_page_break(text, section[-1].span.end, unit.span.start, breaks):
            yield section
            section = []
        section.append(unit)
    if section:
        yield section


def _is_page_break(text: str, start: int, end: int, breaks: list[int]) -> bool:
    holds_break = bisect_right(breaks, start) < bisect_right(breaks, end)
    return holds_break and _BLANK_LINE.search(text, start, end) is not None


def _units(text: str, size: PassageSize) -> Iterator[_Unit]:
    """The pieces of the text in their places, with what surrounds them reckoned in."""
    previous: _Piece | None = None
    for piece in _pieces(text, size):
        span, after_heading = piece.span, previous is not None and previous.is_heading
        gap_start = previous.span.end if previous else 0
        yield _Unit(
            span,
            weight=weigh(text[span.start : span.end], size),
            cut=_cut_cost(text[gap_start : span.start], piece, after_heading=after_heading),
            across=_ACROSS_HEADING if piece.is_heading and not after_heading else 0.0,
        )
        previous = piece


def _cut_cost(gap: str, piece: _Piece, *, after_heading: bool) -> float:
    if after_heading:
        return _CUT_AFTER_HEADING
    if piece.is_heading:
        return _CUT_HEADING
    if _BLANK_LINE.search(gap):
        return _CUT_PARAGRAPH
    return _CUT_LINE if "\n" in gap else piece.cut


def weigh(text: str, size: PassageSize) -> float:
    """How many passages' worth of text this is, by its words and characters."""
    words = characters = 0
    for match in _COUNTED.finditer(text):
        if match["character"]:
            characters += 1
        else:
            words += -(-len(match[0]) // _LONG_WORD)
    return words / size.words + characters / size.characters


def _pieces(text: str, size: PassageSize) -> Iterator[_Piece]:
    """Whole sentences and lines where they fit into a passage, and parts of them where not."""
    for whole in _wholes(text):
        if weigh(text[whole.span.start : whole.span.end], size) <= 1:
            yield whole
        else:
            yield from _finer(text, whole, size, level=0)


def _wholes(text: str) -> Iterator[_Piece]:
    """Headings and rows of tables as lines, all between them as sentences."""
    position = 0
    for line in _WHOLE_LINE.finditer(text):
        yield from _sentences(text, position, line.start())
        span = trimmed(text, line.start(), line.end())
        yield _Piece(span, _CUT_LINE, is_heading=line["heading"] is not None)
        position = line.end()
    yield from _sentences(text, position, len(text))


def _sentences(text: str, start: int, end: int) -> Iterator[_Piece]:
    for span in split_sentences(text[start:end]):
        yield _Piece(Span(start + span.start, start + span.end), _CUT_SENTENCE)


def _finer(text: str, piece: _Piece, size: PassageSize, *, level: int) -> Iterator[_Piece]:
    """Parts of a piece: clauses, of those too heavy words, of those too heavy characters."""
    cut = piece.cut
    for part in _parts(text, piece.span, size, level):
        finer = _Piece(part, cut)
        if level + 1 < len(_FINER) and weigh(text[part.start : part.end], size) > _FINEST:
            yield from _finer(text, finer, size, level=level + 1)
        else:
            yield finer
        cut = _CUT_FINER[level]


def _parts(text: str, span: Span, size: PassageSize, level: int) -> Iterator[Span]:
    """The parts at one level, neighbours together as long as they stay light."""
    start, weight = span.start, 0.0
    for match in _FINER[level].finditer(text, span.start, span.end):
        added = weigh(match[0], size)
        if weight and weight + added > _FINEST:
            yield trimmed(text, start, match.start())
            start, weight = match.start(), 0.0
        weight += added
    yield trimmed(text, start, span.end)
