"""Vectors for passages: what the encoder is given, which encoder may be asked, what is kept.

A vector depends on the encoder and on the text it was given and on nothing else, so both together
are its key. What is stored or staged under that key is never embedded again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import apsw
import numpy as np
from numpy.typing import NDArray

from consilience.encoding import Encoder, Vectors
from consilience.errors import FingerprintError, UsageError
from consilience.store.connection import Database, read_meta

Content = bytes
"""The digest of a text that is embedded: 16 bytes."""


class Fingerprinted(Protocol):
    """What has vectors of one encoder at a place that a command can name."""

    @property
    def path(self) -> Path:
        """The folder of the store."""
        ...

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint; empty while nothing was embedded."""
        ...


def require_fingerprint(store: Fingerprinted, encoder: Encoder) -> None:
    """Refuse an encoder whose vectors cannot be compared with those of the store.

    Raises:
        FingerprintError: The store's vectors are another encoder's.
    """
    require_same(store.path, store.fingerprint, encoder.fingerprint)


def require_same(folder: Path, recorded: str, received: str) -> None:
    """As `require_fingerprint`, on the fingerprints themselves; an empty one fits any.

    Raises:
        FingerprintError: They differ.
    """
    if recorded and received and recorded != received:
        raise FingerprintError(
            f"the vectors of the store at {folder} are from encoder {recorded[:16]}, "
            f"received encoder {received[:16]}",
            hint=f"consilience add --re-embed --store {folder}",
        )


def embedding_text(title: str, text: str) -> str:
    """What the encoder is given for a passage: its document's title, then the passage."""
    return f"{title}\n{text}" if title else text


def content_of(text: str) -> Content:
    """The digest of a text that is embedded."""
    return hashlib.sha256(text.encode()).digest()[:16]


def embed(encoder: Encoder, texts: Sequence[str]) -> list[bytes]:
    """One vector per text, as the fp16 bytes that the store keeps.

    Raises:
        UsageError: The encoder broke its protocol: shape or values.
    """
    vectors = encoder.encode_passages(texts)
    halves = _halves(vectors)
    if vectors.shape != (len(texts), encoder.dimension) or not np.isfinite(halves).all():
        raise UsageError(
            f"encoder {encoder.fingerprint[:16]} returned shape {vectors.shape} or values that are "
            f"not finite for {len(texts)} passages; expected ({len(texts)}, {encoder.dimension})",
            hint="Check the encoder's encode_passages.",
        )
    return [row.tobytes() for row in halves]


def _halves(vectors: Vectors) -> NDArray[np.float16]:
    """In half precision, in which what it cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(vectors, dtype="<f2")


def as_kept(texts: Sequence[str], vectors: Vectors, *, dimension: int) -> dict[Content, bytes]:
    """Vectors that came from elsewhere as the store keeps them.

    Args:
        texts: That they were made of.
        vectors: `[texts, dimension]`.
        dimension: Of the store's own; 0 where it has none yet.

    Raises:
        UsageError: They are not as many, of another dimension, or not finite in half precision.
    """
    found = np.asarray(vectors)
    wanted = dimension or (found.shape[1] if found.ndim == 2 else 0)
    halves = _halves(found)
    if found.shape != (len(texts), wanted) or not wanted or not np.isfinite(halves).all():
        raise UsageError(
            f"received vectors of shape {found.shape}, or values that are not finite, for "
            f"{len(texts)} texts; expected ({len(texts)}, {wanted or 'dimension'})",
            hint="give one vector of finite numbers for each text",
        )
    return {content_of(text): row.tobytes() for text, row in zip(texts, halves, strict=True)}


def known_vectors(
    database: Database, contents: Iterable[Content], *, fingerprint: str
) -> dict[Content, bytes]:
    """Those of the vectors asked for that were computed before: committed, or staged."""
    keys = tuple(set(contents))
    if not fingerprint or not keys:
        return {}
    with database.translated():
        return dict(_known_rows(database.connection, keys, fingerprint))


def _known_rows(
    connection: apsw.Connection, keys: tuple[Content, ...], fingerprint: str
) -> Iterator[tuple[Content, bytes]]:
    wanted = apsw.carray(keys)
    yield from connection.execute(
        "SELECT content, vector FROM staged WHERE fingerprint = ?1 AND content IN carray(?2)",
        (fingerprint, wanted),
    )
    if read_meta(connection, "fingerprint") == fingerprint:
        yield from connection.execute(
            "SELECT content, vector FROM passages WHERE content IN carray(?1)", (wanted,)
        )
