"""Decoding: every way of writing an answer from the sum.

Names are handed on lazily: options can be made without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.model.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from consilience.model.decoding.answers import decode, search_answers
    from consilience.model.decoding.result import Decoded, Finished, pad_answers
    from consilience.model.decoding.streaming import Streams, Written, stream
    from consilience.model.decoding.thorough import Proposal, score_answers, score_proposals

__all__ = [
    "Decoded",
    "DecodingOptions",
    "Finished",
    "Proposal",
    "Streams",
    "Written",
    "decode",
    "pad_answers",
    "score_answers",
    "score_proposals",
    "search_answers",
    "stream",
]

_FILES = {
    "Decoded": "result",
    "Finished": "result",
    "Proposal": "thorough",
    "Streams": "streaming",
    "Written": "streaming",
    "decode": "answers",
    "pad_answers": "result",
    "score_answers": "thorough",
    "score_proposals": "thorough",
    "search_answers": "answers",
    "stream": "streaming",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.model.decoding.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.model.decoding' has no attribute {name!r}")
