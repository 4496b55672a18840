"""A card of plain text: how much there is of it and in which languages, before it is learned from.

It counts and judges nothing, as the card of questions does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from consilience.documents import Document
from consilience.text import language_of, split_passages
from consilience.training.card import Lengths, lengths_of
from consilience.training.texts import Texts


@dataclass(frozen=True, slots=True)
class TextCard:
    """What is in some documents.

    Attributes:
        documents: How many there are.
        characters: Of all of them.
        passages: How many they are cut into.
        languages: The share of the characters that each has, the largest first; the empty name
            stands for neither Chinese nor English.
        lengths: Of the passages, in characters; None where there is none.
    """

    documents: int
    characters: int
    passages: int
    languages: Mapping[str, float]
    lengths: Lengths | None


def text_card_of(documents: Sequence[Document]) -> TextCard:
    """Count what is in some documents."""
    spans = [span for document in documents for span in split_passages(document.text)]
    total = sum(len(document.text) for document in documents)
    found: Counter[str] = Counter()
    for document in documents:
        found[document.language or language_of(document.text)] += len(document.text)
    lengths = [span.end - span.start for span in spans]
    return TextCard(
        documents=len(documents),
        characters=total,
        passages=len(spans),
        languages={name: count / total for name, count in found.most_common()},
        lengths=lengths_of(lengths) if lengths else None,
    )


def told_texts(texts: Texts, language: Literal["en", "zh"] = "en") -> str:
    """The card of a run's plain text as a person reads it."""
    words = _WORDS[language]
    every = [document for one in texts.train for document in one]
    parts = {"text.train": every, "text.dev": list(texts.dev)}
    lines = [
        line
        for name, documents in parts.items()
        if documents
        for line in _lines(name, text_card_of(documents), words)
    ]
    if texts.shared:
        lines.append(words["shared"].format(n=texts.shared))
    return "\n".join(lines)


def _lines(name: str, card: TextCard, words: Mapping[str, str]) -> list[str]:
    shares = words["between"].join(
        f"{words.get(f'language.{key}', key)} {share:.1%}" for key, share in card.languages.items()
    )
    counts = {"documents": card.documents, "characters": card.characters, "name": name}
    lines = [words["text"].format(**counts, passages=card.passages, languages=shares)]
    if card.lengths is not None:
        told = {"mean": card.lengths.mean, "p95": card.lengths.p95, "longest": card.lengths.longest}
        lines.append("  " + words["lengths"].format(**told))
    return lines


_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "text": "{name}: {documents} documents, {characters} characters, {passages} passages "
        "({languages})",
        "between": ", ",
        "language.zh": "Chinese",
        "language.en": "English",
        "language.": "other",
        "lengths": "passages, in characters: mean {mean:g}, 95 % up to {p95:g}, longest {longest}",
        "shared": "documents of text.train that also stand in text.dev, and are left out: {n}",
    },
    "zh": {
        "text": "{name}：{documents} 篇文档，{characters} 个字符，{passages} 个段落（{languages}）",
        "between": "，",
        "language.zh": "中文",
        "language.en": "英文",
        "language.": "其他",
        "lengths": "段落按字符计：平均 {mean:g}，95% 不超过 {p95:g}，最长 {longest}",
        "shared": "text.train 中有 {n} 篇文档也在 text.dev 中，已去掉",
    },
}
