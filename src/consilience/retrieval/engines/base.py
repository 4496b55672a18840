"""What an engine past one machine is: a server that holds a published copy of one store.

The copy is the passages with everything a citation needs, their vectors, their lexical tokens and
what filters ask for, so that a machine without the store can search and cite. It is always that of
one commit: a reader sees all of a commit or nothing of it, whatever happens to who publishes. An
engine ranks; it decides nothing. What is published, and whether a copy may be believed, is
`published`'s business, and each engine's own language is its module's.
"""

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.errors import DamagedError, MissingError, RemoteError
from consilience.retrieval.ranking import Ranking, Scope
from consilience.retrieval.tuning import Tuning
from consilience.store import Record, VectorRows, Where
from consilience.store.where import METADATA
from consilience.text import analyze, analyze_question

FORMAT = 1
"""The shape of what lies in the engines; raised with every change of it."""

MOST_TOKENS = 1024
"""Distinct tokens of a question that are looked up; the servers refuse longer queries."""

LONGEST_TERM = 200
"""Characters of a token or a filter's value that servers index; longer ones by their digest."""

_SLICE = 1000  # values in one filter

Answer = TypeVar("Answer")
Vector = NDArray[np.float32]


class UnavailableError(RemoteError):
    """A server that may answer if it is asked once more."""


class MovedError(RemoteError):
    """The copy is no longer at the commit that a change of it starts from."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an engine is waited for, in seconds, and how often it is asked again.

    Attributes:
        connect: To reach it.
        search: For one question.
        publish: For one step of publishing.
        attempts: How often at most what is safe to repeat is tried.
        pause: Before the second attempt, on average; doubled before each further one.
    """

    connect: float = 10.0
    search: float = 30.0
    publish: float = 600.0
    attempts: int = 3
    pause: float = 0.5


@dataclass(frozen=True, slots=True)
class Published:
    """Which commit of which store a copy is, and how it was made.

    Attributes:
        identity: The store's.
        sequence: The commit.
        fingerprint: The encoder of the vectors; empty while there are none.
        dimension: The length of a vector; 0 while there are none.
        passages: How many passages the copy has.
        steps: How many changes it has taken since it was made anew.
        recipe: Everything about the program that shapes what lies in the engine.
        keys: Keys of metadata that documents have or had.
        tuning: The numbers that a search of the store has, as `Tuning.to_dict` gives them.
        format: See `FORMAT`.
    """

    identity: str
    sequence: int
    fingerprint: str
    dimension: int
    passages: int
    steps: int
    recipe: str
    keys: tuple[str, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """What `parse` reads, fit for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, found: Any) -> Self:
        """A state as an engine kept it.

        Raises:
            DamagedError: It is none.
        """
        names = {one.name for one in fields(cls)}
        whole = isinstance(found, Mapping) and found.keys() >= names
        if not whole or not isinstance(found["sequence"], int):
            raise DamagedError(
                f"the engine holds no state that can be understood, received {str(found)[:200]!r}",
                hint="consilience publish URL --replace makes the copy anew",
            )
        known = {name: found[name] for name in names}
        return cls(**{**known, "keys": tuple(found["keys"])})


@dataclass(frozen=True, slots=True)
class Terms:
    """The lexical tokens of a passage, with how often each occurs.

    Attributes:
        title: Of the title of its document.
        text: Of its own text.
    """

    title: Counter[str]
    text: Counter[str]

    @classmethod
    def of(cls, passage: Passage) -> Self:
        """The tokens of a passage."""
        return cls(counted(analyze(passage.title)), counted(analyze(passage.text)))


def counted(tokens: Iterable[str]) -> Counter[str]:
    """How often each token occurs, with long ones by their digest."""
    return Counter(shortened(token) for token in tokens)


def asked(question: str) -> Counter[str]:
    """The tokens of a question that are looked up, with how often each occurs."""
    found = counted(analyze_question(question))
    return Counter(dict(list(found.items())[:MOST_TOKENS]))


def shortened(term: str) -> str:
    """A term that every server can index; equal ones stay equal."""
    if len(term) <= LONGEST_TERM:
        return term.replace("\x00", "\ufffd")
    return f"#{hashlib.sha256(term.encode(errors='replace')).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One passage as an engine takes it in.

    Attributes:
        number: Its number in the store, never used for another.
        record: The passage and what is known of its document.
        vector: fp16, `[dimension]`.
    """

    number: int
    record: Record
    vector: NDArray[np.float16]

    @property
    def readers(self) -> list[str]:
        """The terms of which a reader's scope must have one."""
        return sorted(f"={shortened(label)}" for label in self.record.passage.access) or [PUBLIC]

    @property
    def facts(self) -> list[str]:
        """The terms by which filters find it."""
        record = self.record
        pairs = [("contributor", record.contributor), ("language", record.language)]
        pairs += [(f"{METADATA}{key}", value) for key, value in record.metadata.items()]
        pairs += [("source", name) for name in _names(record.passage.source)]
        return [fact(name, value) for name, value in pairs]


PUBLIC = "*"
"""The term of passages without labels; that of a label begins with `=`."""


def fact(name: str, value: str) -> str:
    """The term of one value of one field; the first `=` that is not escaped ends the name."""
    escaped = name.replace("\\", "\\\\").replace("=", "\\=")
    return shortened(f"{escaped}={value}")


def _names(source: str) -> Iterator[str]:
    """A source, and every folder above it with its `/`."""
    yield source
    for place, character in enumerate(source):
        if character == "/" and place + 1 < len(source):
            yield source[: place + 1]


Conditions = list[tuple[str, list[str]]]
"""Names of a field of terms, `readers` or `facts`, each with the terms of which one must be there;
all of them must hold."""


def conditions_of(scope: Scope) -> Conditions:
    """What a scope asks of an entry's terms."""
    found: Conditions = []
    if scope.held is not None:
        labels = sorted(f"={shortened(label)}" for label in scope.held)
        found.append(("readers", [PUBLIC, *labels]))
    if scope.where is not None:
        found.extend(("facts", terms) for terms in _alternatives(scope.where))
    return found


def _alternatives(where: Where) -> Iterator[list[str]]:
    named = (
        ("source", where.sources),
        ("contributor", where.contributors),
        ("language", where.languages),
        *((f"{METADATA}{key}", values) for key, values in where.by_key().items()),
    )
    for name, values in named:
        if values:
            yield [fact(name, value) for value in values]


def sliced(values: Sequence[Any]) -> Iterator[list[Any]]:
    """As many values at a time as one filter takes."""
    return (list(values[start : start + _SLICE]) for start in range(0, len(values), _SLICE))


def passage_of(kept: Mapping[str, Any]) -> Passage:
    """A passage out of what a server keeps of it, under the names of its fields, with others."""
    known = {one.name: kept[one.name] for one in fields(Passage)}
    return Passage(**{**known, "access": tuple(known["access"])})


def packed(vector: NDArray[np.float16]) -> str:
    """A vector, `[dimension]`, as servers keep it that know no half precision."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def unpacked(text: str) -> NDArray[np.float16]:
    """The vector of `packed`, `[dimension]`."""
    return np.frombuffer(base64.b64decode(text), "<f2")


@dataclass(frozen=True, slots=True)
class Delta:
    """What leads a copy from one state to another.

    Attributes:
        before: The state that the change starts from; None where whatever is there goes.
        whole: Whether the copy is made anew; then `added` is all of it.
        dimension: The length of a vector; 0 while there are none.
        tuning: The numbers that a search of the copy will have.
        removed: Numbers of entries that go, with the commit in which each went.
        added: Entries that come, in batches. To be read once.
        average: The average numbers of tokens of the titles and of the texts of all of the store;
            reads and analyses all of it.
        reached: The state that it leads to; to be asked when `added` has been read.
    """

    before: Published | None
    whole: bool
    dimension: int
    tuning: Tuning
    removed: Mapping[int, int]
    added: Iterator[list[Entry]]
    average: Callable[[], tuple[float, float]]
    reached: Callable[[], Published]


def unpublished(shown: str) -> MissingError:
    """The error for an engine without the copy that is asked for."""
    return MissingError(
        f"nothing has been published to {shown}",
        hint=f"consilience publish {typed(shown)} --store DIR",
    )


def typed(shown: str) -> str:
    """An address as it is typed in a shell."""
    return shlex.quote(shown)


class View(Protocol):
    """One commit of a copy, for as long as one question needs it."""

    @property
    def state(self) -> Published:
        """Which commit it is."""
        ...

    def rank_lexical(self, tokens: Mapping[str, int], *, depth: int, scope: Scope) -> Ranking:
        """The `depth` best passages by BM25, best first.

        Args:
            tokens: Those of the question, as `asked` gives them.
            depth: How many.
            scope: Which passages may take a place.
        """
        ...

    def rank_dense(self, vector: Vector, *, depth: int, scope: Scope) -> Ranking:
        """The `depth` nearest passages by inner product with `vector`, `[dimension]`."""
        ...

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number, in the order asked for; numbers that are gone are left out."""
        ...

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; those that are gone are left out."""
        ...

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number, ascending; numbers that are gone are left out."""
        ...


class Engine(Protocol):
    """A server that holds a copy. Threads may share it."""

    @property
    def shown(self) -> str:
        """Its address as messages may show it: without password."""
        ...

    @property
    def most_steps(self) -> int:
        """How many changes a copy takes before it is better made anew."""
        ...

    def recipe(self, tuning: Tuning) -> str:
        """What of a tuning, and of the program, shapes what lies in the engine."""
        ...

    def state(self) -> Published | None:
        """The state of the copy; None where nothing has ever been published.

        Raises:
            RemoteError: The server fails or refuses.
            DamagedError: What is there is no copy.
        """
        ...

    def read(self, ask: Callable[[View], Answer]) -> Answer:
        """The answer of `ask` on one commit; it may be asked again from the start.

        Raises:
            MissingError: Nothing has been published there.
            RemoteError: The server fails or refuses.
            DamagedError: What is there is no copy.
        """
        ...

    def publish(self, delta: Delta) -> None:
        """Lead the copy to `delta.reached()`, for readers in one step.

        Raises:
            MovedError: It was no longer at `delta.before`; nothing has changed.
            BusyError: Someone else is publishing.
            RemoteError: The server fails or refuses; readers see the state there was, or all of
                the new one.
        """
        ...

    def close(self) -> None:
        """Let go of the server. Harmless when done again."""
        ...
