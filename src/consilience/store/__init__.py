"""The knowledge base on disk: documents, passages and vectors, changed all or nothing."""

from consilience.store.access import visible
from consilience.store.base import (
    AddInterruptedError,
    AddOptions,
    AddReport,
    Changes,
    EmbedReport,
    IndexRow,
    Problem,
    Progress,
    Record,
    RemoveReport,
    SourceInfo,
    Stats,
    VectorRows,
)
from consilience.store.embedding import require_fingerprint
from consilience.store.origins import NamedFile
from consilience.store.store import Store
from consilience.store.where import Where

__all__ = [
    "AddInterruptedError",
    "AddOptions",
    "AddReport",
    "Changes",
    "EmbedReport",
    "IndexRow",
    "NamedFile",
    "Problem",
    "Progress",
    "Record",
    "RemoveReport",
    "SourceInfo",
    "Stats",
    "Store",
    "VectorRows",
    "Where",
    "require_fingerprint",
    "visible",
]
