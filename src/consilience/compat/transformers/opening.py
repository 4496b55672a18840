"""Which index a retriever gets: what it is given, what its checkpoint holds, what a path names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import RagConfig

from consilience.compat.faiss_files import FaissFile
from consilience.compat.transformers.indexes import (
    DatasetIndex,
    Index,
    PassageIndex,
    faiss,
    read_passages,
)
from consilience.errors import DamagedError, DependencyError, MissingError, UsageError


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller brings along; at most one of the first three.

    Attributes:
        passages: Mappings or a table with `title`, `text` and `embeddings`.
        dataset: A `datasets.Dataset` with an index on its column `embeddings`.
        index: An index.
        by_path: Whether the path in the configuration goes before what the checkpoint holds.
    """

    passages: Any = None
    dataset: Any = None
    index: Index | None = None
    by_path: bool = False


def keeps_old_habits(config: RagConfig) -> bool:
    """Whether everything is to be as in transformers, faults included; the default here."""
    return bool(getattr(config, "hf_compat", True))


def open_index(config: RagConfig, saved: Path | None, given: Given) -> Index:
    """The index of a retriever.

    Args:
        config: Whose `passages_path` and `index_path` count when nothing else is there.
        saved: Where the checkpoint would have its passages.
        given: What the caller brings.

    Raises:
        UsageError: There is nothing, or only the name of an index that cannot be loaded any more.
        MissingError: A path that is not there.
        DependencyError: A dataset on disk, and no package to read it.
    """
    if given.index is not None:
        return given.index
    if given.dataset is not None:
        return DatasetIndex(given.dataset)
    if given.passages is not None:
        return PassageIndex.of(given.passages)
    if saved is not None and saved.is_dir() and not given.by_path:
        return PassageIndex.load(saved)
    if config.passages_path is not None:
        return _at(Path(config.passages_path), config.index_path)
    raise UsageError(
        f"the retriever has no passages: index_name={config.index_name!r} stands for "
        f"{config.dataset}, which the package datasets cannot load any more",
        hint='pass passages=[{"title": …, "text": …, "embeddings": …}], indexed_dataset=…, '
        'or index_name="custom" with passages_path=…',
    )


def _at(path: Path, index_path: str | None) -> Index:
    if path.is_file():
        return _lines(path, index_path)
    if (path / "dataset_info.json").is_file():
        return _dataset(path, index_path)
    if path.is_dir():
        return PassageIndex.load(path)
    raise MissingError(
        f"no passages at {path}",
        hint="name a JSON Lines file with title, text and embeddings, a folder that "
        "RagRetriever.save_pretrained wrote, or a dataset that save_to_disk wrote",
    )


def _lines(path: Path, index_path: str | None) -> PassageIndex:
    """Passages as JSON lines, with `embeddings` in them or in a file of faiss."""
    rows = read_passages(path)
    if index_path is None:
        return PassageIndex.of(rows)
    vectors = _vectors_of(Path(index_path))
    if len(vectors) != len(rows):
        raise DamagedError(
            f"{path} has {len(rows)} passages, {index_path} has {len(vectors)} vectors",
            hint="build the index again from these passages",
        )
    return PassageIndex([row["title"] for row in rows], [row["text"] for row in rows], vectors)


def _vectors_of(path: Path) -> Any:
    file = FaissFile(path)
    return file.rows(0, len(file))


def _dataset(path: Path, index_path: str | None) -> DatasetIndex:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise DependencyError(
            f"{path} is a dataset on disk, and the package datasets is not installed",
            hint="pip install 'consilience[datasets]'",
        ) from error
    dataset = load_from_disk(str(path))
    if index_path is None:
        dataset.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    else:
        dataset.load_faiss_index("embeddings", index_path)
    return DatasetIndex(dataset)
