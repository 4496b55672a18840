"""Documents on their way in and out: what a job does with an upload, and what deleting one means.

An upload is added under its name as `consilience add` would, read in the confined child process. Of
a PDF the bytes are kept, so that its pages can be shown, for as long as the store holds just what
was made of them. Deleting a document takes its original and its jobs along; what is hidden from
whoever asks is neither replaced nor deleted, nor told of.
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consilience.errors import DocumentError, MissingError
from consilience.serving.access import missing_document
from consilience.serving.backlog import Backlog, CancelledError, Told
from consilience.serving.job import Job, sees
from consilience.serving.ledger import Ledger
from consilience.serving.shelf import Shelf
from consilience.serving.subjects import Subject, authorise
from consilience.store import AddOptions, AddReport, NamedFile, Progress, SourceInfo, Store, visible

BATCH = 32
"""Passages embedded at a time: few enough that answers and a cancelling hand need not wait long."""

_PDF = b"%PDF-"
_PDF_WINDOW = 1024  # readers of PDF accept up to this many bytes before the header


@dataclass(frozen=True, slots=True)
class Removed:
    """What a deletion did.

    Attributes:
        removed: The names that are gone.
        passages: How many passages went with them.
        generation: The store's sequence afterwards.
        cancelled: The jobs that were stopped.
    """

    removed: list[str]
    passages: int
    generation: int
    cancelled: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "removed": self.removed,
            "passages": self.passages,
            "generation": self.generation,
            "cancelled": self.cancelled,
        }


class Intake:
    """The way of uploads into the store, and of documents out of it.

    Args:
        store: The knowledge base.
        ledger: Where originals are remembered.
        shelf: Where they are.
        backlog: Whose jobs these are.
    """

    def __init__(self, store: Store, ledger: Ledger, shelf: Shelf, backlog: Backlog) -> None:
        self._store, self._ledger, self._shelf, self._backlog = store, ledger, shelf, backlog
        self._prune(ledger.originals())

    def __call__(self, job: Job, told: Told) -> Job:
        """Take in one upload.

        Raises:
            CancelledError: It was cancelled; the store is as it was before.
            DocumentError: It cannot be read, or its name is taken by what the uploader may not see.
        """
        self._require_free(job)
        report = self._store.add(
            NamedFile(self._shelf.path(job.digest), job.name),
            options=_options(job, told.cancelled),
            progress=lambda progress: _tell(told, progress),
        )
        if report.cancelled:
            raise CancelledError
        _require_taken(job, report)
        self._keep_original(job)
        if told.withdrawn:
            self._remove_again(job.name)
            raise CancelledError
        return replace(job, outcome=_outcome(report))

    def original(self, name: str) -> tuple[str, Path] | None:
        """Digest and place of the original of a document, while it is what the store holds."""
        self._prune([name])
        found = self._ledger.original(name)
        if found is None or not self._shelf.path(found[0]).is_file():
            return None
        return found[0], self._shelf.path(found[0])

    def kept(self) -> Collection[str]:
        """The names of all documents of which there is an original."""
        return self._ledger.originals().keys()

    def digests(self) -> set[str]:
        """The digests of all originals."""
        return {digest for digest, _ in self._ledger.originals().values()}

    def withdraw(self, subject: Subject, source: str) -> list[str]:
        """Cancel the jobs of what is about to be deleted; their ids.

        Jobs of documents that the subject sees in the store are cancelled whosever they are; of
        others only those that it is told of.
        """
        names = {one.origin for one in self._named(subject, source)}
        jobs = self._backlog.named(names | {source})
        found = [job.id for job in jobs if job.name in names or sees(subject, job)]
        return self._backlog.withdraw(found)

    def remove(self, subject: Subject, source: str, cancelled: list[str]) -> Removed:
        """Delete a document, a file with all its documents, or with a `/` at the end a folder.

        Args:
            subject: Who asks. Nothing is deleted that is hidden from it.
            source: The name.
            cancelled: What `withdraw` returned.

        Raises:
            MissingError: There is no such document, nor was there a job.
        """
        named = self._named(subject, source)
        if not named and not cancelled:
            raise missing_document(source)
        try:
            done = self._store.remove(*(one.source for one in named)) if named else None
        except MissingError:
            raise missing_document(source) from None
        self._prune({one.origin for one in named})
        if done is None:
            return Removed([], 0, self._store.sequence, cancelled)
        return Removed(done.removed, done.passages, done.generation, cancelled)

    def _named(self, subject: Subject, source: str) -> list[SourceInfo]:
        """The documents that a name means, of those that the subject may change."""
        return [
            one
            for one in self._store.sources()
            if source in (one.source, one.origin)
            or (source.endswith("/") and one.origin.startswith(source))
            if authorise(subject, "write", one)
        ]

    def _require_free(self, job: Job) -> None:
        if job.held is None:
            return
        for one in self._store.sources():
            if job.name in (one.source, one.origin) and not visible(one.access, job.held):
                raise DocumentError("its name cannot be used here", hint="rename it")

    def _keep_original(self, job: Job) -> None:
        with self._shelf.path(job.digest).open("rb") as file:
            is_pdf = _PDF in file.read(_PDF_WINDOW)
        if is_pdf:
            self._ledger.keep_original(job.name, job.digest, self._store.stamp(job.name))
        else:
            self._ledger.forget_originals(job.name)

    def _remove_again(self, name: str) -> None:
        """Take back what was committed while its document was deleted."""
        with suppress(MissingError):  # then the deletion came later, and has seen it
            self._store.remove(name)
        self._ledger.forget_originals(name)

    def _prune(self, names: Iterable[str]) -> None:
        """Delete originals whose documents are gone, or were made of something else since."""
        known = {name: self._ledger.original(name) for name in names}
        gone = [n for n, one in known.items() if one is not None and self._store.stamp(n) != one[1]]
        if gone:
            self._ledger.forget_originals(*gone)
            self._backlog.sweep()


def _options(job: Job, cancelled: Callable[[], bool]) -> AddOptions:
    return AddOptions(
        contributor=job.options["contributor"],
        access=tuple(job.options["access"]),
        batch=BATCH,
        cancelled=cancelled,
    )


def _tell(told: Told, progress: Progress) -> None:
    if progress.stage == "done":
        return  # the job says so itself, when it is written down
    told.progress(
        state=progress.stage,
        rate=progress.rate,
        done_bytes=progress.done_bytes,
        passages=progress.passages,
        seconds_left=progress.seconds_left,
    )


def _require_taken(job: Job, report: AddReport) -> None:
    """Raise what became of a file that was not taken in.

    To whom something is hidden, the name of another document is not repeated.
    """
    for failure in report.failed:
        shown = failure.reason if job.held is None else failure.reason.partition(", from ")[0]
        raise DocumentError(shown, hint=failure.hint if job.held is None else "")


def _outcome(report: AddReport) -> str:
    outcomes = {"added": report.added, "updated": report.updated, "unchanged": report.unchanged}
    return next(name for name, found in outcomes.items() if found)
