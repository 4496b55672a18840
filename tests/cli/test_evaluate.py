import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from consilience.cli.evaluate import Asking
from tests.cli.terminal import Outcome, Typist, consilience, spawn

QUESTIONS = [
    {"question": "When may visitors come?", "answers": ["14:30"], "id": "visit"},
    {"question": "年假几天？", "answers": ["五天"], "id": "leave"},
]
CONTEXT = {"question": "How much?", "answers": ["19 yuan"], "context": "The fee is 19 yuan."}
FLAGS = ("--model", "model", "--beams", 1, "--max-new-tokens", 3, "--k", 2)


def write(path: str, *questions: dict[str, object]) -> str:
    Path(path).write_text("".join(json.dumps(one) + "\n" for one in questions), "utf-8")
    return path


@pytest.fixture
def data(room: Path) -> str:
    return write("dev.jsonl", *QUESTIONS)


def test_scripts_get_metrics_with_intervals(data: str) -> None:
    done = consilience("evaluate", data, *FLAGS, "--json")
    assert (done.code, done.err) == (0, "")
    found = done.document
    assert found["n"] == 2
    wanted = {"exact_match", "f1", "recall@1", "recall@5", "recall@20", "mrr@10", "ndcg@10"}
    assert wanted | {"rouge_l", "bleu"} <= found["metrics"].keys()
    assert found["intervals"].keys() <= found["metrics"].keys()
    assert (found["run"], found["report"]) == (None, None)
    assert found["setup"]["ask"]["k"] == 2


def test_people_get_a_table(data: str) -> None:
    done = consilience("evaluate", data, *FLAGS, "--no-overlap")
    lines = done.out.splitlines()
    assert (done.code, lines[0]) == (0, "2 questions")
    assert lines[1].split() == ["Metric", "Value", "95%", "interval"]
    assert lines[2].startswith("exact_match ")
    assert "rouge_l" not in done.out


def test_a_run_a_report_and_the_next_command(data: str) -> None:
    words = ("evaluate", data, *FLAGS, "--out", "run.jsonl", "--report", "page", "--lang", "zh")
    done = consilience(*words)
    assert done.code == 0
    assert done.out.splitlines()[-2:] == [
        "报告：page/index.html",
        "接下来: consilience compare run.jsonl RUN_B",
    ]
    page = Path("page/index.html").read_text("utf-8")
    assert "<h1>评测 · dev.jsonl</h1>" in page
    assert len(Path("run.jsonl").read_text().splitlines()) == 3


def test_a_run_goes_on(data: str) -> None:
    words = ("evaluate", data, *FLAGS, "--out", "run.jsonl", "--json")
    first = consilience(*words).document
    lines = Path("run.jsonl").read_text().splitlines(keepends=True)
    Path("run.jsonl").write_text("".join(lines[:2]))
    second = consilience(*words).document
    assert (first["resumed"], second["resumed"]) == (0, 1)
    assert first["metrics"] == second["metrics"]
    assert (
        consilience(*words, "--k", 1)
        .document["error"]["message"]
        .startswith("run.jsonl is a run of something else: ask was ")
    )


def test_flags_reach_the_model(data: str) -> None:
    words = ("--mode", "bm25", "--fusion", "token", "--access", "staff", "--no-abstain", "--quote")
    found = consilience("evaluate", data, *FLAGS, *words, "--limit", 1, "--json").document
    ask = found["setup"]["ask"]
    assert (ask["mode"], ask["fusion"], ask["access"]) == ("bm25", "token", ["staff"])
    assert (ask["abstain"], ask["beams"], ask["max_new_tokens"]) == (False, 1, 3)
    assert ask["quote"] is True
    assert found["n"] == 1


def test_contexts_need_no_store(bare: Path, tiny_model_folder: Path) -> None:
    write("dev.jsonl", CONTEXT)
    words = ("--evidence", "context", "--model", tiny_model_folder, "--json")
    found = consilience("evaluate", "dev.jsonl", *words).document
    assert found["metrics"]["answer_in_passages"] == 1.0


def test_a_store_is_needed_otherwise(bare: Path) -> None:
    write("dev.jsonl", CONTEXT)
    done = consilience("evaluate", "dev.jsonl")
    assert (done.code, done.err.splitlines()[0]) == (3, "error: there is no store at knowledge")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nowhere.jsonl",), 3, "there is no file of questions at nowhere.jsonl"),
        (
            ("dev.jsonl", "--limit", 0),
            2,
            "Invalid value for '--limit': 0 is not in the range x>=1.",
        ),
        (("docs/visits.md",), 7, "visits.md: wrong in "),
        (
            ("dev.jsonl", "--evidence", "context", *FLAGS),
            2,
            "2 of 2 questions have no context; the first is number 1: 'When may visitors come?'",
        ),
        (
            ("dev.jsonl", "--out", "no/run.jsonl", *FLAGS),
            2,
            "there is no folder no for the run",
        ),
    ],
)
def test_what_cannot_be_evaluated(
    data: str, words: tuple[object, ...], code: int, message: str
) -> None:
    done = consilience("evaluate", *words, "--json")
    assert done.code == code
    assert done.document["error"]["message"].startswith(message)


def test_the_choices_are_those_that_exist() -> None:
    from consilience.model.fusion import FUSIONS
    from consilience.retrieval import Mode

    hints = get_type_hints(Asking, include_extras=True)
    assert get_args(get_args(hints["fusion"])[0]) == FUSIONS
    offered, none = get_args(get_args(hints["mode"])[0])
    assert (get_args(offered), none) == (get_args(Mode), type(None))


def test_what_is_left_out_is_what_the_model_leaves_out() -> None:
    from consilience.model import AskOptions

    flags, options = Asking(), AskOptions()
    named = ("fusion", "k", "beams", "max_new_tokens", "quote", "mode", "access", "abstain")
    for name in named:
        assert getattr(flags, name) == getattr(options, name), name


def test_progress_moves_on_a_terminal(room: Path) -> None:
    write("dev.jsonl", *QUESTIONS)
    typist = Typist(("evaluate", "dev.jsonl", *FLAGS, "--no-overlap"), cwd=room)
    assert "exact_match" in typist.read_until("abstention_accuracy")
    assert typist.leave() == 0


def test_help_loads_no_engine(bare: Path) -> None:
    program = (
        "import sys; from consilience.cli.main import run; run(); "
        "sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = spawn("evaluate", "--help", program=program)
    assert isinstance(done, Outcome)
    assert not {"torch", "numpy", "transformers", "sacrebleu"} & set(done.err.split())


def test_a_task_is_asked_with_one_example(room: Path) -> None:
    rows = [
        {"question": q, "label": label, "answers": [label], "context": "Good."}
        for q, label in (("Is it?", "positive"), ("Is that?", "negative"), ("And?", "positive"))
    ]
    data = write("mood.jsonl", *rows)
    done = consilience(
        "evaluate", data, *FLAGS, "--task", "sentiment", "--shots", 1, "--no-overlap", "--json"
    )
    assert (done.code, done.err) == (0, "")
    found = done.document
    assert (found["n"], found["setup"]["task"], found["setup"]["store"]) == (2, "sentiment", None)
    assert "accuracy" in found["metrics"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shots", 1), "--shots shows an example of a task"),
        (("--task", "qa", "--shots", 1), "no question has an answer to show"),
    ],
)
def test_an_example_needs_a_task_and_an_answer(
    room: Path, words: tuple[object, ...], message: str
) -> None:
    data = write("asked.jsonl", {"question": "When?"})
    done = consilience("evaluate", data, *FLAGS, *words, "--json")
    assert (done.code, done.document["error"]["message"]) == (2, message)
