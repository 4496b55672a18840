"""The documents as a subject may know them: lists, texts, and what an upload is asked to become.

All of it blocks and is run on the service's threads. What is hidden is not counted either.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consilience.errors import UsageError
from consilience.serving.errors import ForbiddenError
from consilience.serving.job import Job
from consilience.serving.subjects import Subject, authorise, labels_told
from consilience.serving.uploads import Form

if TYPE_CHECKING:
    from consilience.documents import Document
    from consilience.serving.service import Service
    from consilience.store import SourceInfo

MOST_TEXT = 200_000
"""Characters of a document that one answer holds."""

MOST_LABELS = 50
LONGEST_LABEL = 100
LONGEST_CONTRIBUTOR = 200

_FIELDS = ("access", "contributor")


@dataclass(frozen=True, slots=True)
class Listed:
    """Which documents are wanted.

    Attributes:
        offset: How many are passed over.
        limit: How many are wanted.
        query: A part of their names or titles; upper and lower case are the same.
    """

    offset: int
    limit: int
    query: str = ""


@dataclass(frozen=True, slots=True)
class PageText:
    """The text of one page, and where it begins in its document."""

    text: str
    start: int


def listed(service: "Service", subject: Subject, which: Listed) -> dict[str, Any]:
    """Documents that a subject may read, by name, and how many there are of them in all."""
    wanted = which.query.casefold()
    found = [
        one
        for one in service.sources(subject)
        if wanted in one.source.casefold() or wanted in one.title.casefold()
    ]
    kept = service.jobs.intake.kept()
    shown = found[which.offset : which.offset + which.limit]
    return {"documents": [_line(subject, one, kept) for one in shown], "total": len(found)}


def text_of(
    service: "Service", subject: Subject, source: str, *, start: int, end: int | None
) -> dict[str, Any]:
    """A stretch of a document that a subject may read.

    Raises:
        MissingError: There is none, or it is hidden.
        UsageError: It begins after its end.
    """
    document = service.document(subject, source)
    total = len(document.text)
    last = min(total, start + MOST_TEXT, total if end is None else end)
    if start > last:
        raise UsageError(
            f"there is no stretch from {start} to {end} in {total} characters",
            hint="choose start at or before end, and both within the text",
        )
    pages = [{"number": p.number, "start": p.start, "end": p.end} for p in document.pages]
    return {
        "source": document.source,
        "title": document.title,
        "text": document.text[start:last],
        "start": start,
        "end": last,
        "total": total,
        "pages": pages,
    }


def page_text(document: "Document", number: int) -> PageText:
    """The text of a page; empty for one without text."""
    for page in document.pages:
        if page.number == number:
            return PageText(document.text[page.start : page.end], page.start)
    return PageText("", 0)


def upload_jobs(subject: Subject, form: Form) -> list[Job]:
    """A job for each file of a form.

    Whoever is not an admin speaks in their own name, and only those labels can be given that the
    giver holds.

    Raises:
        UsageError: A field is unknown, or holds what cannot be a label or a name.
        ForbiddenError: A label or a name is not the subject's to give.
    """
    unknown = sorted(form.fields.keys() - set(_FIELDS))
    if unknown:
        raise UsageError(
            f"there is no field {unknown[0][:60]!r}", hint=f"fields are files, {', '.join(_FIELDS)}"
        )
    options = {
        "contributor": _contributor(subject, form.one("contributor")),
        "access": _access(subject, form.fields.get("access", ())),
    }
    held = None if subject.labels is None else tuple(sorted(subject.labels))
    return [
        Job("document", file.name, subject.id, held, options, file.digest, file.size)
        for file in form.files
    ]


def _contributor(subject: Subject, given: str) -> str:
    if authorise(subject, "admin"):
        return _plain(given, "contributor", LONGEST_CONTRIBUTOR)
    if given.strip() not in ("", subject.name):
        raise ForbiddenError(
            "only an admin brings documents in for another",
            hint=f"leave contributor out: it is {subject.name!r}",
        )
    return subject.name


def _access(subject: Subject, given: Sequence[str]) -> list[str]:
    labels = sorted({_plain(label, "access", LONGEST_LABEL) for label in given} - {""})
    if len(labels) > MOST_LABELS:
        raise UsageError(f"there are {len(labels)} labels", hint=f"give at most {MOST_LABELS}")
    if subject.labels is not None and not subject.labels.issuperset(labels):
        raise ForbiddenError(
            "a label was given that your key does not hold", hint="give labels of your own"
        )
    return labels


def _plain(given: str, name: str, longest: int) -> str:
    value = given.strip()
    if len(value) > longest or not value.isprintable():
        raise UsageError(
            f"the field {name!r} is no plain text of at most {longest} characters",
            hint="leave out line breaks and control characters",
        )
    return value


def _line(subject: Subject, one: "SourceInfo", kept: Collection[str]) -> dict[str, Any]:
    return {
        "source": one.source,
        "title": one.title,
        "language": one.language,
        "contributor": one.contributor,
        "access": labels_told(subject, one.access),
        "characters": one.characters,
        "passages": one.passages,
        "original": one.origin in kept,
    }
