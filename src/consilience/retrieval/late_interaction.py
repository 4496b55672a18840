"""Late interaction: a question and a passage compared token by token, without weights of its own.

An encoder whose vectors were trained as means of token states has token states that can be compared
too, and they tell a passage that answers from one on the same topic. Nothing is stored: the few
candidates are read again.
"""

import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.encoding import Encoder, TokenEncoder, TokenVectors
from consilience.errors import UsageError
from consilience.retrieval.reranking import Scores
from consilience.store.embedding import embedding_text
from consilience.text.stopwords import ENGLISH

KEPT = 512
"""Passages whose token vectors are kept, in half precision: some 60 megabytes."""


class MaxSim:
    """The mean over the question's tokens of the cosine to the likest token of the passage.

        s(x, d) = 1 / |x| * sum over tokens i of x: max over tokens j of d: cos(x_i, d_j)

    Of the question count the words that ask for something: no function words and no punctuation.
    Passages are read with their title, as the encoder learned them. Reading them is most of the
    work, so those read last are kept.

    Source: Khattab and Zaharia, 2020, "ColBERT: Efficient and Effective Passage Search via
    Contextualized Late Interaction over BERT", there with an encoder trained for it.

    Args:
        encoder: Tells what it makes of each token.
        kept: How many passages are kept.
    """

    def __init__(self, encoder: TokenEncoder, *, kept: int = KEPT) -> None:
        self._encoder, self._most = encoder, kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, NDArray[np.float16]] = OrderedDict()

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        """From -1 to 1, `[passages]`."""
        asked = question_vectors(self._encoder.token_vectors([question], side="questions")[0])
        told = self._read([embedding_text(one.title, one.text) for one in passages])
        found = [late_interaction(asked, one.astype(np.float32)) for one in told]
        return np.array(found, np.float32)

    def _read(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        """Unit vectors of the tokens of each passage, `[tokens, dimension]`."""
        with self._lock:
            held = {text: self._kept[text] for text in texts if text in self._kept}
        new = [text for text in dict.fromkeys(texts) if text not in held]
        read = self._encoder.token_vectors(new, side="passages") if new else []
        for text, tokens in zip(new, read, strict=True):
            held[text] = _units(tokens.vectors).astype(np.float16)
        self._keep({text: held[text] for text in texts})
        return [held[text] for text in texts]

    def _keep(self, used: Mapping[str, NDArray[np.float16]]) -> None:
        """Put what was used last at the end, and drop from the beginning."""
        with self._lock:
            for text, vectors in used.items():
                self._kept[text] = vectors
                self._kept.move_to_end(text)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def late_interaction(question: NDArray[np.float32], passage: NDArray[np.float32]) -> float:
    """The mean over the rows of `question` of the largest inner product with a row of `passage`.

    Args:
        question: `[question tokens, dimension]`.
        passage: `[passage tokens, dimension]`.

    Returns:
        0 where either has no rows.
    """
    if not len(question) or not len(passage):
        return 0.0
    return float((question @ passage.T).max(1).mean())


def token_encoder(encoder: Encoder) -> TokenEncoder:
    """The encoder as one that tells of its tokens.

    Raises:
        UsageError: It gives one vector a text only.
    """
    if isinstance(encoder, TokenEncoder):
        return encoder
    raise UsageError(
        f"the encoder {encoder.fingerprint[:16]} gives no vectors of tokens",
        hint="leave out the reranker maxsim, or encode with torch",
    )


def question_vectors(tokens: TokenVectors) -> NDArray[np.float32]:
    """The vectors of the words that ask for something, of length one, `[kept, dimension]`.

    A question that has none keeps all of its words.
    """
    kept = [place for place, word in enumerate(tokens.words) if _asks(word)]
    return _units(tokens.vectors[kept] if kept else tokens.vectors)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return units


_MARKS = "#\u0120\u2581"  # with which vocabularies mark the beginning or the inside of a word


def _asks(word: str) -> bool:
    """Whether a sub-word holds a letter, a digit or a sign, and is no function word."""
    plain = word.lstrip(_MARKS).casefold()
    says = any(unicodedata.category(character)[0] not in "PZC" for character in plain)
    return says and plain not in ENGLISH
