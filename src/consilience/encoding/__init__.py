"""Text to vectors: the encoder protocol and the encoder that ships.

Names that need torch are handed on lazily.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.encoding.base import Encoder, Side, TokenEncoder, TokenVectors, Vectors
from consilience.encoding.together import QuestionVectors

if TYPE_CHECKING:
    from consilience.encoding.compact import CompactEncoder, load_encoder

__all__ = [
    "CompactEncoder",
    "Encoder",
    "QuestionVectors",
    "Side",
    "TokenEncoder",
    "TokenVectors",
    "Vectors",
    "load_encoder",
]


def __getattr__(name: str) -> Any:
    if name in {"CompactEncoder", "load_encoder"}:
        return getattr(import_module("consilience.encoding.compact"), name)
    raise AttributeError(f"module 'consilience.encoding' has no attribute {name!r}")
