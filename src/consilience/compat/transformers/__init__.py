"""transformers' RAG classes, name for name: change one import and a program goes on working.

    from consilience.compat.transformers import RagRetriever, RagTokenForGeneration, RagTokenizer

With `hf_compat=True`, the default here, losses, gradients and answers are those of transformers
5.23. With `hf_compat=False` its known faults are put right. Arguments and attributes are the same
either way; `docs/transformers.md` lists what differs.
"""

from transformers import BatchEncoding, RagConfig
from transformers.models.rag.modeling_rag import RetrievAugLMMarginOutput, RetrievAugLMOutput

from consilience.compat.transformers.generating import RagGenerateOutput
from consilience.compat.transformers.indexes import DatasetIndex, Index, PassageIndex
from consilience.compat.transformers.model import RagModel
from consilience.compat.transformers.retriever import RagRetriever
from consilience.compat.transformers.store_index import StoreIndex, passage_embedder
from consilience.compat.transformers.summing import RagSequenceForGeneration, RagTokenForGeneration
from consilience.compat.transformers.tokenizer import RagTokenizer

__all__ = [
    "BatchEncoding",
    "DatasetIndex",
    "Index",
    "PassageIndex",
    "RagConfig",
    "RagGenerateOutput",
    "RagModel",
    "RagRetriever",
    "RagSequenceForGeneration",
    "RagTokenForGeneration",
    "RagTokenizer",
    "RetrievAugLMMarginOutput",
    "RetrievAugLMOutput",
    "StoreIndex",
    "passage_embedder",
]
