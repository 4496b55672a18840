"""Plain text for a run: documents out of stores, folders and files, what is held out, the passages.

A store is read document by document, everything else by the readers that `consilience add` uses, in
the same confined processes. Which documents are held out depends on their text alone, so that a
document stays on its side when others are added.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from consilience.documents import Document, Failure, Found, find_documents, read_document
from consilience.errors import DocumentError, MissingError, UsageError
from consilience.store import Store
from consilience.store.opening import DATABASE
from consilience.text import split_passages
from consilience.training.config import TextSettings
from consilience.training.examples import Example, PlainText

Say = Callable[[str], None]

SHOWN = 3
"""Files that cannot be read that are told by name."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The plain text of a run.

    Attributes:
        train: Documents to learn from, place by place.
        dev: Documents to measure on; none of them is among the others.
        shared: How many of `train` were left out for standing in `text.dev` too.
    """

    train: tuple[tuple[Document, ...], ...]
    dev: tuple[Document, ...] = ()
    shared: int = 0


def read_texts(settings: TextSettings, *, seed: int = 0, say: Say = lambda _: None) -> Texts:
    """Read what the settings name.

    Args:
        settings: Which places, and what is held out.
        seed: Another seed holds out other documents.
        say: Told which files of a folder cannot be read; the others are.

    Raises:
        MissingError: A place is not there.
        UsageError: A place holds no text, or nothing is left to learn from.
        DamagedError, VersionError: A store that cannot be read.
    """
    named = tuple(one for place in settings.dev for one in documents_of(place, say))
    held = {key_of(one) for one in named}
    train, dev, shared = [], list(named), 0
    for place in settings.train:
        kept = []
        for document in documents_of(place, say):
            if key_of(document) in held:
                shared += 1
            elif _is_held_out(document, settings.hold_out, seed):
                dev.append(document)
            else:
                kept.append(document)
        train.append(tuple(kept))
    if settings.train and not any(train):
        raise UsageError(
            "nothing of text.train is left to learn from: all of it is held out",
            hint="name other text under text.dev, or give more documents",
        )
    if settings.measured and not dev:
        raise UsageError(
            f"text.hold_out is {settings.hold_out:g}, and no document fell to it",
            hint="hold out a larger share, or name files under text.dev",
        )
    return Texts(tuple(train), tuple(dev), shared)


def documents_of(place: Path, say: Say = lambda _: None) -> list[Document]:
    """The documents with visible text at a place.

    Args:
        place: A store, a folder, or a file that has a reader.
        say: As `read_texts`.

    Raises:
        MissingError: There is nothing there.
        UsageError: There is no text in it.
    """
    if not place.exists():
        raise MissingError(f"there is no text at {place}", hint="check text.train and text.dev")
    found = _stored(place) if (place / DATABASE).is_file() else _read(place, say)
    kept = [document for document in found if document.text.strip()]
    if not kept:
        raise UsageError(f"{place} holds no text", hint="name a place that does, or leave it out")
    return kept


def _stored(place: Path) -> Iterator[Document]:
    with Store.open(place, create=False) as store:
        for known in store.sources():
            yield store.document(known.source)


def _read(place: Path, say: Say) -> Iterator[Document]:
    failed: list[Failure] = []
    for finding in find_documents([place]):
        if isinstance(finding, Failure):
            failed.append(finding)
        elif isinstance(finding, Found):
            try:
                yield from read_document(finding.path, source=finding.source)
            except DocumentError as error:
                failed.append(Failure(finding.source, error.message))
    if failed:
        told = "; ".join(f"{one.path}: {one.reason}" for one in failed[:SHOWN])
        more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        say(f"left out of {place}, as it cannot be read: {told}{more}")


def key_of(document: Document) -> str:
    """A digest that documents of one text share."""
    return hashlib.sha256(document.text.strip().encode(errors="replace")).hexdigest()


def _is_held_out(document: Document, share: float, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}:{key_of(document)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def passages_of(documents: Sequence[Document], *, limit: int | None = None) -> list[Example]:
    """Documents cut into passages, as examples.

    Args:
        documents: In their order.
        limit: At most so many passages, spread over all documents; None for all.
    """
    found = [
        Example(question="", answer="", plain=PlainText(text, document.title, key_of(document)))
        for document in documents
        for span in split_passages(document.text)
        if (text := document.text[span.start : span.end])
    ]
    if limit is None or len(found) <= limit:
        return found
    return [found[place * len(found) // limit] for place in range(limit)]
