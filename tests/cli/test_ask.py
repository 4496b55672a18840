import json
from pathlib import Path

import pytest

from consilience.cli import ask
from consilience.cli.flags import Output
from consilience.cli.screen import Screen
from tests.cli.terminal import consilience

SHORT = ("--model", "model", "--max-new-tokens", 4)
KEYS = {
    "answer", "abstained", "confidence", "support", "log_likelihood", "question", "citations",
    "timings_ms",
}  # fmt: skip
CITATION = {"passage_id", "source", "title", "page", "start", "end", "text", "posterior", "quotes"}


@pytest.mark.parametrize("fusion", ["sequence", "token", "average", "fid", "concat"])
def test_an_answer_carries_its_sources(room: Path, fusion: str) -> None:
    done = consilience("ask", "When may visitors come?", *SHORT, "--fusion", fusion, "--json")
    assert (done.code, done.err) == (0, "")
    answer = done.document
    assert answer.keys() == KEYS
    assert not answer["abstained"]
    assert all(citation.keys() == CITATION for citation in answer["citations"])
    for citation in answer["citations"]:
        text = Path(citation["source"]).read_text("utf-8")
        for quote in citation["quotes"]:
            assert text[quote["start"] : quote["end"]] == quote["text"]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_quotation_stands_word_for_word_in_a_source(room: Path, beams: int) -> None:
    words = ("ask", "When may visitors come?", *SHORT, "--quote", "--beams", beams, "--json")
    answer = consilience(*words).document
    assert answer["answer"]
    quotes = [q["text"] for one in answer["citations"] for q in one["quotes"]]
    assert answer["answer"] in quotes


def test_a_fusion_without_passages_has_nothing_to_quote(room: Path) -> None:
    words = ("ask", "When?", *SHORT, "--quote", "--fusion", "concat", "--json")
    failed = consilience(*words)
    assert failed.code == 2
    assert "does not read passages one by one" in failed.document["error"]["message"]


def test_explain_adds_every_token_and_every_passage(room: Path) -> None:
    answer = consilience("ask", "年假几天？", *SHORT, "--explain", "--json", "--k", 2).document
    assert answer.keys() == KEYS | {"tokens", "posterior"}
    assert sum(answer["posterior"].values()) == pytest.approx(1, abs=1e-3)
    for token in answer["tokens"]:
        assert token["posterior"].keys() == answer["posterior"].keys()


def test_people_see_a_bar_for_every_passage_of_the_sum(room: Path) -> None:
    done = consilience("ask", "When may visitors come?", *SHORT, "--k", 3, "--explain")
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[1:3] == ["", "Sources"]
    sources = lines[3 : lines.index("Where each token comes from")]
    assert sum("%" in line for line in sources) == 3
    assert lines[-1].startswith("next: consilience show ")


def test_chinese(room: Path) -> None:
    lines = consilience("ask", "年假几天？", *SHORT, "--lang", "zh").out.splitlines()
    assert lines[2] == "出处"
    assert lines[-1].startswith("接下来: consilience show ")
    assert "置信度" in lines[-2]


def test_further_answers_follow_with_their_probabilities(room: Path) -> None:
    command = ("ask", "When may visitors come?", *SHORT, "--answers", 3)
    answer = consilience(*command, "--json").document
    assert answer.keys() == KEYS | {"alternatives"}
    assert [one.keys() for one in answer["alternatives"]] == [{"text", "log_likelihood"}] * 2
    lines = [line.rstrip() for line in consilience(*command).out.splitlines()]
    further = lines[lines.index("Further answers") + 1 :]
    assert [line.split("%")[1].strip() for line in further[:2]] == [
        one["text"] for one in answer["alternatives"]
    ]


def test_samples_are_those_of_their_seed(room: Path) -> None:
    def drawn(seed: int) -> list[str]:
        words = ("--sample", "--seed", seed, "--answers", 4, "--temperature", "1.5", "--json")
        answer = consilience("ask", "When may visitors come?", *SHORT, *words).document
        return [answer["answer"], *(one["text"] for one in answer["alternatives"])]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_an_abstention_is_no_error(room: Path, doubting_model: Path) -> None:
    command = ("ask", "Who won the match?", "--model", doubting_model)
    done = consilience(*command, "--json")
    assert done.code == 0
    answer = done.document
    assert (answer["answer"], answer["abstained"], answer["citations"]) == ("", True, [])
    lines = consilience(*command).out.splitlines()
    assert lines[0] == "Not in the documents: the passages found do not support an answer."
    assert lines[2] == "Nearest passages"
    assert lines[-1] == "next: consilience search 'Who won the match?' --mode bm25 --k 20"


def test_a_conversation_goes_on_from_its_file(room: Path) -> None:
    asked = ("ask", "And at the weekend?", *SHORT, "--history", "talk.jsonl", "--json")
    Path("talk.jsonl").write_text('{"question": "When may I visit?", "answer": "at 14:30"}\n')
    answer = consilience(*asked).document
    assert answer["question"] == "When may I visit? at 14:30 And at the weekend?"
    turns = [json.loads(line) for line in Path("talk.jsonl").read_text("utf-8").splitlines()]
    assert len(turns) == 2
    assert turns[1] == {"question": "And at the weekend?", "answer": answer["answer"]}


def test_a_damaged_conversation_is_left_alone(room: Path) -> None:
    Path("talk.jsonl").write_text("not a turn\n")
    done = consilience("ask", "When?", *SHORT, "--history", "talk.jsonl")
    assert done.code == 4
    assert done.err.splitlines() == [
        'error: line 1 of the history talk.jsonl is not {"question": "…", "answer": "…"}',
        "hint: correct or delete line 1, or name another file; nothing was changed",
    ]
    assert Path("talk.jsonl").read_text() == "not a turn\n"


def test_labels_hide_passages_from_answers(room: Path) -> None:
    Path("secret.txt").write_text("The visitors of the safe come at nine.\n")
    assert consilience("add", "secret.txt", "--access", "staff", "--model", "model").code == 0
    command = ("ask", "visitors of the safe", *SHORT, "--explain", "--json")
    hidden = consilience("show", "--json").document["passages"] - 1
    assert len(consilience(*command, "--access", "other").document["posterior"]) == hidden
    assert len(consilience(*command, "--access", "staff").document["posterior"]) == hidden + 1


@pytest.mark.parametrize("line", [":quit", " :q "])
def test_quit_ends_a_conversation(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: line)
    assert ask.heard(Screen(Output())) is None


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("",), "the question is empty", 'ask something: consilience ask "…"'),
        (("  ",), "the question is empty", 'ask something: consilience ask "…"'),
        (
            (),
            "no question was given, and there is no terminal to ask for one",
            'consilience ask "…"',
        ),
        (
            ("x" * 4001,),
            "the question has 4001 characters; 4000 are read at most",
            "ask a shorter question; add long text as a document",
        ),
        (
            ("a", "--fusion", "sum"),
            "Invalid value for '--fusion': 'sum' is not one of 'sequence', 'token', 'fid', "
            "'attention', 'average', 'concat'.",
            "consilience ask --help",
        ),
        (
            ("visitors", "--fusion", "attention", "--mode", "bm25"),
            "this model was not trained with attention over passage vectors",
            "take another fusion: sequence, token, average, fid or concat",
        ),
        (("a", "--top-p", "0.5"), "--top-p does nothing without --sample", "add --sample"),
        (("a", "--seed", "2"), "--seed does nothing without --sample", "add --sample"),
        (
            ("a", "--sample", "--temperature", "0"),
            "temperature must be above 0, received 0.0",
            "leave temperature out for its default",
        ),
    ],
)
def test_a_wrong_question_is_refused(
    room: Path, words: tuple[str, ...], message: str, hint: str
) -> None:
    people = consilience("ask", *words, "--model", "model")
    assert (people.code, people.out) == (2, "")
    assert people.err.splitlines() == [f"error: {message}", f"hint: {hint}"]
    scripts = consilience("ask", *words, "--model", "model", "--json")
    assert (scripts.code, scripts.err) == (2, "")
    error = {"code": 2, "kind": "usage", "message": message, "hint": hint}
    assert scripts.document == {"error": error}


def test_a_filter_confines_what_is_summed_over(room: Path) -> None:
    command = ("ask", "visitors 年假 fee", *SHORT, "--mode", "bm25", "--explain", "--json")
    assert len(consilience(*command).document["posterior"]) == 3
    answer = consilience(*command, "--where", "source=docs/visits.md").document
    assert len(answer["posterior"]) == 1
    assert {one["source"] for one in answer["citations"]} == {"docs/visits.md"}
