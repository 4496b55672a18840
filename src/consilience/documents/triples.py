r"""What a document made from a knowledge graph keeps of its triples, so that they can be cited.

Such a document tells one subject, a line for each fact. Beside the words it keeps the triples
that every line was made from, in its metadata: as many lines as the text has, on each the terms of
one triple or of several, in the notation of N-Triples and set apart by tabs. A stretch of the text
is thereby mapped to its triples exactly, whatever the words are. Nothing here knows a file format.

Example of the metadata under `triples` for a text of two lines:

    <http://example.org/a>\t<http://www.w3.org/2000/01/rdf-schema#label>\t"A"@en
    <http://example.org/a>\t<http://example.org/born>\t"1912"
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from consilience.documents.document import Document
from consilience.documents.normalise import storable
from consilience.errors import DocumentError

GRAPH = "graph"
"""The value of a document's metadata under `format`."""

SUBJECT, TRIPLES = "subject", "triples"
"""Keys of its metadata: the subject as an IRI, and the triples of each line."""

_BREAKS = re.compile(r"[\t\n\r]")  # literals have them escaped, a careless IRI may not
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.S)
_MEANT = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Triple:
    """One statement, each of its terms as N-Triples writes it.

    Attributes:
        subject: `<an IRI>`, or `_:name` for a node without one.
        predicate: `<an IRI>`.
        object: Any of these, or a literal: `"text"`, `"text"@en`, `"5"^^<an IRI>`.
    """

    subject: str
    predicate: str
    object: str

    def __str__(self) -> str:
        return f"{self.subject} {self.predicate} {self.object} ."


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a document about a subject.

    Attributes:
        text: The words, without a line break.
        triples: What they were made from, at least one.
    """

    text: str
    triples: tuple[Triple, ...]


def text_of(facts: Iterable[Fact]) -> str:
    """The text of a document that tells these facts."""
    return "\n".join(fact.text for fact in facts)


def metadata_of(subject: str, facts: Sequence[Fact]) -> dict[str, str]:
    """The metadata of a document that tells these facts about a subject, a term of N-Triples."""
    lines = ("\t".join(_terms(fact.triples)) for fact in facts)
    name = storable(iri_of(subject) or subject)
    return {"format": GRAPH, SUBJECT: name, TRIPLES: "\n".join(lines)}


def _terms(triples: Iterable[Triple]) -> Iterator[str]:
    for triple in triples:
        for term in (triple.subject, triple.predicate, triple.object):
            # Most terms are printable, which is found out in a tenth of the time.
            yield term if term.isprintable() else _BREAKS.sub(" ", storable(term))


def triples_of(document: Document, start: int = 0, end: int | None = None) -> list[Triple]:
    """The triples that a stretch of a document's text was made from, in the order of the text.

    Args:
        document: As `Store.document` has it.
        start: The first character, counted in the document's text as citations count.
        end: One past the last; None for the end of the text.

    Returns:
        Every triple of every line that shares a character with the stretch; none for a document
        that was not made from a graph.

    Raises:
        DocumentError: Text and triples of the document do not belong together.

    Example:
        for quote in answer.citations[0].quotes:
            triples_of(store.document(passage.source), quote.start, quote.end)
    """
    if not is_graph(document.metadata):
        return []
    rows = told(document.metadata)
    lines = document.text.split("\n")
    if len(lines) != len(rows):
        raise DocumentError(
            f"{document.source}: {len(lines)} lines, but triples for {len(rows)}",
            hint="add the file that it came from again",
        )
    stop = len(document.text) if end is None else end
    found: dict[Triple, None] = {}
    position = 0
    for line, row in zip(lines, rows, strict=True):
        if max(start, position) < min(stop, position + len(line)):
            found.update(dict.fromkeys(row))
        position += len(line) + 1
    return [*found]


def is_graph(metadata: Mapping[str, str]) -> bool:
    """Whether a document with this metadata was made from a knowledge graph."""
    return metadata.get("format") == GRAPH and SUBJECT in metadata and TRIPLES in metadata


def told(metadata: Mapping[str, str]) -> list[tuple[Triple, ...]]:
    """The triples of each line of a document that was made from a graph.

    Raises:
        DocumentError: A line that is not made of threes.
    """
    return [_row(line.split("\t")) for line in metadata[TRIPLES].split("\n")]


def _row(terms: Sequence[str]) -> tuple[Triple, ...]:
    if len(terms) % 3:
        raise DocumentError(
            f"a line of {len(terms)} terms, which are no triples",
            hint="add the file that it came from again",
        )
    return tuple(Triple(*terms[n : n + 3]) for n in range(0, len(terms), 3))


def iri_of(term: str) -> str:
    """The IRI that a term is; empty for other terms."""
    return term[1:-1] if term.startswith("<") and term.endswith(">") else ""


def is_blank(term: str) -> bool:
    """Whether a term is a node without a name."""
    return term.startswith("_:")


def literal_of(term: str) -> tuple[str, str, str] | None:
    """The value, language and datatype of a literal; None for other terms.

    The language is in lower case; the datatype is a term or empty.
    """
    if not term.startswith('"'):
        return None
    closing = term.rindex('"')
    value, tail = term[1:closing], term[closing + 1 :]
    if "\\" in value:
        value = _ESCAPE.sub(_unescaped, value)
    if tail.startswith("@"):
        return value, tail[1:].lower(), ""
    return value, "", tail.removeprefix("^^")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    if code is None:
        return _MEANT.get(match[3], match[3])
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else "\ufffd"
