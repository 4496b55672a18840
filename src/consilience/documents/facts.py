"""From the triples of a graph to documents: one subject after the other, put into words.

A fact becomes a line, `property: value`, in which everything that the graph has a label for is
called by it: in the language of the graph, else in another, else by the last part of its IRI. Nodes
without a name are told with the subject that refers to them. The facts of a long subject fill
several documents, each about as long as one passage, so that no passage ends in the middle of a
fact unless that fact is longer than a passage.

Everything is done once for each triple: no graph, however tangled, is told at greater length than
the file that holds it, but for the names on the way to a node without one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from consilience.documents.normalise import one_line, storable
from consilience.documents.triples import Fact, Triple, iri_of, is_blank, literal_of, text_of
from consilience.documents.vocabulary import (
    FIRST,
    LABELS,
    NAMES,
    NIL,
    REST,
    TYPE,
    Language,
    called,
    described_by,
    place,
)
from consilience.text import PassageSize
from consilience.text.passages import weigh

_LONGEST_WAY = 4  # names shown on the way to a node without one
_MIDNIGHT = re.compile(r"^\+?(\d{4}-\d\d-\d\d)T00:00:00(?:\.0+)?(?:Z|\+00:00)?$")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LAST_PART = re.compile(r"[#/:]([^#/:?&=]+)$")
_NAMED_LANGUAGE = re.compile(r"(?:^|[._=-])(zh|en)$")
_SIZE = PassageSize()
_SIMPLIFIED = ("zh", "zh-hans", "zh-cn")

Pair = tuple[str, str]
"""A predicate and an object."""


class Graph:
    """Triples by subject, in the order in which the subjects first come.

    Terms are texts as N-Triples writes them; each is kept once.
    """

    def __init__(self) -> None:
        self._terms: dict[str, str] = {}
        self._facts: dict[str, list[str]] = {}
        self._aims: set[str] = set()
        self._properties: set[str] = set()

    def add(self, subject: str, predicate: str, obj: str) -> None:
        """Take in one triple."""
        keep = self._terms.setdefault
        obj = keep(obj, obj)
        self._facts.setdefault(keep(subject, subject), []).extend((keep(predicate, predicate), obj))
        self._properties.add(predicate)
        if is_blank(obj) and obj != subject:
            self._aims.add(obj)

    def __len__(self) -> int:
        """How many subjects there are."""
        return len(self._facts)

    def __contains__(self, subject: str) -> bool:
        return subject in self._facts

    def facts(self, subject: str) -> list[Pair]:
        """What is said of a subject, each triple once."""
        flat = self._facts.get(subject, [])
        return [*dict.fromkeys(zip(flat[::2], flat[1::2], strict=True))]

    def properties(self) -> set[str]:
        """Everything that a property is described by."""
        return {named for p in self._properties for named in (p, described_by(p))}

    def subjects(self) -> Iterator[str]:
        """Those with names first, then nodes that nothing refers to, then all others."""
        yield from (s for s in self._facts if not is_blank(s))
        yield from (s for s in self._facts if is_blank(s) and s not in self._aims)
        yield from (s for s in self._facts if s in self._aims)


def language_in(stem: str, graph: Graph) -> Language:
    """The language that a graph is put into words in.

    The name of the file says it where it ends in `zh` or `en` after a mark, as in `places.zh`;
    otherwise it is the language of most labels.
    """
    if named := _NAMED_LANGUAGE.search(stem.lower()):
        return "zh" if named[1] == "zh" else "en"
    votes = Counter(
        _primary(literal[1]) if literal[1] else _script(literal[0])
        for subject in graph.subjects()
        for predicate, obj in graph.facts(subject)
        if predicate in LABELS and (literal := literal_of(obj))
    )
    return "zh" if votes["zh"] > votes["en"] else "en"


def _script(text: str) -> str:
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"


def _primary(tag: str) -> str:
    return tag.partition("-")[0]


class Words:
    """What the things of one graph are called.

    Args:
        graph: The things, with their labels.
        language: In which they are called.
    """

    def __init__(self, graph: Graph, language: Language) -> None:
        self.language = language
        self._graph = graph
        self._labels: dict[str, str] = {}
        self._things: dict[str, str] = {}
        self._properties: dict[str, str] = {}

    def thing(self, term: str) -> str:
        """The name of a thing: its label, else the last part of its IRI, else all of it."""
        if term not in self._things:
            self._things[term] = self._label(term) or _local_name(term)
        return self._things[term]

    def property(self, predicate: str) -> str:
        """The name of a property."""
        if predicate not in self._properties:
            name = called(predicate, self.language) or self._label(predicate)
            name = name or self._label(described_by(predicate))
            self._properties[predicate] = name or _split_humps(_local_name(predicate))
        return self._properties[predicate]

    def value(self, obj: str) -> str:
        """An object in words, on one line."""
        literal = literal_of(obj)
        if literal is None:
            return self.thing(obj)
        value = _line(literal[0])
        return _MIDNIGHT.sub(r"\1", value) if "T00:00" in value else value

    def _label(self, term: str) -> str:
        """The best of a thing's labels; empty where it has none."""
        if term not in self._labels:
            self._labels[term] = self._best_label(term)
        return self._labels[term]

    def _best_label(self, term: str) -> str:
        found = [
            (self._rank(predicate, literal[1]), name)
            for predicate, obj in self._graph.facts(term)
            if predicate in LABELS and (literal := literal_of(obj)) and (name := _line(literal[0]))
        ]
        return min(found, key=lambda one: one[0])[1] if found else ""

    def _rank(self, predicate: str, tag: str) -> tuple[int, int, int]:
        """How good a label is, less is better: by language, by property, by writing."""
        order = (self.language, "", "en", "zh")
        spoken = _primary(tag)
        language = order.index(spoken) if spoken in order else len(order)
        return language, LABELS.index(predicate), 0 if tag in _SIMPLIFIED or spoken != "zh" else 1


def _line(text: str) -> str:
    """A text on one line; most have nothing to be replaced."""
    return one_line(text if text.isprintable() else storable(text))


def _local_name(term: str) -> str:
    """The last part of an IRI as words; the whole IRI where its last part is no name."""
    iri = _line(iri_of(term))
    last = _LAST_PART.search(iri)
    if last is None:
        return iri if iri else ""
    name = unquote(last[1], errors="replace").replace("_", " ")
    is_file = "." in name and " " not in name
    return iri if is_file or not name.strip() else one_line(name)


def _split_humps(name: str) -> str:
    return _HUMP.sub(" ", name).lower() if _HUMP.search(name) else name


class Telling:
    """Tells the subjects of a graph; a node without a name is told where it comes first.

    Args:
        graph: What is told.
        words: What its things are called.
    """

    def __init__(self, graph: Graph, words: Words) -> None:
        self._graph = graph
        self._words = words
        self._properties = graph.properties()
        self._told: set[str] = set()

    def subjects(self) -> Iterator[tuple[str, list[Fact]]]:
        """Every subject of which there is something to say, with its facts."""
        for subject in self._graph.subjects():
            if subject in self._told:
                continue
            facts = self._facts(subject)
            if any(self._says_more(fact, subject) for fact in facts):
                yield subject, facts

    def _says_more(self, fact: Fact, subject: str) -> bool:
        """Whether a fact is more than a name under which everything shows its subject."""
        predicates = {triple.predicate for triple in fact.triples}
        if subject in self._properties:
            return not predicates <= NAMES
        return not (predicates <= {*LABELS} and fact.text.endswith(f": {self.title(subject)}"))

    def title(self, subject: str) -> str:
        """What a subject is called; a node without a name, what kind of thing it is."""
        name = self._words.thing(subject)
        if name:
            return name
        kinds = [self._words.thing(o) for p, o in self._graph.facts(subject) if p == TYPE]
        return kinds[0] if kinds else ""

    def _facts(self, subject: str) -> list[Fact]:
        """A line for each fact, the same words only once."""
        lines: dict[str, tuple[Triple, ...]] = {}
        for words, triples in self._lines(subject):
            lines[words] = (*lines.get(words, ()), *triples)
        return [Fact(words, triples) for words, triples in lines.items()]

    def _lines(self, subject: str) -> Iterator[tuple[str, tuple[Triple, ...]]]:
        """The facts of a subject and, in their places, those of nodes without names."""
        self._told.add(subject)
        waiting = [self._steps(subject, (), ())]
        while waiting:
            step = next(waiting[-1], None)
            if step is None:
                waiting.pop()
                continue
            way, triples = step
            node = triples[-1].object
            if is_blank(node) and node in self._graph and node not in self._told:
                self._told.add(node)
                waiting.append(self._steps(node, way, triples))
            elif value := self._words.value(node):
                yield f"{' / '.join(way)}: {value}", triples

    def _steps(
        self, node: str, way: tuple[str, ...], triples: tuple[Triple, ...]
    ) -> Iterator[tuple[tuple[str, ...], tuple[Triple, ...]]]:
        """Every fact of a node with the names and the triples on the way to it."""
        for predicate, obj in _ordered(_understood(self._graph.facts(node))):
            if obj == NIL:
                continue
            inside = predicate in (FIRST, REST) and way
            names = way if inside else (*way, self._words.property(predicate))
            link = Triple(node, predicate, obj)
            yield names[-_LONGEST_WAY:], (*triples, link)[-_LONGEST_WAY:]


def _ordered(facts: Sequence[Pair]) -> list[Pair]:
    """Names first, then what it is; the values of one property one after the other."""
    first = {predicate: n for n, (predicate, _) in reversed([*enumerate(facts)])}
    return sorted(facts, key=lambda fact: (place(fact[0]), first[fact[0]]))


def _understood(facts: Sequence[Pair]) -> list[Pair]:
    """Facts without texts in other languages than Chinese and English, where those are said too."""
    said = {predicate for predicate, obj in facts if _is_understood(obj)}
    return [(p, o) for p, o in facts if p not in said or _is_understood(o)]


def _is_understood(obj: str) -> bool:
    literal = literal_of(obj) if obj.startswith('"') else None
    return literal is None or _primary(literal[1]) in ("", "zh", "en")


def split_facts(facts: Sequence[Fact]) -> list[list[Fact]]:
    """Facts of one subject in runs of about one passage each, in order; none is divided."""
    if weigh(text_of(facts), _SIZE) <= 1:
        return [[*facts]]
    runs: list[list[Fact]] = [[]]
    filled = 0.0
    for fact in facts:
        added = weigh(fact.text, _SIZE)
        if runs[-1] and filled + added > 1:
            runs.append([])
            filled = 0.0
        runs[-1].append(fact)
        filled += added
    return runs
