"""The model: priors, the sum, decoding, and the `Rag` that is loaded, asked and saved."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.model.answer import Answer, Citation, Quote, TokenPosterior

if TYPE_CHECKING:
    from consilience.model.rag import AskOptions, Rag, Turn
    from consilience.model.rag_model import RagModel, RagOutput

__all__ = [
    "Answer",
    "AskOptions",
    "Citation",
    "Quote",
    "Rag",
    "RagModel",
    "RagOutput",
    "TokenPosterior",
    "Turn",
]

_FILES = {
    "AskOptions": "rag",
    "Rag": "rag",
    "RagModel": "rag_model",
    "RagOutput": "rag_model",
    "Turn": "rag",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.model.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.model' has no attribute {name!r}")
