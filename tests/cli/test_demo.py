import json
import os
import shutil
from pathlib import Path

import pytest

from consilience.cli.demo import ORGANISATIONS, corpus_folder, read_questions
from tests.cli.terminal import consilience

CORPUS = Path(__file__).parents[2] / "examples" / "three_organisations"


@pytest.fixture
def corpus(bare: Path) -> Path:
    """The three organisations with two documents each and two questions."""
    small = Path("corpus")
    for name in ORGANISATIONS:
        documents = sorted((CORPUS / name / "documents").glob("*.md"))[:2]
        (small / name / "documents").mkdir(parents=True)
        for document in documents:
            shutil.copy(document, small / name / "documents")
    questions = (CORPUS / "demo.jsonl").read_text("utf-8").splitlines(keepends=True)[:2]
    (small / "demo.jsonl").write_text("".join(questions), "utf-8")
    return small


def test_the_way_through(corpus: Path, tiny_model_folder: Path) -> None:
    flags = ("--examples", corpus, "--model", tiny_model_folder, "--keep", "kept")
    done = consilience("demo", *flags)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "Three organisations, one knowledge base, questions in two languages."
    assert [line.split(":")[0] for line in lines[1:4]] == list(ORGANISATIONS)
    assert sum(line.startswith("Question: ") for line in lines) == 2
    assert lines[-5] == "The knowledge base stays in kept."
    assert all(line.startswith("next: consilience ") for line in lines[-4:])
    assert all(" --store kept" in line for line in lines[-4:])


def test_each_organisation_is_a_contributor(corpus: Path, tiny_model_folder: Path) -> None:
    flags = ("--examples", corpus, "--model", tiny_model_folder, "--keep", "kept")
    done = consilience("demo", *flags, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.document.keys() == {"store", "added", "failed", "passages", "answers"}
    assert len(done.document["added"]) == 6
    assert [answer["language"] for answer in done.document["answers"]] == ["en", "zh"]
    sources = consilience("show", "--store", "kept", "--json").document["sources"]
    assert {source["contributor"] for source in sources} == set(ORGANISATIONS)
    assert all(source["source"].startswith("corpus/") for source in sources)


def test_a_demo_can_be_run_again(corpus: Path, tiny_model_folder: Path) -> None:
    flags = ("--examples", corpus, "--model", tiny_model_folder, "--keep", "kept", "--json")
    first, second = consilience("demo", *flags).document, consilience("demo", *flags).document
    assert second["added"] == []
    assert [a["answer"] for a in second["answers"]] == [a["answer"] for a in first["answers"]]


def test_without_a_folder_it_makes_one(
    corpus: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", os.getcwd())
    flags = ("--examples", corpus, "--model", tiny_model_folder, "--json")
    store = consilience("demo", *flags).document["store"]
    assert Path(store).parent == Path.cwd()
    assert consilience("show", "--store", store).code == 0


def test_a_corpus_that_is_not_there(bare: Path) -> None:
    done = consilience("demo", "--examples", "nowhere")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: the example corpus is not there: no nowhere/demo.jsonl",
        "hint: consilience demo --examples DIR, with the folder examples/three_organisations "
        "of the source code",
    ]


def test_damaged_questions(corpus: Path) -> None:
    (corpus / "demo.jsonl").write_text('{"question": "who"}\n')
    done = consilience("demo", "--examples", corpus)
    assert done.code == 4
    assert done.err.startswith('error: corpus/demo.jsonl has a line that is not {"question": ')


def test_the_corpus_of_the_source_tree_is_found_and_named_from_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(CORPUS.parents[1])
    assert corpus_folder(None) == Path("examples/three_organisations")
    monkeypatch.chdir(CORPUS / "bank")
    assert corpus_folder(None) == CORPUS


def test_the_questions_are_the_corpus_own_and_of_every_kind() -> None:
    rows = {
        row["question"]: row
        for file in CORPUS.glob("*/questions/*.jsonl")
        for row in map(json.loads, file.read_text("utf-8").splitlines())
    }
    asked = [rows[question.question] for question in read_questions(CORPUS / "demo.jsonl")]
    suffixes = {Path(row["source"]).suffix for row in asked if row["answers"]}
    assert {".md", ".pdf", ".docx", ".xlsx"} <= suffixes
    assert sum(not row["answers"] for row in asked) == 1
    assert {row["language"] for row in asked} == {"en", "zh"}
    assert not any(row.get("history") for row in asked)
