"""What an Office file, which is a zip archive, may look like before a parser sees it.

Office programs write few members, compress them ten- or twentyfold, name them by plain relative
paths and declare no document type. An archive that does otherwise was built to exhaust or to
mislead a parser and is refused for a few milliseconds of work. Sizes that the directory of the
archive understates are left to the memory limit of the child process.
"""

import io
import re
import zipfile
import zlib

from consilience.documents.limits import MEGABYTE, megabytes
from consilience.errors import DocumentError

MOST_MEMBERS = 20_000
MOST_UNPACKED = 1024 * MEGABYTE
MOST_XML = 256 * MEGABYTE
MOST_RATIO = 250
"""Unpacked over packed size of one large member; deflate can reach 1032, office XML about 60."""

UNPACKING = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
"""What `zipfile` raises over bytes that are not what their archive says."""

_LARGE = 8 * MEGABYTE  # below this size no ratio does harm
_XML = (".xml", ".rels")
_DECLARATION = re.compile(rb"<!(?:DOCTYPE|ENTITY)|<\0!\0(?:D\0O\0C|E\0N\0T)|\0<\0!\0(?:D\0O|E\0N)")
_CHUNK = MEGABYTE
_OVERLAP = 16  # longer than what `_DECLARATION` matches, so no match is cut by a chunk's end


def check_archive(data: bytes) -> None:
    """Refuse an archive that no office program writes.

    Args:
        data: All bytes of the file.

    Raises:
        DocumentError: Too many or too large members, an absurd ratio, a name that leaves the
            archive, encryption, a document type declaration, or damage.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members)
            for member in members:
                if member.filename.lower().endswith(_XML):
                    _check_xml(archive, member)
    except UNPACKING as error:
        raise _damaged(str(error)) from error


def _damaged(why: str) -> DocumentError:
    return DocumentError(
        f"damaged: its zip archive cannot be unpacked ({why})", hint="save or fetch it again"
    )


def _hostile(what: str) -> DocumentError:
    return DocumentError(f"refused: {what}", hint="open it in its program and save it again")


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_MEMBERS:
        raise _hostile(f"its zip archive has {len(members):,} members")
    total = sum(member.file_size for member in members)
    if total > MOST_UNPACKED:
        raise _hostile(f"its zip archive unpacks to {megabytes(total)}")
    for member in members:
        _check_member(member)


def _check_member(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 0x1:
        raise DocumentError(
            "encrypted: its zip archive opens only with a password",
            hint="save it without a password",
        )
    if _leaves_archive(member.orig_filename):
        raise _hostile(f"its zip archive has a member named {member.orig_filename[:60]!r}")
    if member.file_size > _LARGE and member.file_size > MOST_RATIO * member.compress_size:
        ratio = member.file_size // max(member.compress_size, 1)
        raise _hostile(f"a decompression bomb, {member.filename[:60]!r} unpacks {ratio}-fold")


def _leaves_archive(name: str) -> bool:
    """Whether a name is absolute, climbs with `..`, or could be read so on some system."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0]


def _check_xml(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Search one XML member for a document type, the door of entity bombs and outside entities."""
    if member.file_size > MOST_XML:
        raise _hostile(f"{member.filename[:60]!r} unpacks to {megabytes(member.file_size)}")
    with archive.open(member) as stream:
        tail = b""
        while chunk := stream.read(_CHUNK):
            if _DECLARATION.search(tail + chunk):
                raise _hostile(f"{member.filename[:60]!r} declares a document type (XML entities)")
            tail = chunk[-_OVERLAP:]
