"""Bytes into text: what decides the encoding, and what is refused rather than guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents.decoding import decode_text
from consilience.errors import DocumentError

CHINESE = "员工可以申请十二天年假。\r\n病假需要医生证明。\n"
TRADITIONAL = "員工可以申請十二天年假。\n病假需要醫生證明。\n"
WESTERN = "The café opens at 9 – naïve “quoted” text costs £5.\n"


def _refused(data: bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        decode_text(data)
    return caught.value


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff")))
def test_marked_and_plain_utf8_return_exactly_what_was_written(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gb18030"),
        ("第三条 贷款利率为百分之四点二。", "gbk"),
        ("请联系张医生，电话 5512。", "gb2312"),
        (TRADITIONAL, "big5"),
        ("請聯繫張醫生，電話 5512。", "big5"),
        (WESTERN, "cp1252"),
        ("Señor Muñoz said it’s fine.", "cp1252"),
        (CHINESE, "utf-16-le"),
        (CHINESE + WESTERN, "utf-16-be"),
        (WESTERN, "utf-16-le"),
        (WESTERN, "utf-32-be"),
    ],
)
def test_encodings_that_nothing_marks(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == text


def test_a_declared_encoding_comes_after_utf8_and_only_if_known() -> None:
    assert decode_text("時間".encode("cp932"), declared="Shift_JIS") == "時間"
    assert decode_text("時間".encode(), declared="gbk") == "時間"
    assert decode_text(CHINESE.encode("gbk"), declared="rot13") == CHINESE


def test_damage_in_utf8_is_named_and_not_guessed_away() -> None:
    data = CHINESE.encode() + b"\xff" + CHINESE.encode()
    at = len(CHINESE.encode())
    error = _refused(data)
    assert error.message == (
        f"not UTF-8 (byte 0xff at offset {at} (line 3) does not belong there) "
        "and no other encoding fits"
    )
    assert error.hint == "save the file as UTF-8"


def test_a_byte_lost_from_utf8_does_not_turn_it_into_other_words() -> None:
    whole = "时间表 table 时间".encode()
    error = _refused(whole[:1] + whole[2:])  # which GB18030 would read as 娑闂磋〃 table 鏃堕棿
    assert error.message.startswith("not UTF-8 (byte 0xe6 at offset 0 (line 1)")


@pytest.mark.parametrize(
    "data",
    [b"abc \xff\xfe\x80 def", b"\xc3\x28", b"hello \x80\x81\x82 world", bytes(range(128, 256))],
)
def test_bytes_that_fit_nothing_are_refused(data: bytes) -> None:
    assert _refused(data).message.startswith("not UTF-8 (byte 0x")


def test_a_mark_that_lies_is_refused() -> None:
    assert _refused(b"\xef\xbb\xbfab\xff").message == (
        "marked as UTF-8 but byte 0xff at offset 2 (line 1) does not belong there"
    )
    assert _refused(b"\xff\xfea\0\0\0").message == "holds NUL characters: not a text file"


def test_binary_bytes_are_no_text() -> None:
    assert _refused(b"\x00\x01\x02\x03" * 64).message == "holds NUL bytes: not a text file"
