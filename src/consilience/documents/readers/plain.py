"""Plain text, kept verbatim: offsets of the document are offsets of the decoded file."""

from consilience.documents.decoding import decode_text
from consilience.documents.document import Document
from consilience.documents.readers.base import Extract, RawFile, finish


def read_plain(file: RawFile) -> list[Document]:
    """The text of the file, character for character, without its byte order mark."""
    return finish(file, Extract("text", decode_text(file.data)))
