"""DPR's pair of encoders, as Karpukhin et al. trained them, for stores and questions.

A passage is read as title and text, apart in two segments; a question alone. Their vectors are
compared by inner product as they are (Karpukhin et al., 2020, "Dense Passage Retrieval for
Open-Domain Question Answering", section 3.1).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from consilience.encoding import Vectors
from consilience.errors import MissingError
from consilience.model.text_encoder import TextEncoder
from consilience.model.vectors import PooledEncoder


class DprEncoder(TextEncoder):
    """`DPRQuestionEncoder` and `DPRContextEncoder` of transformers as an `Encoder`.

    Example:
        encoder = DprEncoder.load("question_encoder", "ctx_encoder")
        store = Store.open("wikipedia", encoder=encoder)
    """

    @classmethod
    def load(cls, questions: str | Path, passages: str | Path) -> Self:
        """Read both encoders, and the tokenizer that lies with the one for questions.

        Args:
            questions: A folder, or the id of a model on the hub, such as
                `facebook/dpr-question_encoder-single-nq-base`.
            passages: The same for passages, such as `facebook/dpr-ctx_encoder-single-nq-base`.

        Raises:
            MissingError: One of them is not there.
        """
        from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

        asking = _read(DPRQuestionEncoder, questions)
        telling = _read(DPRContextEncoder, passages)
        words = _read(AutoTokenizer, questions)
        return cls(PooledEncoder(asking.eval()), PooledEncoder(telling.eval()), words)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`; text past the window is not read.

        Args:
            passages: Each its title, a line break and its text, as a store hands them on.
        """
        return self._encode_rows(self.passages, [self._pair(one) for one in passages])

    def _pair(self, passage: str) -> list[int]:
        """Title and text as two segments; a passage without a title is one."""
        title, line, text = passage.partition("\n")
        config: Any = self.passages.model.config
        parts = (title, text) if line else (passage,)
        how = "only_second" if line else True
        most = config.max_position_embeddings
        found = self.tokenizer(*parts, truncation=how, max_length=most)
        return list(found["input_ids"])


def _read(kind: Any, name: str | Path) -> Any:
    """What a class of transformers reads from a folder or the hub; no code beside it is run."""
    try:
        return kind.from_pretrained(str(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingError(
            f"no {kind.__name__} in {str(name)!r}: {' '.join(str(error).split())[:200]}",
            hint="name a folder that save_pretrained wrote, or the id of a model on the hub",
        ) from error
