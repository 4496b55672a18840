"""The vocabulary, and the first embeddings of the characters that MiniLM does not know.

English pieces of all-MiniLM-L6-v2 stay where the texts use them; Chinese characters in use join
them. A new character starts as the weighted mean of the English pieces that it is a translation of,
after IBM Model 1 (Brown et al., 1993) over sentence pairs, so that the encoder can make something
of Chinese from the first step. A model that starts from random weights needs none of that: its
vocabulary is what the texts use most.
"""

import collections
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mixture import Row, minilm_folder, read_rows
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from schedule import Schedule
from tokenizers import Tokenizer

from consilience.encoding.tokenizer import SPECIAL, SubwordTokenizer, build_tokenizer
from consilience.text import fold_han

TEXTS = {
    "en_wikipedia_2015/train-000": ("text", 2000),
    "squad_v11/train": ("context", 9000),
    "qed_nq/train": ("context", 7000),
    "medquad/train": ("answer", 3000),
    "pydocs_en_zh/train": ("en", 20000),
    "tatoeba_en_zh/train": ("en", 20000),
    "bioasq/corpus": ("text", 3000),
}
CHINESE = {
    "zh_news_crud/train-000": ("text", 20000),
    "zh_laws/train-000": ("text", 1500),
    "cmrc2018/train": ("context", 9000),
    "drcd/train": ("context", 9000),
    "pydocs_en_zh/train": ("zh", 20000),
    "tatoeba_en_zh/train": ("zh", 20000),
    "zh_poetry/train": ("text", 20000),
    "xquad_en_zh/train": ("context_zh", 1000),
}


def texts(data: Path, table: dict[str, tuple[str, int]]) -> Iterator[str]:
    """The texts of a table of sets."""
    for name, (key, most) in table.items():
        for row in read_rows(data / f"{name}.jsonl.gz", most=most):
            yield str(row.get(key) or row.get("content") or "")[:4000]


def used_pieces(old: Tokenizer, corpus: Iterator[str]) -> collections.Counter[str]:
    """How often each English piece occurs."""
    counts: collections.Counter[str] = collections.Counter()
    batch = list(corpus)
    for start in range(0, len(batch), 2000):
        for encoding in old.encode_batch(batch[start : start + 2000], add_special_tokens=False):
            counts.update(encoding.tokens)
    return counts


def han(character: str) -> bool:
    """Whether a character is written as a token of its own."""
    return "\u3400" <= character <= "\u9fff" or "\u3000" <= character <= "\u303f"


def choose(old: Tokenizer, data: Path, least: int) -> list[str]:
    """The tokens of the new vocabulary, special tokens first."""
    english = used_pieces(old, texts(data, TEXTS))
    characters = collections.Counter(
        c for text in texts(data, CHINESE) for c in fold_han(text) if not c.isspace()
    )
    plain = [t for t, _ in sorted(old.get_vocab().items(), key=lambda item: item[1])]
    single = {t for t in plain if len(t.removeprefix("##")) == 1 and ord(t[-1]) < 0x250}
    kept = [t for t in plain if t in single or (english[t] >= least and not han(t[-1]))]
    chinese = [c for c, n in characters.most_common() if n >= 5 and ord(c) > 0x2000]
    return list(dict.fromkeys([*SPECIAL, *(t for t in kept if t not in SPECIAL), *chinese]))


def translations(data: Path, tokens: list[str], new: set[int]) -> NDArray[np.float32]:
    """p(old piece | new character) after two rounds of IBM Model 1, `[vocabulary, vocabulary]`.

    Returned as rows for new characters only, in the order of `sorted(new)`.
    """
    tokenizer = build_tokenizer({token: index for index, token in enumerate(tokens)})
    rows: list[Row] = []
    for name in ("tatoeba_en_zh/train", "pydocs_en_zh/train"):
        rows += list(read_rows(data / f"{name}.jsonl.gz", most=40000))
    english = [sorted(set(t.ids)) for t in tokenizer.encode([str(r["en"])[:300] for r in rows])]
    chinese = [
        sorted(set(t.ids) & new) for t in tokenizer.encode([str(r["zh"])[:150] for r in rows])
    ]
    order = {number: index for index, number in enumerate(sorted(new))}
    table = np.ones((len(new), len(tokens)), dtype=np.float32)
    for _ in range(3):
        counts = np.zeros_like(table)
        for left, right in zip(chinese, english, strict=True):
            if left and right:
                places = np.ix_([order[c] for c in left], right)
                share = table[places]
                counts[places] += share / share.sum(0, keepdims=True)
        # What goes with everything (the, of, commas) explains nothing.
        table = counts / (counts.sum(0, keepdims=True) ** 0.5 + 5.0)
    return table


def first_embeddings(
    old: dict[str, torch.Tensor], old_ids: dict[str, int], tokens: list[str], data: Path
) -> torch.Tensor:
    """`[vocabulary, hidden]`: MiniLM's where it has the token, translated where it has not."""
    source = old["embeddings.word_embeddings.weight"]
    known = torch.stack([source[old_ids[t]] if t in old_ids else source.mean(0) for t in tokens])
    generator = torch.Generator().manual_seed(1)
    new = {i for i, t in enumerate(tokens) if t not in old_ids and t not in SPECIAL}
    table = translations(data, tokens, new)
    for row, index in enumerate(sorted(new)):
        best = np.argsort(-table[row])[:6]
        weight = torch.tensor(table[row][best])
        if weight.sum() > 0.05:
            known[index] = (weight[:, None] * known[best.tolist()]).sum(0) / weight.sum()
        known[index] += 0.3 * source.std() * torch.randn(source.shape[1], generator=generator)
    known[tokens.index("[NONE]")] = source[old_ids["[unused1]"]]
    return known


def most_used(data: Path, size: int) -> list[str]:
    """A vocabulary for random weights: letters and characters in use, then the commonest words."""
    found: collections.Counter[str] = collections.Counter()
    for text in [*texts(data, TEXTS), *texts(data, CHINESE)]:
        found.update(re.findall(r"[a-z]+|\S", fold_han(text.lower())))
    letters = sorted({c for word in found for c in word if c.isascii()})
    words = [word for word, _ in found.most_common() if len(word) > 1 or not word.isascii()]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    return list(dict.fromkeys(pieces))[:size]


def write_vocabulary(data: Path, run: Path, schedule: Schedule, *, least: int = 3) -> int:
    """Write `tokenizer.json` into the run, and for MiniLM's weights `embeddings.safetensors`.

    A model that is taught further keeps its tokens.

    Args:
        data: The data sets.
        run: Where to.
        schedule: What the model starts from.
        least: Uses that keep an English piece of MiniLM's.

    Returns:
        How many tokens there are.
    """
    if schedule.start == "random":
        tokens = most_used(data, int(schedule.sizes["vocabulary_size"]))
    elif schedule.begun is not None:
        shutil.copyfile(schedule.begun / "tokenizer.json", run / "tokenizer.json")
        return len(SubwordTokenizer.load(run / "tokenizer.json"))
    else:
        old = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        old.no_truncation()
        old.no_padding()
        tokens = choose(old, data, least)
        weights = load_file(minilm_folder() / "model.safetensors")
        embedded = first_embeddings(weights, old.get_vocab(), tokens, data)
        save_file({"word_embeddings": embedded}, run / "embeddings.safetensors")
    build_tokenizer({t: i for i, t in enumerate(tokens)}).save(run / "tokenizer.json")
    return len(tokens)
