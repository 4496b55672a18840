"""Spreadsheets: sheets as pages, values as written, merged cells, other formats of sheets."""

from datetime import date, datetime, time, timedelta

import pytest

from consilience.documents.readers.workbook import Value, written
from tests.documents import samples
from tests.documents.conftest import Read, Refusal


def test_sheets_are_pages_under_their_names(read: Read) -> None:
    document = read("book.xlsx", samples.xlsx({"Fees": samples.FEES, "电话": samples.WARDS}))
    first, second = (document.text[page.start : page.end] for page in document.pages)
    assert first == f"Fees\n\n{samples.FEE_LINES}"
    assert second == f"电话\n\n{samples.WARD_LINES}"
    assert document.title == "book"


def test_a_default_name_is_no_text_and_a_blank_sheet_no_page(read: Read) -> None:
    document = read("book.xlsx", samples.xlsx({"Sheet1": (), "工作表2": samples.WARDS}))
    assert document.text == samples.WARD_LINES
    assert [(page.number, page.start) for page in document.pages] == [(2, 0)]


def test_a_caption_above_the_header_and_blank_rows_between(read: Read) -> None:
    rows = (("Fees of 2026",), (), *samples.FEES, (), ("Approved by the board",))
    assert read("book.xlsx", samples.xlsx({"Sheet": rows})).text == (
        f"Fees of 2026\n{samples.FEE_LINES}\nApproved by the board"
    )


def test_a_merged_cell_stands_in_every_row_it_covers(read: Read) -> None:
    rows = ((), ("", "Ward", "Day"), ("", "Cardiology", "Monday"), ("", None, "Tuesday"))
    assert read("m.xlsx", samples.xlsx({"Sheet": rows}, merged="B3:B4")).text == (
        "Ward: Cardiology; Day: Monday\nWard: Cardiology; Day: Tuesday"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-3, "-3"),
        (0.1 + 0.2, "0.3"),
        (3.14159, "3.14159"),
        (1e20, "1e+20"),
        (float("inf"), "inf"),
        (True, "TRUE"),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 9, 30), "2026-03-01 09:30"),
        (datetime(2026, 3, 1, 9, 30, 5), "2026-03-01 09:30:05"),
        (time(9, 30), "09:30:00"),
        (timedelta(hours=26), "1 day, 2:00:00"),
        (" verbatim ", " verbatim "),
        ("", ""),
    ],
)
def test_values_are_written_as_a_reader_would(value: Value, text: str) -> None:
    assert written(value) == text


def test_dates_and_whole_numbers_of_a_real_workbook(read: Read) -> None:
    rows = (("Day", "Beds", "Rate"), (date(2026, 3, 1), 12, 0.035))
    assert read("beds.xlsx", samples.xlsx({"Sheet": rows})).text == (
        "Day: 2026-03-01; Beds: 12; Rate: 0.035"
    )


def test_an_open_document_sheet(read: Read) -> None:
    assert read("fees.ods", samples.ods(samples.FEES)).text == f"Fees\n\n{samples.FEE_LINES}"


def test_an_old_binary_sheet(read: Read) -> None:
    rows = (("项目", "Fee"), ("Copy", 5), ("影印", 7.5))
    assert read("fees.xls", samples.xls(rows)).text == (
        "Fees\n\n项目: Copy; Fee: 5\n项目: 影印; Fee: 7.5"
    )


@pytest.mark.parametrize("name", ["secret.ods", "secret.xls"])
def test_an_encrypted_sheet_says_so(refusal: Refusal, name: str) -> None:
    make = samples.ods if name.endswith("ods") else samples.xls
    error = refusal(name, make(samples.FEES, encrypted=True))
    assert error.message == "encrypted: it opens only with a password"
    assert error.hint == "save it without a password"


def test_a_broken_workbook_says_so(refusal: Refusal) -> None:
    file = samples.with_member(samples.xlsx({"A": samples.FEES}), "xl/workbook.xml", b"<x")
    assert refusal("b.xlsx", file).message.startswith("damaged: not a complete workbook (")
