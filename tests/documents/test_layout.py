"""Lines, cells, tables and paragraphs out of boxes alone."""

from consilience.documents.layout import Span, blocks_of, heading_of, lines_of

HEIGHT = 10.0


def _span(text: str, left: float, row: int, *, width: float = 5.0, height: float = HEIGHT) -> Span:
    """A span in row `row`, counted downwards, of characters `width` wide."""
    bottom = 700 - 12 * row
    return Span(text, left, bottom, left + width * len(text), bottom + height)


def _blocks(*spans: Span) -> list[list[str]]:
    return [list(block.rows) for block in blocks_of(lines_of(spans))]


def test_pieces_at_one_height_are_a_line_and_wide_gaps_divide_cells() -> None:
    (line,) = lines_of([_span("Ward", 0, 0), _span("A", 23, 0), _span("5512", 60, 0)])
    assert [cell.text for cell in line.cells] == ["Ward A", "5512"]


def test_a_small_gap_between_han_is_no_blank() -> None:
    (line,) = lines_of([_span("病房", 0, 0, width=10), _span("每天", 23, 0, width=10)])
    assert line.text == "病房每天"


def test_cells_below_each_other_are_a_table() -> None:
    spans = [
        _span(text, left, row)
        for row, cells in enumerate((("Ward", "Phone"), ("Heart", "5512"), ("Skin", "5513")))
        for text, left in zip(cells, (0, 60), strict=True)
    ]
    assert _blocks(*spans) == [["Ward: Heart; Phone: 5512", "Ward: Skin; Phone: 5513"]]


def test_full_lines_are_a_paragraph_and_a_short_one_ends_it() -> None:
    assert _blocks(
        _span("the ward is open from nine to", 0, 0),
        _span("five on every day of the year", 0, 1),
        _span("without rest.", 0, 2),
        _span("Another paragraph begins here", 0, 3),
        _span("and ends.", 0, 4),
    ) == [
        ["the ward is open from nine to five on every day of the year without rest."],
        ["Another paragraph begins here and ends."],
    ]


def test_a_paragraph_of_han_needs_no_blanks() -> None:
    assert _blocks(
        _span("病房每天九点开放", 0, 0, width=10), _span("二十点关闭。", 0, 1, width=10)
    ) == [["病房每天九点开放二十点关闭。"]]


def test_items_indents_sizes_and_distance_begin_anew() -> None:
    full = "a line that is as full as any"
    for following in (
        _span("• an item", 0, 1),
        _span("2. an item", 0, 1),
        _span("（二）条款", 0, 1),
        _span("第三条 条款", 0, 1),
        _span("Phone: 5512", 0, 1),
        _span("an indented line", 20, 1),
        _span("a small line", 0, 1, height=7),
        _span("a distant line", 0, 3),
        _span("another column", 300, 1),
    ):
        assert _blocks(_span(full, 0, 0), following) == [[full], [following.text]]


def test_a_wider_step_down_leaves_the_paragraph() -> None:
    first, second = (
        _span("the ward is open from nine to", 0, 0),
        _span("five every day of the year", 0, 1),
    )
    heading = Span("Visitors", 0, second.bottom - 18, 40, second.bottom - 8)
    assert _blocks(first, second, heading) == [
        ["the ward is open from nine to five every day of the year"],
        ["Visitors"],
    ]


def test_the_hyphen_mark_joins_however_short_the_line() -> None:
    assert _blocks(_span("the com\x02", 0, 0), _span("mittee that has agreed", 0, 1)) == [
        ["the committee that has agreed"]
    ]


def test_a_larger_first_line_is_a_heading() -> None:
    small = [_span("text", 0, row) for row in (2, 3)]
    assert heading_of(lines_of([_span("Title", 0, 0, height=16), *small])) == "Title"
    assert heading_of(lines_of([_span("Text", 0, 0), *small])) == ""
    assert heading_of([]) == ""
