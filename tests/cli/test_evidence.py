from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.cli.evidence import draw, passages_of, place_of, quoted_sentences
from consilience.cli.flags import Output
from consilience.cli.screen import Screen, safe
from consilience.documents import Passage
from consilience.model import Answer, Citation, Quote, TokenPosterior
from consilience.store import Store

TEXT = "Wards open at 14:30. Visitors may stay until 20:00 on weekdays.\nChildren come along."
PASSAGE = Passage("p1", TEXT, "Visits", "visits.pdf", 3, 1000, 1000 + len(TEXT))
OTHER = Passage("p2", "医院食堂每天营业。", "食堂", "食堂.txt", None, 0, 9)


def quote(passage: Passage, words: str) -> Quote:
    start = passage.start + passage.text.index(words)
    return Quote(start, start + len(words), words)


ANSWER = Answer(
    "until 20:00",
    abstained=False,
    confidence=0.874,
    citations=(Citation(PASSAGE, 0.97, (quote(PASSAGE, "until 20:00"),)),),
    posterior={"p2": 0.03, "p1": 0.97},
    tokens=(
        TokenPosterior("until", {"p2": 0.2, "p1": 0.8}),
        TokenPosterior("20:00", {"p2": 0.6, "p1": 0.4}),
    ),
    timings_ms={"retrieve": 3.2, "read": 80.0, "write": 20.0, "total": 103.2},
)
BOTH = {"p2": OTHER, "p1": PASSAGE}


def drawn(
    answer: Answer, capsys: pytest.CaptureFixture[str], *, explain: bool = False
) -> list[str]:
    passages = {name: BOTH[name] for name in answer.posterior}
    draw(answer, passages, Screen(Output(lang="en")), explain=explain)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_an_answer_comes_with_every_passage_of_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(ANSWER, capsys) == [
        "until 20:00",
        "",
        "Sources",
        " 1 ███████████████████▍  97%  visits.pdf:3  characters 1039–1050",
        "     Visitors may stay **until 20:00** on weekdays.",
        " 2 ▋                      3%  食堂.txt",
        "",
        "confidence 87% · 3 ms to find, 100 ms to read and write",
    ]


def test_each_token_points_at_its_best_passage(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(ANSWER, capsys, explain=True)[6:9] == [
        "",
        "Where each token comes from",
        " 1 ████████████████      80%  until",
    ]
    assert drawn(ANSWER, capsys, explain=True)[9] == " 2 ████████████          60%  20:00"


def test_an_abstention_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    none = Answer("", abstained=True, confidence=0.08, posterior=ANSWER.posterior)
    lines = drawn(none, capsys, explain=True)
    assert lines[:4] == [
        "Not in the documents: the passages found do not support an answer.",
        "",
        "Nearest passages",
        " 1 食堂.txt",
    ]
    assert " 2 visits.pdf:3" in lines
    assert not any("%" in line for line in lines[:-1])


def test_an_abstention_over_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(Answer("", abstained=True, confidence=0.0), capsys) == [
        "Not in the documents: the passages found do not support an answer.",
        "",
        "confidence 0% · 0 ms to find, 0 ms to read and write",
    ]


def test_nothing_in_a_document_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07 [red]x[/red] \u202e. "
    passage = replace(PASSAGE, text=evil, source=evil, title=evil, end=1000 + len(evil))
    answer = replace(
        ANSWER,
        text=evil,
        citations=(Citation(passage, 1.0, (Quote(1000, 1003, evil[:3]),)),),
        posterior={"p1": 1.0},
        tokens=(TokenPosterior(evil, {"p1": 1.0}),),
    )
    draw(answer, {"p1": passage}, Screen(Output()), explain=True)
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e")
    assert out.count("[red]x[/red]") == 4


def test_a_quote_from_two_sentences_shows_both() -> None:
    stretches = (quote(PASSAGE, "14:30"), quote(PASSAGE, "20:00"))
    assert quoted_sentences(Citation(PASSAGE, 1.0, stretches)) == [
        ("Wards open at ", False),
        ("14:30", True),
        (".", False),
        (" ", False),
        ("Visitors may stay until ", False),
        ("20:00", True),
        (" on weekdays.", False),
    ]


def test_a_long_sentence_is_cut_around_the_quote() -> None:
    text = "长" * 500 + "答案" + "短" * 500
    passage = replace(PASSAGE, text=text, start=0, end=len(text))
    pieces = quoted_sentences(Citation(passage, 1.0, (quote(passage, "答案"),)))
    assert pieces == [
        ("… ", False), ("长" * 120, False), ("答案", True), ("短" * 120, False), (" …", False)
    ]  # fmt: skip


def test_without_a_quote_the_beginning_is_shown() -> None:
    assert quoted_sentences(Citation(OTHER, 0.5)) == [(OTHER.text, False)]


def test_many_places_are_not_all_named(capsys: pytest.CaptureFixture[str]) -> None:
    letters = tuple(Quote(1000 + i, 1001 + i, TEXT[i]) for i in (0, 2, 2, 4, 6, 8, 10))
    lines = drawn(replace(ANSWER, citations=(Citation(PASSAGE, 1.0, letters),)), capsys)
    places = "characters 1000–1001, 1002–1003, 1004–1005, 1006–1007, …"
    assert lines[3].endswith(places)


@given(st.data())
def test_the_marked_pieces_are_the_quotes(data: st.DataObject) -> None:
    text = data.draw(st.text("ab 。.!？\n𝄞é\u200d", min_size=1, max_size=60))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), min_size=2, max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    passage = replace(PASSAGE, text=text, start=7, end=7 + len(text))
    quotes = tuple(Quote(7 + a, 7 + b, text[a:b]) for a, b in spans)
    pieces = quoted_sentences(Citation(passage, 1.0, quotes))
    seen = "".join(piece for piece, quoted in pieces if quoted)
    wanted = "".join(text[a:b] for a, b in spans)
    assert "".join(seen.split()) == "".join(safe(wanted.replace("\n", " ")).split())


def test_a_place_names_its_page() -> None:
    assert (place_of(PASSAGE), place_of(OTHER)) == ("visits.pdf:3", "食堂.txt")


def test_a_passage_removed_in_the_meantime_is_left_out(bare: object) -> None:
    with Store.open("knowledge") as store:
        assert list(passages_of(ANSWER, store)) == ["p1"]


def test_colour_takes_the_place_of_stars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    lines = drawn(ANSWER, capsys)
    assert any("\x1b[1;4muntil 20:00\x1b[0m" in line for line in lines)
    assert "**" not in "".join(lines)
