"""Tables in text files: delimiters, quoting, headers, encodings."""

import pytest

from tests.documents import samples
from tests.documents.conftest import Read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(read: Read, delimiter: str) -> None:
    rows = "\n".join(delimiter.join(map(str, row)) for row in samples.FEES)
    assert read("a.csv", rows.encode()).text == samples.FEE_LINES


def test_tsv_is_divided_by_tabs_only(read: Read) -> None:
    assert read("a.tsv", b"a,b\tc,d\n1,2\t3").text == "a,b: 1,2; c,d: 3"


def test_quoted_cells_keep_their_delimiters_and_stay_on_one_line(read: Read) -> None:
    data = 'Name,Note\r\n"Li, Na","first\r\nsecond"\r\nWu,"say ""no"""\r\n'
    assert read("a.csv", data.encode()).text == (
        'Name: Li, Na; Note: first second\nName: Wu; Note: say "no"'
    )


def test_chinese_in_gb18030(read: Read) -> None:
    rows = "\n".join(",".join(map(str, row)) for row in samples.WARDS)
    document = read("电话.csv", rows.encode("gb18030"))
    assert (document.text, document.title) == (samples.WARD_LINES, "电话")
