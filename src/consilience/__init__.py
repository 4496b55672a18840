"""Consilience: train, federate, explain and serve retrieval-augmented generation models.

One idea carries the whole package: `p(y | x) = sum over passages d of p(d | x) p(y | x, d)`.
Names are handed on lazily, so that `import consilience` loads neither torch nor an index engine.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.version import __version__

# OpenMP's threads spin while they wait, unless told otherwise before torch is loaded. Where
# anything else runs on the machine, an answer then takes twenty times longer (decision 0013).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Linux hands out large tensors in pages of 4 kB, each with a fault, unless torch asks for large
# ones. A fresh tensor of 32 MB is then written five times faster (decision 0015).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# oneDNN compiles a product for each shape and keeps the last 1,024 of them. Answers meet more
# shapes than that, and gain nothing from those of long ago (decision 0032).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

if TYPE_CHECKING:
    from consilience.documents import Document, Passage
    from consilience.errors import ConsilienceError
    from consilience.evaluation import evaluate
    from consilience.model import Answer, Rag, RagModel
    from consilience.store import Store

__all__ = [
    "Answer",
    "ConsilienceError",
    "Document",
    "Passage",
    "Rag",
    "RagModel",
    "Store",
    "__version__",
    "evaluate",
]

_ROOMS = {
    "Answer": "consilience.model",
    "ConsilienceError": "consilience.errors",
    "Document": "consilience.documents",
    "Passage": "consilience.documents",
    "Rag": "consilience.model",
    "RagModel": "consilience.model",
    "Store": "consilience.store",
    "evaluate": "consilience.evaluation",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'consilience' has no attribute {name!r}")
