"""Tables of passages as people have them, with their vectors, taken into a store.

    wiki_dpr and its like     Parquet files, or a folder of them: title, text, embeddings
    datasets.save_to_disk     a folder with Arrow files and state.json
    psgs_w100.tsv             id, text, title; vectors from a file of faiss, or none

Vectors are taken as they are: what has one is not embedded again. Whether they are of the encoder
that the store asks with is looked at on the first rows, because nothing else would tell. A table is
read in blocks, one commit each, so that memory stays small and an interrupted call goes on.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilience.compat.faiss_files import FaissFile
from consilience.documents import Passage
from consilience.encoding import Encoder
from consilience.errors import DamagedError, DependencyError, FingerprintError, MissingError
from consilience.store import AddOptions, AddReport, Store
from consilience.store.embedding import embedding_text

BLOCK = 1000
"""Rows of one commit."""

LOOKED_AT = 8
"""Rows whose vectors are compared with the encoder's."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a table.

    Attributes:
        start: Number of the first.
        titles: One a row.
        texts: One a row.
        vectors: `[rows, dimension]`; None where the table has none.
    """

    start: int
    titles: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors | None = None


def add_table(
    store: Store,
    path: str | Path,
    *,
    encoder: Encoder,
    index: str | Path | None = None,
    options: AddOptions | None = None,
) -> AddReport:
    """Add a table of passages to a store, with the vectors that it has.

    Args:
        store: Opened with the same encoder.
        path: A `.parquet`, `.arrow` or `.tsv` file, a folder of Parquet files, or a folder that
            `datasets.Dataset.save_to_disk` wrote. Columns `title` and `text`, and `embeddings`
            where the vectors are in it.
        encoder: That made the vectors, and will embed questions.
        index: A file of faiss with a vector for each row, in their order.
        options: Labels and the like.

    Returns:
        What became of each block, by the name `FILE#first-last`; blocks that the store has already
        are `unchanged`.

    Raises:
        MissingError: There is no such table or index.
        DamagedError: A column is missing, or there are not as many vectors as rows.
        FingerprintError: The vectors are of another encoder.
        DependencyError: pyarrow is not installed.
    """
    path, total = Path(path), AddReport()
    file = None if index is None else FaissFile(Path(index))
    rows = 0
    for block in read_blocks(path):
        block = block if file is None else _with_vectors(block, file)
        if block.start == 0 and block.vectors is not None:
            _require_of(encoder, block, path)
        total = _collected(total, _add_block(store, path, block, encoder, options))
        rows = block.start + len(block.texts)
        if total.cancelled:
            return total
    if file is not None and rows != len(file):
        raise DamagedError(
            f"{path} has {rows} passages, {file.path} has {len(file)} vectors",
            hint="build the index again from these passages",
        )
    return total


def read_blocks(path: Path, *, size: int = BLOCK) -> Iterator[Block]:
    """The rows of a table, `size` at a time; raises as `add_table`."""
    if not path.exists():
        raise MissingError(f"no table at {path}", hint="name a .parquet, .arrow or .tsv file")
    if path.suffix == ".tsv":
        yield from _tsv(path, size)
        return
    start = 0
    for table in _tables(path, size):
        block = _block(table, start, path)
        yield block
        start += len(block.texts)


def _add_block(
    store: Store, path: Path, block: Block, encoder: Encoder, options: AddOptions | None
) -> AddReport:
    name = f"{path.name}#{block.start}-{block.start + len(block.texts) - 1}"
    rows = zip(block.titles, block.texts, strict=True)
    passages = [
        Passage(str(block.start + place), text, title, name, None, 0, len(text))
        for place, (title, text) in enumerate(rows)
    ]
    if block.vectors is not None and not store.stamp(name):
        texts = [embedding_text(one.title, one.text) for one in passages]
        store.give_vectors(texts, block.vectors, fingerprint=encoder.fingerprint)
    return store.add(passages, options=options)


def _collected(total: AddReport, one: AddReport) -> AddReport:
    return replace(
        one,
        added=[*total.added, *one.added],
        updated=[*total.updated, *one.updated],
        unchanged=[*total.unchanged, *one.unchanged],
        failed=[*total.failed, *one.failed],
        passages=total.passages + one.passages,
        embedded=total.embedded + one.embedded,
    )


def _with_vectors(block: Block, file: FaissFile) -> Block:
    stop = block.start + len(block.texts)
    if stop > len(file):
        raise DamagedError(
            f"the table has more than {block.start} passages, {file.path} has {len(file)} vectors",
            hint="build the index again from these passages",
        )
    return Block(block.start, block.titles, block.texts, file.rows(block.start, stop))


def _require_of(encoder: Encoder, block: Block, path: Path) -> None:
    """Refuse vectors that lie nowhere near those which the encoder makes of the same texts."""
    assert block.vectors is not None
    given = block.vectors[:LOOKED_AT]
    texts = [embedding_text(*pair) for pair in zip(block.titles, block.texts, strict=True)]
    made = encoder.encode_passages(texts[:LOOKED_AT])
    if given.shape[1] != made.shape[1]:
        raise FingerprintError(
            f"{path} has vectors of {given.shape[1]} numbers, the encoder makes {made.shape[1]}",
            hint="open the store with the encoder that made the table",
        )
    # Precision, library and the cut at the window may differ: the nearest must be the same text.
    nearest = (_unit(given) @ _unit(made).T).argmax(1)
    alike = {text: place for place, text in reversed(list(enumerate(texts[:LOOKED_AT])))}
    right = sum(alike[texts[n]] == alike[texts[i]] for i, n in enumerate(nearest.tolist()))
    if right <= len(given) // 2:
        raise FingerprintError(
            f"{path}: of the first {len(given)} vectors {right} are nearest to what encoder "
            f"{encoder.fingerprint[:16]} makes of the same text",
            hint="open the store with the encoder that made the table",
        )


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.maximum(lengths, 1e-12)
    return found


def _tsv(path: Path, size: int) -> Iterator[Block]:
    """DPR's own table: a head line, then id, text in quotes, title."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t")
        if not {"text", "title"} <= set(lines.fieldnames or ()):
            raise _without_columns(path, lines.fieldnames or ())
        start = 0
        while rows := list(islice(lines, size)):
            titles = [str(row["title"] or "") for row in rows]
            yield Block(start, titles, [str(row["text"] or "") for row in rows])
            start += len(rows)


def _tables(path: Path, size: int) -> Iterator[Any]:
    """Record batches of Arrow, in the order of the rows."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError(
            "tables need the package pyarrow", hint="pip install 'consilience[tables]'"
        ) from error
    try:
        for file in _files(path):
            if file.suffix == ".parquet":
                yield from pyarrow.parquet.ParquetFile(file).iter_batches(size)
            else:
                for batch in _arrow(pyarrow, file):
                    yield from (batch.slice(at, size) for at in range(0, len(batch), size))
    except pyarrow.ArrowException as error:
        raise DamagedError(
            f"{path} cannot be read: {' '.join(str(error).split())[:200]}",
            hint="download or write it again",
        ) from error


def _files(path: Path) -> list[Path]:
    """The files of a table, in order."""
    if path.is_file():
        return [path]
    state = path / "state.json"
    if state.is_file():
        return [path / Path(one["filename"]).name for one in _state(state)]
    found = sorted(path.glob("*.parquet"))
    if not found:
        raise MissingError(
            f"no table in the folder {path}",
            hint="it should hold Parquet files, or be what save_to_disk wrote",
        )
    return found


def _state(path: Path) -> list[dict[str, str]]:
    try:
        found: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))["_data_files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} names no data files", hint="write it again with save_to_disk"
        ) from error
    return found


def _arrow(pyarrow: Any, file: Path) -> Iterator[Any]:
    """Batches of an Arrow file of either form; `datasets` writes streams."""
    with pyarrow.memory_map(str(file)) as source:
        try:
            reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            opened = pyarrow.ipc.open_file(source)
            yield from (opened.get_batch(place) for place in range(opened.num_record_batches))
        else:
            yield from reader


def _block(batch: Any, start: int, path: Path) -> Block:
    names = batch.schema.names
    if not {"text", "title"} <= set(names):
        raise _without_columns(path, names)
    titles, texts = (
        [value or "" for value in batch.column(name).to_pylist()] for name in ("title", "text")
    )
    vectors = _column(batch.column("embeddings"), path) if "embeddings" in names else None
    return Block(start, titles, texts, vectors)


def _column(column: Any, path: Path) -> Vectors:
    """Lists of one length as rows."""
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    dimension = len(flat) // max(1, len(column))
    lengths = set(column.value_lengths().to_pylist()) if hasattr(column, "value_lengths") else set()
    if column.null_count or lengths - {dimension} or dimension * len(column) != len(flat):
        raise DamagedError(
            f"{path} has embeddings that are missing or of several sizes",
            hint="embed all passages with one encoder",
        )
    return flat.reshape(len(column), dimension)


def _without_columns(path: Path, found: Sequence[str]) -> DamagedError:
    return DamagedError(
        f"{path} has the columns {', '.join(found) or 'none'}",
        hint="a table of passages has title and text, and embeddings where it has vectors",
    )
