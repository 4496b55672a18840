"""`RagRetriever`: from a question's vector to the passages and the rows the generator reads.

It joins an index and two tokenizers. How passages are searched is the index's affair, how rows are
written and cut that of `contexts`; scores are computed by the model, which has the gradient.

With `hf_compat=False` a question that finds fewer passages than asked for has the number -1 at the
others, which the model gives no weight; where no question has one, the column is left out. With
`hf_compat=True` the last passage of the index stands there with a vector of zeros, as in
transformers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase, RagConfig

from consilience.compat.transformers.contexts import (
    Docs,
    context_heads,
    cut_on_the_right,
    joined,
    whole_questions,
)
from consilience.compat.transformers.indexes import (
    DatasetIndex,
    Index,
    Numbers,
    PassageIndex,
    Vectors,
)
from consilience.compat.transformers.opening import Given, keeps_old_habits, open_index
from consilience.compat.transformers.store_index import Embed, StoreIndex
from consilience.compat.transformers.tokenizer import RagTokenizer
from consilience.errors import MissingError, UsageError
from consilience.model.checkpoints import checkpoint_folder, read_config
from consilience.store import Store

SAVED = "passages"
"""The folder of a checkpoint in which a retriever keeps its passages."""

PASSAGE_TOKENIZER = "ctx_encoder_tokenizer"


class RagRetriever:
    """As transformers' class of that name, which cannot be used without the package `datasets`.

    Args:
        config: Of the whole model.
        question_encoder_tokenizer: Decodes the ids of questions.
        generator_tokenizer: Writes the rows that the generator reads.
        index: Where the passages are.
        init_retrieval: Whether an index that has `init_index` is told to load itself now.
        passages: Instead of an index: mappings or a table with `title`, `text`, `embeddings`.

    Raises:
        UsageError: There are no passages, or they cannot be searched.
    """

    def __init__(
        self,
        config: RagConfig,
        question_encoder_tokenizer: PreTrainedTokenizerBase | None = None,
        generator_tokenizer: PreTrainedTokenizerBase | None = None,
        index: Index | None = None,
        init_retrieval: bool = True,
        *,
        passages: Any = None,
    ) -> None:
        self.config = config
        self.question_encoder_tokenizer = question_encoder_tokenizer
        self.generator_tokenizer = generator_tokenizer
        self.index = index or open_index(config, None, Given(passages=passages))
        self.n_docs, self.batch_size = config.n_docs, config.retrieval_batch_size
        self.ctx_encoder_tokenizer: PreTrainedTokenizerBase | None = None
        self.return_tokenized_docs = False
        if init_retrieval:
            self.init_retrieval()

    @classmethod
    def from_pretrained(
        cls,
        retriever_name_or_path: str | Path,
        indexed_dataset: Any = None,
        *,
        passages: Any = None,
        index: Index | None = None,
        config: RagConfig | None = None,
        **settings: Any,
    ) -> Self:
        """The retriever of a checkpoint.

        Its passages are, in this order: what is given here; those that `save_pretrained` put into
        the checkpoint; those at `passages_path` of the configuration.

        Args:
            retriever_name_or_path: A folder or a hub id.
            indexed_dataset: A `datasets.Dataset` with an index on its column `embeddings`.
            passages: Mappings or a table with `title`, `text` and `embeddings`.
            index: Any object with `get_top_docs` and `get_doc_dicts`.
            config: Instead of the checkpoint's.
            **settings: Change the configuration, such as `n_docs`, `passages_path`.

        Raises:
            MissingError: The checkpoint, its tokenizers or its passages are not there.
            UsageError: An index name that cannot be loaded any more, or an unknown setting.
        """
        folder = checkpoint_folder(retriever_name_or_path)
        config = changed(config or read_config(folder), settings)
        reading = RagTokenizer.from_pretrained(folder)
        given = Given(passages, indexed_dataset, index, by_path="passages_path" in settings)
        found = open_index(config, folder / SAVED, given)
        made = cls(config, reading.question_encoder, reading.generator, found)
        if (folder / PASSAGE_TOKENIZER).is_dir():
            made.set_ctx_encoder_tokenizer(
                AutoTokenizer.from_pretrained(folder / PASSAGE_TOKENIZER, trust_remote_code=False)
            )
        return made

    @classmethod
    def from_store(
        cls, store: Store, embed: Embed, *, config: RagConfig, tokenizer: RagTokenizer
    ) -> Self:
        """Retrieve from a store, which is followed from commit to commit.

        Args:
            store: Must stay open as long as the retriever is used. To honour access labels pass
                `index=StoreIndex(store, embed, access=…)` instead.
            embed: The encoder that belongs to the question encoder; see `passage_embedder`.
            config: Of the whole model.
            tokenizer: Both tokenizers.
        """
        index = StoreIndex(store, embed)
        return cls(config, tokenizer.question_encoder, tokenizer.generator, index)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write configuration, tokenizers and passages, so that `from_pretrained` needs no more.

        Passages of a store stay in their store, and those of an index of your own where that has
        them: name them again when loading.
        """
        folder = Path(save_directory)
        asking, writing = self._tokenizers()
        tokenizers: Any = RagTokenizer
        tokenizers(asking, writing).save_pretrained(folder)
        if self.ctx_encoder_tokenizer is not None:
            self.ctx_encoder_tokenizer.save_pretrained(folder / PASSAGE_TOKENIZER)
        index = self.index
        if isinstance(index, DatasetIndex):
            index = index.to_passages()
        if isinstance(index, PassageIndex):
            index.save(folder / SAVED)
        self.config.save_pretrained(folder)

    def init_retrieval(self) -> None:
        """Have an index that loads itself on demand do so now."""
        begin = getattr(self.index, "init_index", None)
        if begin is not None:
            begin()

    def set_ctx_encoder_tokenizer(self, ctx_encoder_tokenizer: PreTrainedTokenizerBase) -> None:
        """From now on hand out passages as ids, too, for a passage encoder that is trained."""
        self.ctx_encoder_tokenizer = ctx_encoder_tokenizer
        self.return_tokenized_docs = True

    def retrieve(
        self, question_hidden_states: Vectors, n_docs: int
    ) -> tuple[Vectors, Numbers, list[dict[str, Any]]]:
        """The nearest passages.

        Args:
            question_hidden_states: Vectors of questions, `[b, d]`.
            n_docs: How many for each, `k`.

        Returns:
            Their vectors `[b, k, d]`, their numbers `[b, k]`, and for each question the columns
            `title` and `text`. `k` is smaller where there are fewer, unless `hf_compat`.

        Raises:
            MissingError: There is no passage at all.
        """
        states, each = np.asarray(question_hidden_states), self.batch_size
        found = [
            self.index.get_top_docs(states[i : i + each], n_docs)
            for i in range(0, len(states), each)
        ]
        numbers = np.concatenate([np.asarray(ids) for ids, _ in found])
        vectors = np.concatenate([np.asarray(one) for _, one in found])
        if keeps_old_habits(self.config):
            return vectors, numbers, self.index.get_doc_dicts(numbers)
        return self._only_what_exists(vectors, numbers)

    def _only_what_exists(
        self, vectors: Vectors, numbers: Numbers
    ) -> tuple[Vectors, Numbers, list[dict[str, Any]]]:
        columns = (numbers >= 0).any(0)
        if not columns.any():
            raise MissingError(
                "the index has no passage to retrieve", hint="pass at least one passage"
            )
        vectors, numbers = vectors[:, columns], numbers[:, columns]
        docs = self.index.get_doc_dicts(numbers)
        return vectors, numbers, [_blank(one, ids) for one, ids in zip(docs, numbers, strict=True)]

    def postprocess_docs(
        self,
        docs: Docs,
        input_strings: Sequence[str],
        prefix: str | None,
        n_docs: int,
        return_tensors: str | None = None,
    ) -> tuple[Any, Any]:
        """The rows that the generator reads, question-major, as ids and mask.

        Args:
            docs: For each question, the columns `title` and `text`.
            input_strings: The questions.
            prefix: What every row begins with.
            n_docs: How many passages of each question are used.
            return_tensors: `pt`, `np` or None for lists.
        """
        config, writing = self.config, self._tokenizers()[1]
        rows = joined(context_heads(docs, prefix, config, n_docs), input_strings, config)
        length = config.max_combined_length
        if keeps_old_habits(config):
            made = cut_on_the_right(rows, writing, length=length, tensors=return_tensors)
        else:
            tails = [len(one) for one in joined([""] * len(rows), input_strings, config)]
            made = whole_questions(
                rows, writing, tails=tails, length=length, tensors=return_tensors
            )
        return made["input_ids"], made["attention_mask"]

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: Vectors,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Retrieve, and write the rows that the generator reads.

        Args:
            question_input_ids: Ids of questions, `[b, q]`.
            question_hidden_states: Their vectors, `[b, d]`.
            prefix: What every row begins with; None for what the generator's configuration says.
            n_docs: How many passages; None for what the configuration says.
            return_tensors: `pt`, `np` or None for lists.

        Returns:
            `context_input_ids`, `context_attention_mask`, `retrieved_doc_embeds`, `doc_ids`, and
            with a passage encoder's tokenizer `tokenized_doc_ids`, `tokenized_doc_attention_mask`.
        """
        prefix = prefix if prefix is not None else getattr(self.config.generator, "prefix", None)
        vectors, numbers, docs = self.retrieve(question_hidden_states, n_docs or self.n_docs)
        asked = self._tokenizers()[0].batch_decode(question_input_ids, skip_special_tokens=True)
        ids, mask = self.postprocess_docs(docs, asked, prefix, numbers.shape[1], return_tensors)
        found = {
            "context_input_ids": ids,
            "context_attention_mask": mask,
            "retrieved_doc_embeds": vectors,
            "doc_ids": numbers,
        }
        return BatchEncoding(found | self._tokenized(docs), tensor_type=return_tensors)

    def _tokenized(self, docs: Docs) -> dict[str, Any]:
        if not self.return_tokenized_docs or self.ctx_encoder_tokenizer is None:
            return {}
        titles = [title for one in docs for title in one["title"]]
        texts = [text for one in docs for text in one["text"]]
        made = self.ctx_encoder_tokenizer(titles, texts, truncation=True, padding="longest")
        return {
            "tokenized_doc_ids": made["input_ids"],
            "tokenized_doc_attention_mask": made["attention_mask"],
        }

    def _tokenizers(self) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
        if self.question_encoder_tokenizer is None or self.generator_tokenizer is None:
            raise UsageError(
                "the retriever has no tokenizers and can only retrieve()",
                hint="RagRetriever(config, question_encoder_tokenizer, generator_tokenizer, …)",
            )
        return self.question_encoder_tokenizer, self.generator_tokenizer


def changed(config: RagConfig, settings: dict[str, Any]) -> RagConfig:
    """The configuration with settings changed.

    Raises:
        UsageError: One is unknown.
    """
    for name, value in settings.items():
        if name != "hf_compat" and not hasattr(config, name):
            raise UsageError(
                f"unknown setting {name!r}",
                hint="a setting of RagConfig, such as n_docs, or hf_compat",
            )
        setattr(config, name, value)
    return config


def _blank(docs: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """The columns of one question with nothing where there is no passage."""
    return {
        name: [one if number >= 0 else "" for one, number in zip(values, numbers, strict=True)]
        for name, values in docs.items()
    }
