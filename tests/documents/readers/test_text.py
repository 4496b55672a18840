"""Files whose text is verbatim (txt, md), and the titles of Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents.readers.base import RawFile
from consilience.documents.readers.markdown import read_markdown
from consilience.documents.readers.plain import read_plain
from tests.documents import samples
from tests.documents.conftest import Read, Refusal

written = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff")).filter(
    str.strip
)


def _raw(text: str) -> RawFile:
    return RawFile(text.encode(), "s", "stem", ".txt", 10_000)


@given(written)
def test_text_is_kept_character_for_character(text: str) -> None:
    assert read_plain(_raw(text))[0].text == text
    assert read_markdown(_raw(text))[0].text == text


def test_line_ends_and_blanks_stay(read: Read) -> None:
    text = "one\r\n\r\n\r\n  two\t \rthree\n"
    assert read("a.txt", text.encode()).text == text
    assert read("a.md", b"\xef\xbb\xbf" + text.encode()).text == text


def test_a_text_is_titled_by_its_name(read: Read) -> None:
    document = read("年假 规定.txt", samples.CHINESE.encode("gb18030"))
    assert (document.title, document.language) == ("年假 规定", "zh")
    assert document.text == samples.CHINESE


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Leave\n\ntext", "Leave"),
        ("intro\n\n## 年假 ##\n", "年假"),
        ("Leave rules\n===\n", "Leave rules"),
        ("```sh\n# not this\n```\n# This\n", "This"),
        ("````\n```\n# not this\n````\n# This\n", "This"),
        ("---\ntitle: 'From the front'\n---\n# Not this\n", "From the front"),
        ("---\nlang: en\n---\n# This\n", "This"),
        ("text only\n\n---\n\nmore", "a"),
        ("#tag\n", "a"),
    ],
)
def test_the_title_of_markdown(read: Read, text: str, title: str) -> None:
    assert read("a.md", text.encode()).title == title


@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_a_file_without_text_is_a_reason(refusal: Refusal, data: bytes) -> None:
    assert refusal("a.txt", data).message.startswith("holds no text")


def test_a_text_longer_than_allowed_is_a_reason(refusal: Refusal) -> None:
    from consilience.documents import ReadLimits

    error = refusal("a.txt", b"x" * 1001, ReadLimits(text_chars=1000))
    assert error.message == "holds more than 1,000 characters of text"
    assert error.hint == "split the file into smaller ones"
