"""Text to sub-word ids with exact character offsets, for Chinese and English.

WordPiece over text that was folded first: compatibility forms to plain ones, traditional Chinese
to simplified, upper case to lower. Every token keeps the offsets of the characters that it stands
for in the original text; that is how an answer gets its spelling, its capitals and its place in the
source back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from consilience.errors import DamagedError
from consilience.text import fold_han

PAD, UNKNOWN, START, SEPARATOR, MASK, NONE = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[NONE]"
SPECIAL = (PAD, UNKNOWN, START, SEPARATOR, MASK, NONE)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as ids, and for each id the half-open stretch of characters it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class SubwordTokenizer:
    """The tokenizer of the shipped model.

    Attributes:
        pad, unknown, start, separator, mask, none: Ids of the special tokens. `none` is what the
            generator writes when a passage does not hold the answer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pad, self.unknown, self.start, self.separator, self.mask, self.none = (
            self._special_id(token) for token in SPECIAL
        )
        self._special = frozenset(map(self._special_id, SPECIAL))

    def _special_id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise DamagedError(f"the vocabulary has no {token}", hint="copy the model folder again")
        return int(found)

    @classmethod
    def load(cls, path: Path) -> "SubwordTokenizer":
        """Read a `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)))

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`."""
        path.write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        """The text of `tokenizer.json`."""
        return str(self._tokenizer.to_str())

    def __len__(self) -> int:
        """How many ids there are."""
        return int(self._tokenizer.get_vocab_size())

    def split(self, text: str) -> list[str]:
        """The words of a text as the vocabulary would write them: folded, and Han one by one."""
        normal = self._tokenizer.normalizer.normalize_str(fold_han(text))
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def with_words(self, new: Sequence[str]) -> "SubwordTokenizer":
        """A tokenizer that knows further words; ids of those known before stay.

        Args:
            new: Words as `split` gives them, none of them known, each once.
        """
        known = self._tokenizer.get_vocab()
        return build_tokenizer(known | {word: len(known) + i for i, word in enumerate(new)})

    def __contains__(self, word: str) -> bool:
        """Whether a word, as `split` gives it, is one sub-word."""
        return self._tokenizer.token_to_id(word) is not None

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids and offsets of each text, without special tokens."""
        folded = [fold_han(text) for text in texts]
        encodings = self._tokenizer.encode_batch(folded, add_special_tokens=False)
        return [Tokens(list(one.ids), list(one.offsets)) for one in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Plain text of ids, lower-case as the vocabulary is; Chinese without spaces."""
        plain = [number for number in ids if number not in self._special]
        return _close_up(self._tokenizer.decode(plain))

    def words(self, ids: Sequence[int]) -> list[str]:
        """The sub-word of each id."""
        return [self._tokenizer.id_to_token(number) or UNKNOWN for number in ids]


def build_tokenizer(vocabulary: Mapping[str, int]) -> SubwordTokenizer:
    """A tokenizer over a vocabulary that holds the special tokens."""
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.BertNormalizer(strip_accents=True, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    # The special tokens are words of the vocabulary and no more: declared as special they would be
    # recognised in text, and a document could write [NONE] into the mouth of the model.
    return SubwordTokenizer(tokenizer)


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff"


def _close_up(text: str) -> str:
    """Take out the spaces that WordPiece leaves beside Chinese characters."""
    kept = [
        character
        for index, character in enumerate(text)
        if character != " "
        or not (_is_han(text[index - 1]) or _is_han(text[index + 1 : index + 2] or "a"))
    ]
    return "".join(kept)
