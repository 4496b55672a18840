"""transformers' own retriever, which refuses to be made without the package `datasets`."""

from typing import Any

import pytest
from transformers import RagConfig
from transformers.models.rag import retrieval_rag

from consilience.compat.transformers import PassageIndex
from tests.compat.tiny_rag import passages, tokenizer


class LoadedIndex(PassageIndex):
    """An index of ours with the one method that transformers wants besides."""

    def init_index(self) -> None:
        """Nothing is left to load."""


def their_retriever(
    config: RagConfig, patch: pytest.MonkeyPatch, *, kind: str = "bart", docs: Any = None
) -> retrieval_rag.RagRetriever:
    """Over the same passages as ours."""
    patch.setattr(retrieval_rag, "requires_backends", lambda *_: None)
    index = LoadedIndex.of(passages() if docs is None else docs)
    return retrieval_rag.RagRetriever(config, tokenizer("bert"), tokenizer(kind), index=index)
