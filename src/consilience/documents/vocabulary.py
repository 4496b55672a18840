"""The few properties of knowledge graphs whose meaning matters here, and what they are called.

All others are data: they are shown under the labels that their own file gives them. Nothing here
knows a file format.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Language = Literal["zh", "en"]
"""A language that a graph is put into words in."""

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDFS = "http://www.w3.org/2000/01/rdf-schema#"
SKOS = "http://www.w3.org/2004/02/skos/core#"
FOAF = "http://xmlns.com/foaf/0.1/"
SCHEMA = ("http://schema.org/", "https://schema.org/")
DBPEDIA = "http://dbpedia.org/ontology/"
WIKIDATA_PROPERTY = "http://www.wikidata.org/prop/direct/"
WIKIDATA_ENTITY = "http://www.wikidata.org/entity/"

TYPE = f"<{RDF}type>"
FIRST, REST, NIL = f"<{RDF}first>", f"<{RDF}rest>", f"<{RDF}nil>"

LABELS = tuple(
    f"<{name}>"
    for name in (
        f"{RDFS}label",
        f"{SKOS}prefLabel",
        *(f"{schema}name" for schema in SCHEMA),
        f"{FOAF}name",
    )
)
"""What a thing is called, the most telling first."""

ALIASES = frozenset(
    f"<{name}>"
    for name in (
        f"{SKOS}altLabel",
        *(f"{schema}alternateName" for schema in SCHEMA),
        f"{FOAF}nick",
        f"{DBPEDIA}alias",
    )
)
"""What else it is called."""

DESCRIPTIONS = frozenset(
    f"<{name}>"
    for name in (
        f"{RDFS}comment",
        f"{SKOS}definition",
        *(f"{schema}description" for schema in SCHEMA),
        f"{DBPEDIA}abstract",
    )
)
"""What it is, in a sentence or more."""

NAMES = frozenset(LABELS) | ALIASES
"""By all of these a question may mean a thing."""

_CALLED: Mapping[Language, tuple[str, str, str, str]] = MappingProxyType(
    {
        "en": ("name", "also known as", "type", "description"),
        "zh": ("名称", "又名", "类型", "简介"),
    }
)


def called(predicate: str, language: Language) -> str:
    """What a property of this vocabulary is called in a language; empty for all others."""
    name, alias, kind, description = _CALLED[language]
    if predicate in LABELS:
        return name
    if predicate in ALIASES:
        return alias
    if predicate in DESCRIPTIONS:
        return description
    return kind if predicate == TYPE else ""


def place(predicate: str) -> int:
    """Where a property stands among those of one thing: names, kind, description, all others."""
    groups = (LABELS, ALIASES, (TYPE,), DESCRIPTIONS)
    return next((n for n, group in enumerate(groups) if predicate in group), len(groups))


def described_by(predicate: str) -> str:
    """The entity whose label is a property's label; Wikidata keeps the two apart."""
    if predicate.startswith(f"<{WIKIDATA_PROPERTY}"):
        return f"<{WIKIDATA_ENTITY}{predicate[1 + len(WIKIDATA_PROPERTY) :]}"
    return predicate
