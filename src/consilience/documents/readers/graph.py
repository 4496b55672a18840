"""Knowledge graphs: RDF in all its usual notations, and the results of SPARQL queries.

Parsing is pyoxigraph's, which reads 100,000 triples in half a second and 45 MB where rdflib takes
five to eleven seconds and 190 to 210 MB. Nothing is ever fetched: neither the contexts that JSON-LD
refers to nor the external entities of XML. Facts are put into words by `facts`.

Rows of results become triples: of the first variable, unless three are called after the parts of
a triple. A variable `xLabel`, `xAltLabel` or `xDescription` names or describes what `x` is, as the
label service of Wikidata does it.
"""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from consilience.documents.builder import too_long
from consilience.documents.document import Document
from consilience.documents.facts import Graph, Telling, Words, language_in, split_facts
from consilience.documents.normalise import one_line, storable
from consilience.documents.readers.base import RawFile, title_from
from consilience.documents.triples import Fact, iri_of, is_blank, metadata_of, text_of
from consilience.documents.vocabulary import RDFS, SCHEMA, SKOS
from consilience.errors import DocumentError
from consilience.text import language_of

if TYPE_CHECKING:
    from types import ModuleType

    import pyoxigraph

_NOTATIONS = {
    ".ttl": "TURTLE",
    ".nt": "N_TRIPLES",
    ".nq": "N_QUADS",
    ".trig": "TRIG",
    ".jsonld": "JSON_LD",
    ".rdf": "RDF_XML",
    ".owl": "RDF_XML",
}
_RESULTS = {".srj": "JSON", ".srx": "XML"}
_PARTS = ({"s", "p", "o"}, {"subject", "predicate", "object"})
_SERVICE: tuple[tuple[str, str], ...] = (
    ("AltLabel", f"<{SKOS}altLabel>"),
    ("Label", f"<{RDFS}label>"),
    ("Description", f"<{SCHEMA[0]}description>"),
)
_VARIABLE = "urn:sparql:variable:"
_REMOTE = "No LoadDocumentCallback"
_FULL = "buffer maximal size"
_SAY = "check the file with the program that made it"


def read_graph(file: RawFile) -> Iterator[Document]:
    """The subjects of the graph, each put into words, in the order in which they first come.

    The source of a document is that of the file, followed by `#` and the subject's IRI; further
    documents about the same subject have `#2` and so on behind it.

    Raises:
        DocumentError: The file is not what its name says, or there is not one fact in it.
    """
    graph = Graph()
    try:
        for subject, predicate, obj in _triples(file, _parser()):
            graph.add(str(subject), str(predicate), str(obj))
    except (SyntaxError, MemoryError) as error:
        raise _explained(error) from error
    if not len(graph):
        raise DocumentError("holds no text: not one triple")
    yield from _documents(file, graph)


def _parser() -> "ModuleType":
    try:
        import pyoxigraph
    except ImportError as error:
        raise DocumentError(
            "reading knowledge graphs needs the package pyoxigraph",
            hint="pip install 'consilience[graph]'",
        ) from error
    return pyoxigraph


def _triples(file: RawFile, parser: "ModuleType") -> Iterator[Sequence[Any]]:
    data = file.data.removeprefix(codecs.BOM_UTF8)
    if file.suffix in _RESULTS:
        form = getattr(parser.QueryResultsFormat, _RESULTS[file.suffix])
        return _rows(parser.parse_query_results(data, form), parser)
    notation = getattr(parser.RdfFormat, _NOTATIONS.get(file.suffix, "TURTLE"))
    base = f"file:///{quote(file.stem)}{file.suffix}"
    return _statements(parser.parse(data, notation, base_iri=base, lenient=True))


def _statements(quads: "Iterator[pyoxigraph.Quad]") -> Iterator[Sequence[str]]:
    """Triples, nodes without names called by numbers in the order in which they come.

    The parser gives them names by chance, under which the same file would never be the same.
    """
    named: dict[str, str] = {}
    for quad in quads:
        terms = (str(quad.subject), str(quad.predicate), str(quad.object))
        yield [_numbered(term, named) for term in terms]


def _numbered(term: str, named: dict[str, str]) -> str:
    return named.setdefault(term, f"_:b{len(named) + 1}") if is_blank(term) else term


def _rows(results: Any, parser: "ModuleType") -> Iterator[Sequence[str]]:
    """The triples that rows of results stand for."""
    if isinstance(results, parser.QueryBoolean):
        raise DocumentError("is the answer to a yes or no question and holds no rows")
    names = [variable.value for variable in results.variables]
    triples = _as_triples if set(names) in _PARTS else _as_facts
    named: dict[str, str] = {}
    for row in results:
        found = {name: _numbered(str(t), named) for name, t in zip(names, row, strict=True) if t}
        yield from triples(names, found)


def _as_triples(names: Sequence[str], row: Mapping[str, str]) -> Iterator[Sequence[str]]:
    """A row with a subject, a predicate and an object."""
    if len(row) == len(names):
        yield [row[name] for name in sorted(names, key=lambda name: "spo".index(name[0]))]


def _as_facts(names: Sequence[str], row: Mapping[str, str]) -> Iterator[Sequence[str]]:
    """A row as what it says of the thing under its first variable that has one."""
    things = [name for name in names if name in row and not row[name].startswith('"')]
    if not things:
        return
    for name, term in row.items():
        about, predicate = _meaning(name, row)
        if name != things[0] and not row[about or things[0]].startswith('"'):
            yield row[about or things[0]], predicate, term


def _meaning(name: str, row: Mapping[str, str]) -> tuple[str, str]:
    """The variable that one tells of, empty for the subject's, and the predicate it stands for."""
    for ending, predicate in _SERVICE:
        about = name.removesuffix(ending)
        if about != name and about in row:
            return about, predicate
    return "", f"<{_VARIABLE}{quote(name)}>"


def _explained(error: Exception) -> DocumentError:
    """Why a file could not be parsed, in words."""
    why = storable(one_line(str(error)))[:200]
    if _REMOTE in why:
        return DocumentError(
            "refers to a context elsewhere, which is not fetched",
            hint="write the context itself into the file, under '@context'",
        )
    if _FULL in why:
        return DocumentError("holds a value of more than 16 MB", hint="leave that value out")
    if isinstance(error, MemoryError):
        raise error
    return DocumentError(f"cannot be parsed: {why}", hint=_SAY)


def _documents(file: RawFile, graph: Graph) -> Iterator[Document]:
    telling = Telling(graph, Words(graph, language_in(file.stem, graph)))
    empty = True
    for subject, facts in telling.subjects():
        empty = False
        for number, run in enumerate(split_facts(facts), start=1):
            yield _document(file, subject, run, telling.title(subject), number)
    if empty:
        raise DocumentError("holds no text: nothing that its triples say can be put into words")


def _document(
    file: RawFile, subject: str, facts: Sequence[Fact], title: str, number: int
) -> Document:
    text = text_of(facts)
    if len(text) > file.text_chars:
        raise too_long(file.text_chars)
    name = storable(iri_of(subject) or subject)
    return Document(
        text=text,
        source=f"{file.source}#{name}" + (f"#{number}" if number > 1 else ""),
        title=title_from(title),
        language=language_of(text),
        metadata=metadata_of(subject, facts),
    )
