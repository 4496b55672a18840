"""Rows into lines: headers found, believed or missing, and nothing of a cell lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents.tables import Kind, render_table

cell = st.text("abc 文，;:x1", max_size=6)
ragged = st.lists(st.lists(cell, max_size=4), max_size=6)
filled = st.text("abc文，;x1", min_size=1, max_size=6)
full = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(filled, min_size=width, max_size=width), max_size=6)
)
kinds = st.sampled_from(["data", "form"])


@given(full, kinds, st.sampled_from([None, True, False]))
def test_every_cell_stands_in_some_line(
    rows: list[list[str]], kind: Kind, header: bool | None
) -> None:
    text = "\n".join(render_table(rows, kind=kind, header=header))
    for row in rows:
        for value in row:
            assert value in text


@given(ragged, kinds)
def test_without_a_header_every_row_is_a_line_with_all_its_values(
    rows: list[list[str]], kind: Kind
) -> None:
    visible = [row for row in rows if any(value.strip() for value in row)]
    lines = render_table(rows, kind=kind, header=False)
    assert len(lines) == len(visible)
    for line, row in zip(lines, visible, strict=True):
        assert all(" ".join(value.split()).rstrip(" :：") in line for value in row)


def test_a_header_is_named_in_every_row_and_empty_cells_are_left_out() -> None:
    rows = [["Ward", "Phone", "Note"], ["A", "1", ""], ["B", "", "new\nroom"]]
    assert render_table(rows) == ["Ward: A; Phone: 1", "Ward: B; Note: new room"]


def test_the_corner_above_row_labels_may_be_empty_and_years_may_head_columns() -> None:
    rows = [["", "2025", "2026"], ["Beds", "310", "325"]]
    assert render_table(rows) == ["Beds; 2025: 310; 2026: 325"]


@pytest.mark.parametrize(
    "rows",
    [
        [["1", "2", "3"], ["4", "5", "6"]],
        [["a", "a", "b"], ["c", "d", "e"]],
        [["a", "", "b"], ["c", "d", "e"]],
        [["a", "x" * 81, "b"], ["c", "d", "e"]],
        [["a", "b", "c"]],
    ],
    ids=["numbers", "repeated", "gap", "sentence", "alone"],
)
def test_what_is_no_header_is_a_row(rows: list[list[str]]) -> None:
    assert render_table(rows)[0] == "; ".join(filter(None, rows[0]))


def test_two_columns_of_a_form_are_names_and_values_unless_a_column_turns_numeric() -> None:
    form = [["Name：", "Li Na"], ["Ward", "Cardiology"]]
    fees = [["Item", "Fee"], ["Copy", "5 yuan"], ["X-ray", "120 yuan"]]
    assert render_table(form, kind="form") == ["Name: Li Na", "Ward: Cardiology"]
    assert render_table(fees, kind="form") == [
        "Item: Copy; Fee: 5 yuan",
        "Item: X-ray; Fee: 120 yuan",
    ]


def test_one_column_has_a_header_only_if_numbers_follow() -> None:
    assert render_table([["Beds"], ["310"]]) == ["Beds: 310"]
    assert render_table([["first"], ["second"]]) == ["first", "second"]


def test_captions_and_blank_rows_divide_a_sheet() -> None:
    rows = [
        ["Fees", ""],
        ["Item", "Fee"],
        ["Copy", "5"],
        ["", ""],
        ["", "", "x", "y"],
        ["", "", "1", "2"],
    ]
    assert render_table(rows) == ["Fees", "Item: Copy; Fee: 5", "x: 1; y: 2"]
