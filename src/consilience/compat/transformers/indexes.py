"""Where the passages are: an index answers vectors with the numbers and vectors of the nearest.

Every index has the two methods that transformers' own have, so one written for that library works
here. All searches are exact inner products. A place for which there is no passage left has the
number -1 and a vector of zeros; what to make of it is the retriever's affair.

Dimensions: `b` questions, `k` passages a question, `n` passages in all, `d` size of a vector.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from consilience.errors import DamagedError, MissingError, UsageError

faiss: Any = _faiss  # its stubs give the C++ signatures, not those of its Python classes

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

TEXTS, VECTORS = "passages.jsonl", "vectors.safetensors"


class Index(Protocol):
    """What a retriever needs of an index; as `Index` of transformers."""

    def get_top_docs(
        self, question_hidden_states: Vectors, n_docs: int = 5
    ) -> tuple[Numbers, Vectors]:
        """Numbers `[b, k]` and vectors `[b, k, d]` of the nearest passages, nearest first."""
        ...

    def get_doc_dicts(self, doc_ids: Numbers) -> list[dict[str, Any]]:
        """For each row of `[b, k]` numbers, the columns `title` and `text` of its passages."""
        ...


@dataclass(frozen=True, slots=True)
class PassageIndex:
    """Passages in memory, numbered from 0.

    Attributes:
        titles: `n` of them.
        texts: `n` of them.
        vectors: `[n, d]`.
    """

    titles: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors

    @classmethod
    def of(cls, passages: Any) -> "PassageIndex":
        """From passages with `title`, `text` and `embeddings`: a list of mappings, or a table.

        Raises:
            UsageError: One lacks a field, or the vectors differ in size.
        """
        rows = passages.to_dict("records") if hasattr(passages, "to_dict") else list(passages)
        for number, row in enumerate(rows):
            _require_fields(number, row)
        sizes = sorted({len(row["embeddings"]) for row in rows})
        if len(sizes) != 1:
            raise UsageError(
                f"the passages have vectors of {len(sizes)} sizes: {sizes}",
                hint="embed all of them with one encoder; at least one passage is needed",
            )
        vectors = np.array([row["embeddings"] for row in rows], np.float32)
        return cls([row["title"] for row in rows], [row["text"] for row in rows], vectors)

    @classmethod
    def load(cls, folder: Path) -> "PassageIndex":
        """Read what `save` wrote.

        Raises:
            MissingError: A file is not there.
            DamagedError: Texts and vectors are not as many, or a line is not JSON.
        """
        for name in (TEXTS, VECTORS):
            if not (folder / name).is_file():
                raise MissingError(f"no {name} in {folder}", hint="save the retriever again")
        rows = read_passages(folder / TEXTS)
        vectors = np.ascontiguousarray(load_file(folder / VECTORS)["vectors"], np.float32)
        if len(rows) != len(vectors):
            raise DamagedError(
                f"{folder} has {len(rows)} passages and {len(vectors)} vectors",
                hint="save the retriever again",
            )
        return cls([row["title"] for row in rows], [row["text"] for row in rows], vectors)

    def save(self, folder: Path) -> None:
        """Write texts as JSON lines and vectors as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        pairs = zip(self.titles, self.texts, strict=True)
        lines = [json.dumps({"title": t, "text": p}, ensure_ascii=False) + "\n" for t, p in pairs]
        (folder / TEXTS).write_text("".join(lines), encoding="utf-8")
        save_file({"vectors": np.ascontiguousarray(self.vectors)}, folder / VECTORS)

    def get_top_docs(
        self, question_hidden_states: Vectors, n_docs: int = 5
    ) -> tuple[Numbers, Vectors]:
        """As `Index`."""
        return nearest(question_hidden_states, self.vectors, n_docs)

    def get_doc_dicts(self, doc_ids: Numbers) -> list[dict[str, Any]]:
        """As `Index`; -1 is the last passage, as in any sequence."""
        return [
            {"title": [self.titles[i] for i in row], "text": [self.texts[i] for i in row]}
            for row in doc_ids.tolist()
        ]


class DatasetIndex:
    """A `datasets.Dataset` with an index on its column `embeddings`, as transformers takes one.

    Args:
        dataset: With columns `title`, `text` and `embeddings`.

    Raises:
        UsageError: The dataset cannot be searched by `embeddings`.
    """

    def __init__(self, dataset: Any) -> None:
        if "embeddings" not in getattr(dataset, "list_indexes", list)():
            raise UsageError(
                f"the {type(dataset).__name__} has no index on its column 'embeddings'",
                hint="dataset.add_faiss_index('embeddings'), or pass passages=[…] with "
                "title, text and embeddings",
            )
        self.dataset = dataset

    def get_top_docs(
        self, question_hidden_states: Vectors, n_docs: int = 5
    ) -> tuple[Numbers, Vectors]:
        """As `Index`."""
        found = self.dataset.search_batch("embeddings", question_hidden_states, n_docs)[1]
        numbers = np.full((len(found), n_docs), -1, np.int64)
        for row, ids in zip(numbers, found, strict=True):
            row[: len(ids)] = ids
        return numbers, self._vectors(numbers)

    def _vectors(self, numbers: Numbers) -> Vectors:
        column = self.dataset[numbers.clip(0).ravel().tolist()]["embeddings"]
        vectors = np.asarray(column, np.float32).reshape(*numbers.shape, -1)
        vectors[numbers < 0] = 0.0
        return vectors

    def get_doc_dicts(self, doc_ids: Numbers) -> list[dict[str, Any]]:
        """As `Index`; -1 is the last passage."""
        return [self._columns((row % len(self.dataset)).tolist()) for row in doc_ids]

    def _columns(self, numbers: list[int]) -> dict[str, Any]:
        rows = self.dataset[numbers]
        return {"title": list(rows["title"]), "text": list(rows["text"])}

    def to_passages(self) -> PassageIndex:
        """All of it in memory, for saving beside a checkpoint."""
        rows = self.dataset[list(range(len(self.dataset)))]
        vectors = np.asarray(rows["embeddings"], np.float32)
        return PassageIndex(list(rows["title"]), list(rows["text"]), vectors)


def nearest(questions: Vectors, vectors: Vectors, k: int) -> tuple[Numbers, Vectors]:
    """Exact search by inner product.

    Args:
        questions: `[b, d]`.
        vectors: `[n, d]`.
        k: How many for each question.

    Returns:
        Rows of `vectors`, `[b, k]`, -1 where there are none left, and the vectors, `[b, k, d]`.

    Raises:
        UsageError: The sizes differ.
    """
    if questions.shape[-1] != vectors.shape[-1]:
        raise UsageError(
            f"the question's vector has size {questions.shape[-1]}, "
            f"those of the passages have {vectors.shape[-1]}",
            hint="embed the passages with the encoder that belongs to the question encoder",
        )
    asked = np.ascontiguousarray(questions, np.float32)
    _, places = faiss.knn(asked, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    found = np.where((places < 0)[..., None], np.float32(0.0), vectors[places])
    return places, found


def _require_fields(number: int, row: Mapping[str, Any]) -> None:
    lacking = [name for name in ("title", "text", "embeddings") if row.get(name) is None]
    if lacking:
        raise UsageError(
            f"passage {number} lacks {', '.join(lacking)}",
            hint='write each as {"title": "…", "text": "…", "embeddings": […]}',
        )


def read_passages(path: Path) -> list[dict[str, Any]]:
    """JSON lines with `title` and `text`, and maybe more.

    Raises:
        DamagedError: A line is not JSON or lacks one of the two.
    """
    # Not splitlines: a passage may hold any of the characters that Unicode ends lines with.
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_row(line, path, number) for number, line in enumerate(lines, 1) if line]


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    hint = 'write each line as {"title": "…", "text": "…"}'
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DamagedError(f"{path}, line {number}: not JSON: {error}", hint=hint) from error
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("title", "text")):
        raise DamagedError(f"{path}, line {number}: no title or no text: {line[:60]}", hint=hint)
    return row
