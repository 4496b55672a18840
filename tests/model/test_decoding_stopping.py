"""Where answers stop, in the spelling of a vocabulary and in that of a passage."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from consilience import Document, Rag, Store
from consilience.generation import Generator
from consilience.model import AskOptions
from consilience.model.decoding.stopping import Stops


class Letters:
    """Writes single letters without capitals, with a space before each."""

    end = 0

    def answer_ids(self, text: str) -> list[int]:
        return [*(ord(letter) for letter in text.lower() if letter != " "), self.end]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(chr, ids))


def stops(*strings: str, generator: Any = None) -> Stops:
    return Stops(cast(Generator, generator or Letters()), strings)


@pytest.mark.parametrize(
    ("strings", "text", "first", "before"),
    [
        (("x",), "a x b x", "x", "a "),
        (("b", "x"), "a x b", "x", "a "),
        (("XB",), "a x b", "XB", "a "),
        (("ab", "a b c"), "q a b c", "ab", "q "),
        (("z",), "a x b", None, "a x b"),
        ((" ",), "ab c", " ", "ab"),
        ((), "a x b", None, "a x b"),
    ],
)
def test_the_first_one_ends_an_answer(
    strings: tuple[str, ...], text: str, first: str | None, before: str
) -> None:
    assert stops(*strings).first(text) == first
    assert stops(*strings).before(text) == before


def test_a_generator_without_ids_of_texts_is_searched_for_the_string_itself() -> None:
    assert stops("XB", generator=object()).first("a x b") is None
    assert stops("x", generator=object()).first("a x b") == "x"


@pytest.mark.parametrize(
    ("text", "held"), [("a x", True), ("a", False), ("a x ", True), ("a x b c", True), ("", False)]
)
def test_what_may_become_one_is_held_back(text: str, held: bool) -> None:
    assert stops("XB").may_begin(text) is held


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("stops") / "store", encoder=rag.encoder) as opened:
        opened.add(Document("The Fee of the Card is 25.50. The Bank is in the Ward.", "card.txt"))
        yield opened


QUESTION = "what is the fee of the card?"


@pytest.mark.parametrize(
    ("search", "quote"), [("exact", False), ("exact", True), ("thorough", False), ("fast", False)]
)
def test_no_answer_holds_its_stop_string_in_any_spelling(
    rag: Rag, store: Store, search: Any, quote: bool
) -> None:
    ways: dict[str, Any] = {"beams": 1, "min_new_tokens": 6, "max_new_tokens": 6, "abstain": False}
    free = rag.ask(QUESTION, store, AskOptions(**ways, search=search, quote=quote))
    words = [token.text for token in free.tokens]
    stop = next(word for word in words[1:] if word.isalnum() and word not in words[0])
    for given in (stop, stop.upper()):
        options = AskOptions(**ways, search=search, quote=quote, stop=(given,))
        found = rag.ask(QUESTION, store, options)
        assert stop not in found.text.lower()
        assert found.text == found.text.strip()
        assert [token.text for token in found.tokens] == words[: words.index(stop)]


@pytest.mark.parametrize("quote", [False, True])
def test_a_stop_string_inside_a_word_cuts_the_word(rag: Rag, store: Store, quote: bool) -> None:
    """Also where a passage has the whole word, as it has of a quotation."""
    ways: dict[str, Any] = {"beams": 1, "min_new_tokens": 6, "max_new_tokens": 6, "abstain": False}
    ways["quote"] = quote
    free = rag.ask(QUESTION, store, AskOptions(**ways))
    long = next(token.text for token in free.tokens if len(token.text) > 2 and token.text.isalpha())
    found = rag.ask(QUESTION, store, AskOptions(**ways, stop=(long[1:],)))
    assert found.text.endswith(long[0])
    assert long not in found.text.lower()
