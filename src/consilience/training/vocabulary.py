"""A larger vocabulary before the first step: words of a new field, characters of a new language.

A word that is written in many pieces is read in many steps and learned slowly; a character without
a piece cannot be read at all. What is taken in are the words whose pieces cost most over the texts:

    gain(w) = count(w) (pieces(w) - 1),   and count(w) for what has no pieces

A new word begins as the mean of its pieces (what has none as the mean of all), so that the model
says at first nearly what it said before. Only models of this package's own format are extended.

Source: Hewitt, 2021, "Initializing New Word Embeddings for Pretrained Language Models".
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from consilience.encoding.folder import ModelFolder, write_folder
from consilience.encoding.tokenizer import SubwordTokenizer
from consilience.errors import MissingError, UsageError

LEAST = 2
"""A word that the texts hold only once is not worth a place."""

EMBEDDINGS, BIAS = "embeddings.word_embeddings.weight", "decoder.bias"


def new_words(words: SubwordTokenizer, texts: Iterable[str], count: int) -> list[str]:
    """The words that would save most, the best first; fewer where there are fewer.

    Args:
        words: The vocabulary.
        texts: What the model is to read and write.
        count: How many at most.
    """
    counted = Counter(word for text in texts for word in words.split(text))
    unknown = [w for w, n in counted.items() if n >= LEAST and w not in words]
    pieces = dict(zip(unknown, _pieces(words, unknown), strict=True))
    gain = {word: counted[word] * max(len(pieces[word]) - 1, 1) for word in unknown}
    return sorted(unknown, key=lambda word: (-gain[word], word))[:count]


def _pieces(words: SubwordTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each word, without the one that stands for what cannot be written."""
    if not texts:
        return []
    return [[i for i in tokens.ids if i != words.unknown] for tokens in words.encode(texts)]


def extend_vocabulary(
    folder: ModelFolder, texts: Iterable[str], *, count: int, place: Path
) -> list[str]:
    """Write a model that knows further words.

    Args:
        folder: The model.
        texts: What it is to read and write.
        count: How many words at most.
        place: The folder of the new model; one that is there already stays as it is.

    Returns:
        The new words; none when the model is there already.

    Raises:
        UsageError: The texts hold no word that is not known, more than once.
    """
    if (place / "manifest.json").is_file():
        return []
    words = SubwordTokenizer.load(folder.path / "tokenizer.json")
    found = new_words(words, texts, count)
    if not found:
        raise UsageError(
            "vocabulary.tokens asks for new words, and the texts hold none",
            hint="leave vocabulary out, or name texts that do",
        )
    larger = words.with_words(found)
    pieces, tensors = _pieces(words, found), folder.tensors()
    for name in (EMBEDDINGS, BIAS):
        tensors[name] = torch.cat([tensors[name], _means(tensors[name], pieces)])
    config = replace(folder.config, vocabulary_size=len(larger))
    write_folder(place, config, tensors, larger.to_json())
    return found


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file.

    Raises:
        MissingError: It is not there.
        UsageError: It is not text in UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {path}", hint="check vocabulary.texts") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not text in UTF-8", hint="convert it, or leave it out"
        ) from error


def _means(rows: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """The mean of the rows of each word's pieces, of all rows for a word that has none."""
    exact = rows.float()
    whole = exact.mean(0)
    means = [exact[list(ids)].mean(0) if ids else whole for ids in pieces]
    return torch.stack(means).to(rows.dtype)
