"""Generators: distributions over the next token, given a question and one passage.

Names that need torch are handed on lazily.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.generation.base import (
    Generator,
    NextToken,
    Pair,
    Stretch,
    TokenRows,
    TrainableGenerator,
)

if TYPE_CHECKING:
    from consilience.generation.compact import CompactGenerator

__all__ = [
    "CompactGenerator",
    "Generator",
    "NextToken",
    "Pair",
    "Stretch",
    "TokenRows",
    "TrainableGenerator",
]


def __getattr__(name: str) -> Any:
    if name == "CompactGenerator":
        return getattr(import_module("consilience.generation.compact"), name)
    raise AttributeError(f"module 'consilience.generation' has no attribute {name!r}")
