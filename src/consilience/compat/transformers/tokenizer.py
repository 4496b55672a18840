"""Two tokenizers in one: the question encoder's for what is asked, the generator's for answers.

Target texts are always tokenised for the generator. transformers 5.23 hands `text_target` to the
question encoder's tokenizer, whose ids mean other words to the generator.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import transformers
from transformers import BatchEncoding, RagConfig

from consilience.errors import MissingError
from consilience.model.checkpoints import checkpoint_folder, read_tokenizers


class RagTokenizer(transformers.RagTokenizer):
    """As transformers' class of that name.

    Args:
        question_encoder: Tokenizer of questions.
        generator: Tokenizer of contexts and answers.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: RagConfig | None = None,  # noqa: ARG003 scripts pass it
        **kwargs: Any,
    ) -> Self:
        """The tokenizers of a checkpoint.

        Args:
            pretrained_model_name_or_path: A folder or a hub id.
            config: Taken because transformers' class takes it; the tokenizers' own files say all.
            **kwargs: For both tokenizers.

        Raises:
            MissingError: The checkpoint is not there or has no tokenizers.
            DamagedError: One cannot be read.
        """
        folder = checkpoint_folder(pretrained_model_name_or_path)
        asking, writing = read_tokenizers(folder, **kwargs)
        if asking is None or writing is None:
            raise MissingError(
                f"{folder} has no folder "
                f"{'question_encoder' if asking is None else 'generator'}_tokenizer",
                hint="write one with RagTokenizer.save_pretrained",
            )
        return cls(asking, writing)

    def __call__(
        self, text: Any = None, *args: Any, text_target: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        """Questions as `input_ids`, and answers given as `text_target` as `labels`.

        Without a question, answers come back as `input_ids`, as from any tokenizer.
        """
        if text_target is None:
            plain: BatchEncoding = self.current_tokenizer(text, *args, **kwargs)
            return plain
        answers: BatchEncoding = self.generator(text_target, *args, **kwargs)
        if text is None:
            return answers
        asked: BatchEncoding = self.question_encoder(text, *args, **kwargs)
        asked["labels"] = answers["input_ids"]
        return asked

    @contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Within it, calls tokenise for the generator."""
        self.current_tokenizer = self.generator
        try:
            yield
        finally:
            self.current_tokenizer = self.question_encoder

    def prepare_seq2seq_batch(
        self,
        src_texts: Sequence[str],
        tgt_texts: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: str | bool = "longest",
        return_tensors: str | None = None,
        truncation: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Questions as `input_ids` and, where given, answers as `labels`; both padded and cut.

        Args:
            src_texts: Questions.
            tgt_texts: Answers.
            max_length: Of a question; None for what the question encoder reads.
            max_target_length: Of an answer; None for `max_length`.
            padding: As a tokenizer's.
            return_tensors: As a tokenizer's.
            truncation: As a tokenizer's.
            **kwargs: For both tokenizers.
        """
        kwargs |= {"padding": padding, "return_tensors": return_tensors, "truncation": truncation}
        asked = self.question_encoder(list(src_texts), max_length=max_length, **kwargs)
        inputs: BatchEncoding = asked
        if tgt_texts is not None:
            longest = max_length if max_target_length is None else max_target_length
            labels = self.generator(list(tgt_texts), max_length=longest, **kwargs)
            inputs["labels"] = labels["input_ids"]
        return inputs
