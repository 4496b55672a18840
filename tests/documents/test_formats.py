"""What a file is called and what it is: mislabelled files are read or named for what they are."""

import pytest

from consilience.documents import SUFFIXES
from consilience.documents.readers.table import READERS
from consilience.documents.recognition import recognise
from consilience.errors import DocumentError
from tests.documents import samples
from tests.documents.conftest import Read, Refusal


def test_every_suffix_has_a_reader() -> None:
    assert set(SUFFIXES.values()) == set(READERS)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize("suffix", [".PDF", ".docx", ".txt", ".csv", ".html", ".jsonl"])
@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.pptx", "a.xlsx", "a.xls", "a.ods"])
def test_a_binary_file_is_what_its_bytes_say(name: str, suffix: str) -> None:
    data = samples.one_of_each()[name]
    assert recognise(data, suffix) == SUFFIXES[f".{name[2:]}"]


def test_a_pdf_named_docx_is_read(read: Read) -> None:
    document = read("ward.docx", samples.lines_pdf(["read all the same"]))
    assert (document.text, document.metadata["format"]) == ("read all the same", "pdf")


def test_a_page_named_pdf_is_read(read: Read) -> None:
    assert read("page.pdf", b"<!DOCTYPE html><p>a page</p>").text == "a page"


COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def _compound(stream: str) -> bytes:
    return COMPOUND + stream.encode("utf-16-le") + bytes(64)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", b"just text", "mislabelled or damaged: named .pdf but holds plain text"),
        (
            "a.xlsx",
            b"\x01\0\x02",
            "mislabelled or damaged: named .xlsx but holds bytes of no known format",
        ),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "mislabelled: named .txt but holds a PNG picture"),
        ("a.docx", b"{\\rtf1 x}", "mislabelled: named .docx but holds a rich text (RTF) document"),
        ("a.docx", _compound("EncryptedPackage"), "encrypted: it opens only with a password"),
        ("a.docx", _compound("WordDocument"), "old Office format (.doc) without a reader"),
        ("a.xls", COMPOUND, "an OLE2 file that holds no document known here"),
        ("a.docx", b"PK\x03\x04", "damaged: not a complete zip archive (File is not a zip file)"),
    ],
)
def test_what_cannot_be_read_says_what_it_is(
    refusal: Refusal, name: str, data: bytes, message: str
) -> None:
    error = refusal(name, data)
    assert error.message == message
    assert error.hint


def test_an_archive_that_is_no_document_says_so(refusal: Refusal) -> None:
    plain = samples.with_member(samples.ods(()), "mimetype", b"application/epub+zip")
    assert refusal("a.docx", plain).message == (
        "mislabelled: named .docx but holds a document of type 'application/epub+zip'"
    )
    other = samples.with_member(samples.ods(()), "mimetype", b"\xff")
    error = refusal("a.txt", other)
    assert error.message == (
        "mislabelled: named .txt but holds a zip archive that is no Office document"
    )
    assert error.hint == "unpack it and add the files inside"


@pytest.mark.parametrize("suffix", ["", ".exe", ".doc"])
def test_an_unknown_suffix_lists_the_known_ones(suffix: str) -> None:
    with pytest.raises(DocumentError) as caught:
        recognise(b"text", suffix)
    named = suffix or "a name without a suffix"
    assert caught.value.message == f"unknown format: no reader for {named}"
    assert caught.value.hint.startswith("readable: .pdf .docx")
