"""Files built to break a reader: each is one line of reason, and the next file is read."""

import io
import os
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from consilience.documents import ReadLimits
from consilience.documents.limits import MEGABYTE
from tests.documents import samples
from tests.documents.conftest import Read, Refusal, reason

QUICK = ReadLimits(cpu_seconds=2, wall_seconds=20)
PARAGRAPH = "<w:p><w:r><w:t>fine</w:t></w:r></w:p>"


@pytest.fixture(autouse=True)
def _the_next_file_is_read(read: Read):
    yield
    assert read("next.txt", b"still here").text == "still here"


def test_a_flate_bomb_needs_too_much_memory(refusal: Refusal) -> None:
    bomb = samples.flate_bomb(600_000_000)
    assert len(bomb) < 600_000
    assert refusal("bomb.pdf", bomb).message == "needed more than 512 MB of memory"


def test_millions_of_paragraphs_in_kilobytes_are_a_bomb(refusal: Refusal) -> None:
    bomb = samples.many_paragraphs(4_000_000)
    assert len(bomb) < 72_000
    assert refusal("bomb.docx", bomb).message == (
        "refused: a decompression bomb, 'word/document.xml' unpacks 682-fold"
    )


def test_a_document_below_the_bomb_ratio_still_meets_the_memory_limit(refusal: Refusal) -> None:
    body = "".join(f'<w:p w:a="{i:x}"/>' for i in range(300_000))
    limits = ReadLimits(memory_bytes=128 * MEGABYTE)
    error = refusal("big.docx", samples.word_body(body), limits)
    assert error.message == "needed more than 128 MB of memory"


def test_a_hundred_thousand_nested_elements_are_stopped(refusal: Refusal) -> None:
    deep = b"<div>" * 100_000 + b"the end"
    error = refusal("deep.html", deep, ReadLimits(cpu_seconds=1))
    assert error.message == "took more than 1 s of CPU"


def test_thousands_of_nested_elements_are_read(read: Read) -> None:
    assert read("deep.html", b"<div>" * 4_000 + b"the end").text == "the end"


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghi"))
    + "]>"
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY i SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("declaration", [LAUGHS, OUTSIDE], ids=["laughs", "outside"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_in_office_files_are_refused(
    refusal: Refusal, declaration: str, encoding: str
) -> None:
    sound = samples.member(
        samples.word_body("<w:p><w:r><w:t>&i;</w:t></w:r></w:p>"), "word/document.xml"
    )
    rest = sound.decode().partition("?>")[2]
    xml = f'<?xml version="1.0" encoding="{encoding}"?>{declaration}{rest}'.encode(encoding)
    file = samples.with_member(samples.docx(lambda word: None), "word/document.xml", xml)
    assert refusal("laughs.docx", file).message == (
        "refused: 'word/document.xml' declares a document type (XML entities)"
    )


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/evil.xml", "..\\evil.xml", "C:/evil.xml"])
def test_members_that_leave_the_archive_are_refused(refusal: Refusal, name: str) -> None:
    file = samples.with_member(samples.word_body(PARAGRAPH), name, b"<x/>")
    assert refusal("climb.docx", file).message == (
        f"refused: its zip archive has a member named {name!r}"
    )


def test_an_archive_of_too_many_members_is_refused(refusal: Refusal) -> None:
    buffer = io.BytesIO(samples.word_body(PARAGRAPH))
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(20_001):
            archive.writestr(f"m{number}", b"")
    assert "members" in refusal("many.docx", buffer.getvalue()).message


def test_a_lying_archive_is_damaged(refusal: Refusal) -> None:
    sound = samples.word_body(PARAGRAPH)
    at = sound.rindex(b"PK\x01\x02")
    lie = bytearray(sound)
    lie[at + 24 : at + 28] = (3).to_bytes(4, "little")
    assert refusal("lie.docx", bytes(lie)).message.startswith("damaged: ")


def test_a_sheet_with_cells_at_its_far_corners_is_refused(refusal: Refusal) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active["A1"], book.active["XFD1048576"] = "a", "z"
    buffer = io.BytesIO()
    book.save(buffer)
    error = refusal("corners.xlsx", buffer.getvalue(), QUICK)
    assert error.message in (
        "needed more than 512 MB of memory",
        "took more than 2 s of CPU",
    )


def test_a_sparse_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        file.truncate(1024 * MEGABYTE)
    assert reason(path) == "too large: 1024 MB, allowed are 200 MB"


def test_a_table_of_a_hundred_thousand_columns_is_read(read: Read) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    cells = ",".join(f"v{i}" for i in range(100_000))
    text = read("wide.csv", f"{names}\n{cells}\n".encode()).text
    assert text.startswith("c0: v0; c1: v1; ")
    assert text.endswith("; c99999: v99999")


def test_a_table_whose_headers_swell_its_rows_is_stopped(refusal: Refusal) -> None:
    name = "x" * 70
    rows = "\n".join("1,2,3" for _ in range(100_000))
    limits = ReadLimits(text_chars=1_000_000)
    error = refusal("swell.csv", f"{name}a,{name[:-1]}b,{name[:-2]}c\n{rows}".encode(), limits)
    assert error.message == "holds more than 1,000,000 characters of text"


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "pipe.txt"
    os.mkfifo(path)
    assert reason(path) == "is a named pipe, not a file"


def test_the_device_of_zeros_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.txt"
    path.symlink_to("/dev/zero")
    assert reason(path) == "is a device, not a file"


def test_deeply_nested_json_is_refused(refusal: Refusal) -> None:
    deep = b'{"text": ' + b"[" * 100_000
    assert refusal("deep.jsonl", deep).message == "line 1: nested too deep"
    assert refusal("deep.json", deep).message == "is nested too deep to be documents"


def test_a_pdf_of_endless_pages_is_stopped(refusal: Refusal) -> None:
    loop = (
        samples.raw_pdf(b"")
        .replace(b"/Count 1", b"/Count 9")
        .replace(b"Kids[3 0 R]", b"Kids[2 0 R]")
    )
    assert refusal("loop.pdf", loop, QUICK).message
