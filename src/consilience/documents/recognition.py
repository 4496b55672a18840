"""What a file really is, by its first bytes and by the members of its archive.

The suffix says what a file claims to be; where its bytes say something else, the bytes win,
provided that they leave no doubt. Nothing here reads a document.
"""

import io
import re
import zipfile
from collections.abc import Mapping

from consilience.documents.archive import UNPACKING
from consilience.documents.formats import BINARY, Format, format_of_name
from consilience.errors import DocumentError

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)
_PDF_WINDOW = 1024  # readers of PDF accept up to this many bytes before the header

_ARCHIVES: Mapping[str, Format] = {
    "word/document.xml": "docx",
    "ppt/presentation.xml": "pptx",
    "xl/workbook.xml": "workbook",
}
_OPEN_SHEET = b"application/vnd.oasis.opendocument.spreadsheet"

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"{\\rtf", "a rich text (RTF) document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)

_UNPACK = "unpack it and add the files inside"
_CONVERT = "save it as .docx, .pptx, .xlsx, .pdf or .txt and add that file"


def recognise(data: bytes, suffix: str) -> Format:
    """The format that a file really has.

    Args:
        data: All bytes of the file.
        suffix: What its name ends in, with the dot.

    Raises:
        DocumentError: No reader for the suffix, or bytes that are something else than the name
            says and either unreadable or ambiguous.
    """
    named = format_of_name(suffix)
    if data.startswith(_ZIP):
        return _in_zip(data, suffix)
    if data.startswith(_OLE):
        return _in_compound_file(data)
    if b"%PDF-" in data[: _PDF_WINDOW if named == "pdf" else 5]:
        return "pdf"
    _refuse_foreign(data, suffix)
    return _unmarked(data, suffix, named)


def _unmarked(data: bytes, suffix: str, named: Format) -> Format:
    """A file without a binary signature: what it says it is, if that can be."""
    if named not in BINARY:
        return named
    if _HTML.match(data[:4096]):
        return "html"
    holds = "bytes of no known format" if b"\0" in data[:4096] else "plain text"
    raise DocumentError(
        f"mislabelled or damaged: named {suffix} but holds {holds}",
        hint="give it the suffix of its real format, or save it again",
    )


def _refuse_foreign(data: bytes, suffix: str) -> None:
    for magic, what in _FOREIGN:
        if data.startswith(magic):
            raise DocumentError(f"mislabelled: named {suffix} but holds {what}", hint=_CONVERT)


def _in_zip(data: bytes, suffix: str) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            kind = archive.read("mimetype")[:100] if _is_small(archive, "mimetype") else b""
    except UNPACKING as error:
        raise DocumentError(
            f"damaged: not a complete zip archive ({error})", hint="save or fetch the file again"
        ) from error
    for member, found in _ARCHIVES.items():
        if member in names:
            return found
    if kind.startswith(_OPEN_SHEET):
        return "workbook"
    raise _no_document(suffix, kind)


def _is_small(archive: zipfile.ZipFile, name: str) -> bool:
    return name in archive.namelist() and archive.getinfo(name).file_size <= 1000


def _no_document(suffix: str, kind: bytes) -> DocumentError:
    if kind.isascii() and kind:
        what, hint = f"a document of type {kind.decode('ascii')!r}", _CONVERT
    else:
        what, hint = "a zip archive that is no Office document", _UNPACK
    return DocumentError(f"mislabelled: named {suffix} but holds {what}", hint=hint)


def _in_compound_file(data: bytes) -> Format:
    """Tell the kinds of OLE2 file apart by the names in its directory, stored as UTF-16."""
    if _stream("EncryptedPackage") in data:
        raise DocumentError(
            "encrypted: it opens only with a password", hint="save it without a password"
        )
    for stream, what in (("WordDocument", ".doc"), ("PowerPoint Document", ".ppt")):
        if _stream(stream) in data:
            raise DocumentError(f"old Office format ({what}) without a reader", hint=_CONVERT)
    if _stream("Workbook") in data or _stream("Book") in data:
        return "workbook"
    raise DocumentError("an OLE2 file that holds no document known here", hint=_CONVERT)


def _stream(name: str) -> bytes:
    return name.encode("utf-16-le")
