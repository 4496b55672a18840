"""What texts ask about themselves, which documents are held out, and the card."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document
from consilience.training.batches import LengthBuckets
from consilience.training.config import TextSettings
from consilience.training.examples import Example, PlainText
from consilience.training.plain_text import (
    MAKERS,
    Redrawn,
    drawn,
    made_from,
    sentence_pairs,
    source_of,
)
from consilience.training.text_card import text_card_of, told_texts
from consilience.training.texts import Texts, documents_of, key_of, passages_of, read_texts

TEXT = "In 1912 the Red Ferry sailed. Nobody knows why. At noon the Red Ferry rests."


def plain(text: str, document: str = "d", draw: int = 0) -> PlainText:
    return PlainText(text, "A title", document, draw)


class TestWhatIsAsked:
    def test_a_sentence_for_the_text_around_it(self) -> None:
        seen = {
            (one.question, one.passage.text)
            for draw in range(40)
            if (one := MAKERS["inverse_cloze"](plain(TEXT), random.Random(draw)))
            and one.passage is not None
            and one.question not in one.passage.text
        }
        assert {asked for asked, _ in seen} == {
            "In 1912 the Red Ferry sailed.",
            "Nobody knows why.",
            "At noon the Red Ferry rests.",
        }

    def test_one_sentence_in_ten_stays_in_its_text(self) -> None:
        stays = 0
        for draw in range(400):
            one = MAKERS["inverse_cloze"](plain(TEXT), random.Random(draw))
            assert one is not None
            assert one.passage is not None
            stays += one.question in one.passage.text
        assert 20 < stays < 60

    def test_crops_are_of_the_text(self) -> None:
        text = "一二三四五六七八九十 and so on"
        for draw in range(20):
            made = MAKERS["crops"](plain(text), random.Random(draw))
            assert made is not None
            assert made.passage is not None
            for side in (made.question, made.passage.text):
                left = iter(text.replace(" ", ""))
                assert side
                assert all(letter in left for letter in side.replace(" ", ""))

    @pytest.mark.parametrize("name", ["recurring_spans", "salient_spans"])
    def test_the_answer_of_a_blank_stands_in_its_passage(self, name: str) -> None:
        for draw in range(20):
            made = MAKERS[name](plain(TEXT), random.Random(draw))  # type: ignore[index]
            assert made is not None
            assert made.passage is not None
            assert "___" in made.question
            assert made.answer in made.passage.text
            assert made.answers == (made.answer,)

    def test_texts_with_nothing_are_left_out(self) -> None:
        batch = [Example("", "", plain=plain(text)) for text in (TEXT, "nothing here", TEXT)]
        assert len(made_from(batch, "salient_spans")) == 2
        assert made_from(batch[1:2], "recurring_spans") == []

    def test_sentences_follow_or_come_from_another_document(self) -> None:
        texts = [plain("A1. A2. A3.", "a", 1), plain("B1. B2.", "b"), plain("X9.", "a")]
        seen = set()
        for draw in range(60):
            texts[0] = plain("A1. A2. A3.", "a", draw)
            found = sentence_pairs(texts)
            assert len(found) <= 3
            for one in found:
                assert "X9." not in (one.first, one.second)
                assert one.follows == (one.first[0] == one.second[0])
                seen.add(one.follows)
        assert seen == {True, False}
        assert sentence_pairs(texts[:1]) == []

    def test_objectives_draw_apart(self) -> None:
        assert source_of(plain(""), "mlm").random() != source_of(plain(""), "nsp").random()


class TestDraws:
    def test_depend_on_seed_epoch_and_place_alone(self) -> None:
        examples = [Example("q", "a"), *[Example("", "", plain=plain(TEXT)) for _ in range(3)]]

        def draws(seed: int, epoch: int) -> list[int]:
            batches = LengthBuckets([1] * 4, size=2, seed=seed)
            batches.set_epoch(epoch)
            every = Redrawn(examples, batches)[:]
            assert every[0] is examples[0]
            return [one.plain.draw for one in every if one.plain is not None]

        assert draws(0, 0) == draws(0, 0)
        assert len({*draws(0, 0), *draws(0, 1), *draws(1, 0)}) == 9

    @given(st.text(max_size=20))
    def test_a_word_gives_a_seed(self, how: str) -> None:
        one = drawn(Example("", "", plain=plain(TEXT)), how)
        assert one.plain is not None
        assert 0 <= one.plain.draw < 2**48
        assert one == drawn(one, how)


def files(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


class TestReading:
    def test_what_cannot_be_read_is_told_and_left_out(self, tmp_path: Path) -> None:
        place = files(tmp_path / "texts", a="One.", b="")
        (place / "c.pdf").write_bytes(b"no pdf")
        told: list[str] = []
        assert [one.text.strip() for one in documents_of(place, told.append)] == ["One."]
        assert told[0].startswith(f"left out of {place}, as it cannot be read: {place}/b.txt: ")
        assert "c.pdf" in told[0]

    def test_a_document_stays_on_its_side(self, tmp_path: Path) -> None:
        few = files(tmp_path / "few", **{f"n{n}": f"Text {n}." for n in range(20)})
        first = read_texts(TextSettings(train=(few,), hold_out=0.3))
        for n in range(20, 30):
            (few / f"n{n}.txt").write_text(f"Text {n}.", encoding="utf-8")
        more = read_texts(TextSettings(train=(few,), hold_out=0.3))
        assert {key_of(d) for d in first.dev} < {key_of(d) for d in more.dev}
        assert {key_of(d) for d in first.train[0]} < {key_of(d) for d in more.train[0]}
        other = read_texts(TextSettings(train=(few,), hold_out=0.3), seed=1)
        assert {key_of(d) for d in other.dev} != {key_of(d) for d in more.dev}

    def test_a_limit_takes_passages_of_all_documents(self) -> None:
        documents = [Document(f"Text {n}.", source=str(n)) for n in range(10)]
        found = [one.plain.text for one in passages_of(documents, limit=5) if one.plain]
        assert found == [f"Text {n}." for n in (0, 2, 4, 6, 8)]
        assert len(passages_of(documents)) == 10

    def test_a_long_document_is_cut_into_passages(self) -> None:
        text = "The ferry sails at noon. " * 200
        found = [one.plain for one in passages_of([Document(text, source="s", title="T")])]
        assert len(found) > 4
        assert {one.document for one in found if one} == {key_of(Document(text, source="x"))}
        assert {one.title for one in found if one} == {"T"}


class TestCard:
    TRAIN = (Document("One two.", source="a"), Document("一二三四", source="b"))

    def test_what_is_counted(self) -> None:
        card = text_card_of(self.TRAIN)
        assert (card.documents, card.characters, card.passages) == (2, 12, 2)
        assert card.languages == {"en": 8 / 12, "zh": 4 / 12}
        assert card.lengths is not None
        assert card.lengths.longest == 8

    def test_in_both_languages(self) -> None:
        texts = Texts((self.TRAIN,), (Document("9", source="c"),), shared=1)
        assert told_texts(texts).splitlines() == [
            "text.train: 2 documents, 12 characters, 2 passages (English 66.7%, Chinese 33.3%)",
            "  passages, in characters: mean 6, 95 % up to 7.8, longest 8",
            "text.dev: 1 documents, 1 characters, 1 passages (other 100.0%)",
            "  passages, in characters: mean 1, 95 % up to 1, longest 1",
            "documents of text.train that also stand in text.dev, and are left out: 1",
        ]
        lines = told_texts(texts, "zh").splitlines()
        assert lines[0] == "text.train：2 篇文档，12 个字符，2 个段落（英文 66.7%，中文 33.3%）"
        assert len(lines) == 5
