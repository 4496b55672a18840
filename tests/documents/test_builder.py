"""Blocks into one text: separators, pages, and the cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents.builder import TextBuilder
from consilience.errors import DocumentError

block = st.text("ab 文\n\0", max_size=8)


@given(st.lists(st.lists(block, max_size=4), max_size=5))
def test_pages_hold_exactly_their_blocks(pages: list[list[str]]) -> None:
    builder = TextBuilder(10_000)
    alone = []
    for number, blocks in enumerate(pages, start=1):
        builder.begin_page(number)
        single = TextBuilder(10_000)
        for piece in blocks:
            builder.add(piece)
            single.add(piece)
        if single.text():
            alone.append((number, single.text()))
    text = builder.text()
    assert [(p.number, text[p.start : p.end]) for p in builder.pages()] == alone
    assert text == "\n\n".join(page for _, page in alone)


def test_lines_stand_below_each_other_and_blocks_apart() -> None:
    builder = TextBuilder(100)
    builder.add("title")
    builder.add_lines(["row 1", "", "row 2"])
    builder.add("end")
    assert builder.text() == "title\n\nrow 1\nrow 2\n\nend"


def test_the_cap_counts_separators() -> None:
    builder = TextBuilder(4)
    builder.add("a")
    builder.add("b")
    with pytest.raises(DocumentError, match=r"^holds more than 4 characters of text$"):
        builder.add("c")
