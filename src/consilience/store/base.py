"""What the store hands in and out: options, progress, reports and the rows that indexes follow.

Plain frozen data. Nothing here knows SQL, files or encoders, so every room above can import it for
the cost of numpy's types alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from consilience.errors import UsageError
from consilience.store.access import valid_labels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consilience.documents import Failure, Passage


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One passage as a derived index sees it. A row never changes: its number dies with it.

    Attributes:
        number: The passage's number in this store; grows, and is never used again.
        title: The title of its document.
        text: The passage.
        vector: Its vector, fp16, `[dimension]`.
        access: Labels of which a reader must hold at least one; empty means everyone.
        contributor: Who brought it in.
    """

    number: int
    title: str
    text: str
    vector: "NDArray[np.float16]"
    access: tuple[str, ...]
    contributor: str


@dataclass(frozen=True, slots=True)
class Record:
    """The rest of what the store knows of a passage, for those who must cite it without the store.

    Attributes:
        passage: The passage.
        contributor: Of its document, as filters mean it.
        language: Of its document: `zh`, `en` or empty.
        metadata: Of its document.
    """

    passage: "Passage"
    contributor: str
    language: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an index that has reached one sequence must do to reach another.

    All of it is read from one snapshot, which stays open until `added` is exhausted or `close` is
    called; commits made meanwhile do not show.

    Attributes:
        sequence: The sequence that the changes lead to.
        removed: Numbers to forget, of rows that existed at the sequence the changes start from.
        died: The commit that removed each of `removed`.
        added: Rows to take in, by number, in batches. To be read once.
        rows: How many rows `added` will yield in all.
        fingerprint: The encoder of the vectors in `added`; empty while nothing was embedded.
        dimension: The length of those vectors; 0 while nothing was embedded.
        records: Of rows by number, as this snapshot has them; only while `added` is being read.
        close: Ends the snapshot early. Harmless when it has ended.
    """

    sequence: int
    removed: list[int]
    died: list[int]
    added: Iterator[list[IndexRow]]
    rows: int
    fingerprint: str
    dimension: int
    records: Callable[[Sequence[int]], dict[int, Record]]
    close: Callable[[], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Stored vectors by passage number.

    Attributes:
        numbers: int64, `[rows]`, ascending.
        vectors: fp16, `[rows, dimension]`, row i belongs to `numbers[i]`.
    """

    numbers: "NDArray[np.int64]"
    vectors: "NDArray[np.float16]"


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class AddOptions:
    """How `Store.add` treats what it is given.

    Attributes:
        contributor: Who brings the documents in; for documents that do not name one themselves.
        access: Labels for documents that carry none of their own; empty means everyone may read.
        prune: Also remove the sources below the given folders whose files are gone from disk.
        batch: How many passages are embedded at a time, across files; at least 1.
        cancelled: Asked between files and batches; once true, `add` stops and reports.
    """

    contributor: str = ""
    access: tuple[str, ...] = ()
    prune: bool = False
    batch: int = 64
    cancelled: Callable[[], bool] = _never

    def __post_init__(self) -> None:
        if not valid_labels(self.access):
            raise UsageError(
                f"access must be a tuple of non-empty labels, received {self.access!r}",
                hint='Write it as access=("staff",).',
            )
        for label in (self.contributor, *self.access):
            try:
                label.encode()
            except UnicodeEncodeError as error:
                raise no_text(error) from error
        if self.batch < 1:
            raise UsageError(
                f"batch must be at least 1, received {self.batch}", hint="Leave batch out: 64."
            )


def no_text(error: UnicodeEncodeError) -> UsageError:
    """The error for what was typed and UTF-8 cannot carry."""
    return UsageError(
        f"{error.object!r} is not text: character {error.start} is half of a surrogate pair",
        hint="set the terminal's encoding to UTF-8 and type it again",
    )


Stage = Literal["reading", "embedding", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a long `add` or `re_embed` stands; the latter counts every text as a file.

    Equal texts are embedded once and counted once.

    Attributes:
        stage: What is being done now; `done` comes exactly once, last.
        source: The file or document being worked on; empty when it is several at once.
        done_files: Files and documents finished, of whichever outcome.
        total_files: Files and documents in all.
        done_bytes: Bytes of the finished ones.
        total_bytes: Bytes in all.
        passages: Passages committed so far.
        rate: Passages embedded per second of work; 0 until the first batch.
        seconds_left: An estimate from the bytes worked through; None until there is one.
    """

    stage: Stage
    source: str
    done_files: int
    total_files: int
    done_bytes: int
    total_bytes: int
    passages: int
    rate: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of everything given to `Store.add`, by name of file or document.

    Attributes:
        added: New in the store.
        updated: Replaced, because content, labels or the splitter changed.
        unchanged: Left as they were, neither parsed nor embedded.
        removed: Pruned, because their files are gone.
        failed: Not taken in, each with its reason; what the store held of them is as before.
        skipped: How many things in the given folders were passed over as no documents.
        passages: Passages committed by this call.
        embedded: Of these, how many needed a new vector.
        generation: The store's sequence afterwards.
        cancelled: Whether it stopped early; running it again goes on from there.
    """

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: "list[Failure]" = field(default_factory=list)
    skipped: int = 0
    passages: int = 0
    embedded: int = 0
    generation: int = 0
    cancelled: bool = False


class AddInterruptedError(KeyboardInterrupt):
    """Ctrl-C during `Store.add`: still a KeyboardInterrupt, with the report of what was done.

    Attributes:
        report: As `add` would have returned it, `cancelled` set.
    """

    def __init__(self, report: AddReport) -> None:
        super().__init__("interrupted; what was committed is kept")
        self.report = report


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What `Store.remove` removed.

    Attributes:
        removed: The sources that are gone, sorted.
        passages: How many passages went with them.
        generation: The store's sequence afterwards.
    """

    removed: list[str]
    passages: int
    generation: int


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What `Store.re_embed` did.

    Attributes:
        passages: Passages in the store, all of whose vectors are now the new encoder's.
        embedded: Texts embedded by this call; fewer than `passages` when it resumed.
        fingerprint: The encoder's.
        generation: The store's sequence afterwards.
        cancelled: Whether it stopped early; the old vectors then still answer.
    """

    passages: int
    embedded: int
    fingerprint: str
    generation: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """One document in the store, without its text.

    Attributes:
        source: Its name, as citations carry it.
        title: Its title.
        language: `zh`, `en` or empty.
        contributor: Who brought it in.
        access: Its labels.
        origin: The file or object that it came with, and is replaced and removed with.
        characters: Length of its text in code points.
        passages: How many passages it has.
    """

    source: str
    title: str
    language: str
    contributor: str
    access: tuple[str, ...]
    origin: str
    characters: int
    passages: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The store in numbers.

    Attributes:
        documents: Documents held.
        passages: Passages held.
        characters: Code points of text in all documents.
        bytes: Size of the database on disk, log included.
        sequence: Last committed change.
        fingerprint: Encoder of the vectors; empty while nothing was embedded.
        dimension: Length of a vector; 0 while nothing was embedded.
        schema: Version of the tables.
        created_by: Version of the package that made the store.
    """

    documents: int
    passages: int
    characters: int
    bytes: int
    sequence: int
    fingerprint: str
    dimension: int
    schema: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the store that is not as it must be.

    Attributes:
        subject: Where: the database, a table, a source or a passage.
        message: What is wrong.
    """

    subject: str
    message: str
