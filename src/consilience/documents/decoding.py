"""Bytes of a text file into text, without inventing characters.

A byte order mark decides, then UTF-8, then UTF-16 without a mark (told by its NUL bytes), then the
legacy encodings of Chinese (GB18030, Big5) and of western text (Windows-1252), each only if it fits
well. What fits nothing is an error that names the first bad byte: a wrong guess would put text into
the index that nobody wrote. Line ends stay as they are.
"""

import codecs
import unicodedata

from consilience.errors import DocumentError

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_LEGACY = ["gb18030", "big5", "cp1252"]
_DECLARED = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "big5-hkscs": "big5hkscs",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "us-ascii": "cp1252",
    "windows-1252": "cp1252",
    "iso-8859-15": "iso-8859-15",
    "windows-1250": "cp1250",
    "windows-1251": "cp1251",
    "koi8-r": "koi8-r",
    "shift_jis": "cp932",
    "euc-jp": "euc-jp",
    "euc-kr": "cp949",
}
"""Names of encodings as pages declare them, and the superset that decodes them."""

_TYPOGRAPHY = frozenset("‘’“”–—…•€£¥§°±©®™«»·×½¼¾²³µ¿¡†‡‰›‹\xa0")
_HINT = "save the file as UTF-8"


def decode_text(data: bytes, *, declared: str = "") -> str:
    """The text that `data` holds, exactly, without its byte order mark.

    Args:
        data: All bytes of the file.
        declared: The encoding that the file itself names, as an HTML page does; tried after a byte
            order mark and after UTF-8, and only if it is a known one.

    Raises:
        DocumentError: Bytes that no supported encoding explains.
    """
    marked = _decode_marked(data)
    if marked is not None:
        return marked
    if b"\0" in data:
        return _decode_wide(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _decode_declared(data, declared) or _decode_legacy(data, error)


def _decode_marked(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_strictly(data[len(mark) :], encoding)
    return None


def _decode_strictly(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"marked as {encoding.upper()} but {_bad_byte(data, error)}", hint=_HINT
        ) from error
    if "\0" in text:
        raise DocumentError("holds NUL characters: not a text file", hint=_HINT)
    return text


def _bad_byte(data: bytes, error: UnicodeDecodeError) -> str:
    line = data.count(b"\n", 0, error.start) + 1
    byte = data[error.start]
    return f"byte 0x{byte:02x} at offset {error.start} (line {line}) does not belong there"


def _decode_wide(data: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: the one reading that looks like writing."""
    for encoding in _WIDE:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _looks_written(text):
            return text
    raise DocumentError("holds NUL bytes: not a text file", hint=_HINT)


def _looks_written(text: str) -> bool:
    """Whether nearly all characters are assigned, and the frequent ones share one or two scripts.

    The wrong byte order turns a Latin text into scattered characters of rare blocks, and its
    blanks and line ends into U+2000 and U+0A00.
    """
    sample = text[:10_000]
    odd = sum(unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") for character in sample)
    odd -= sum(sample.count(character) for character in "\n\r\t")
    spaces = sum(character in " \n\u3000，。" or character.isascii() for character in sample)
    return "\0" not in text and odd <= len(sample) // 100 and spaces > 0


def _decode_declared(data: bytes, declared: str) -> str | None:
    encoding = _DECLARED.get(declared.strip().lower())
    if encoding is None:
        return None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _decode_legacy(data: bytes, error: UnicodeDecodeError) -> str:
    """The best of the legacy encodings, or the error that UTF-8 met."""
    if not _is_nearly_utf8(data):
        text = _fitting(data)
        if text is not None:
            return text
    raise DocumentError(
        f"not UTF-8 ({_bad_byte(data, error)}) and no other encoding fits", hint=_HINT
    ) from error


def _is_nearly_utf8(data: bytes) -> bool:
    """Whether most multi-byte sequences are valid: a UTF-8 text with some damage."""
    text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd")
    good = sum(not character.isascii() for character in text) - bad
    return good > bad


def _fitting(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=_LEGACY, threshold=0.1).best()
    if best is None:
        return None
    text = data.decode(best.encoding)
    if best.encoding == "cp1252" and not _is_western(text):
        return None
    return text


def _is_western(text: str) -> bool:
    """Whether every character beyond ASCII is typography or a letter inside a Latin word."""
    return all(
        character.isascii() or character in _TYPOGRAPHY or _in_word(text, index)
        for index, character in enumerate(text)
    )


def _in_word(text: str, index: int) -> bool:
    around = text[max(index - 1, 0) : index] + text[index + 1 : index + 2]
    return text[index].isalpha() and any(c.isascii() and c.isalpha() for c in around)
