"""The model: priors, the sum, decoding, and the `Rag` that is loaded, asked and saved."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.model.answer import (
    Alternative,
    Answer,
    Citation,
    Piece,
    Quote,
    TokenPosterior,
)
from consilience.questions import Turn

if TYPE_CHECKING:
    from consilience.model.asking import AskOptions
    from consilience.model.attention_fusion import AttentionFusion
    from consilience.model.averaging import RankWeights
    from consilience.model.loading import Settings
    from consilience.model.rag import Rag
    from consilience.model.rag_model import RagModel, RagOutput
    from consilience.model.remote import RemoteAnswer, RemoteOptions, answer_remotely
    from consilience.model.text_encoder import TextEncoder
    from consilience.model.vectors import CompactVectors, PooledEncoder, VectorEncoder

__all__ = [
    "Alternative",
    "Answer",
    "AskOptions",
    "AttentionFusion",
    "Citation",
    "CompactVectors",
    "Piece",
    "PooledEncoder",
    "Quote",
    "Rag",
    "RagModel",
    "RagOutput",
    "RankWeights",
    "RemoteAnswer",
    "RemoteOptions",
    "Settings",
    "TextEncoder",
    "TokenPosterior",
    "Turn",
    "VectorEncoder",
    "answer_remotely",
]

_FILES = {
    "AskOptions": "asking",
    "AttentionFusion": "attention_fusion",
    "CompactVectors": "vectors",
    "PooledEncoder": "vectors",
    "Rag": "rag",
    "RagModel": "rag_model",
    "RagOutput": "rag_model",
    "RankWeights": "averaging",
    "RemoteAnswer": "remote",
    "RemoteOptions": "remote",
    "Settings": "loading",
    "TextEncoder": "text_encoder",
    "VectorEncoder": "vectors",
    "answer_remotely": "remote",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.model.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.model' has no attribute {name!r}")
