"""Generators: distributions over the next token, given a question and one passage.

Names that need torch are handed on lazily.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.generation.base import (
    Asked,
    Asking,
    Bounded,
    Ends,
    Generator,
    Joining,
    NextToken,
    Pair,
    Quoting,
    Shrinking,
    Stretch,
    TokenRows,
    TrainableGenerator,
)

if TYPE_CHECKING:
    from consilience.generation.causal import CausalGenerator
    from consilience.generation.compact import CompactGenerator
    from consilience.generation.endpoint import Endpoint, Limits
    from consilience.generation.remote import RemoteGenerator, Writing
    from consilience.generation.seq2seq import Seq2SeqGenerator

__all__ = [
    "Asked",
    "Asking",
    "Bounded",
    "CausalGenerator",
    "CompactGenerator",
    "Endpoint",
    "Ends",
    "Generator",
    "Joining",
    "Limits",
    "NextToken",
    "Pair",
    "Quoting",
    "RemoteGenerator",
    "Seq2SeqGenerator",
    "Shrinking",
    "Stretch",
    "TokenRows",
    "TrainableGenerator",
    "Writing",
]


_LATER = {
    "CausalGenerator": "consilience.generation.causal",
    "CompactGenerator": "consilience.generation.compact",
    "Endpoint": "consilience.generation.endpoint",
    "Limits": "consilience.generation.endpoint",
    "RemoteGenerator": "consilience.generation.remote",
    "Seq2SeqGenerator": "consilience.generation.seq2seq",
    "Writing": "consilience.generation.remote",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'consilience.generation' has no attribute {name!r}")
