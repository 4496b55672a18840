import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import consilience
from tests.compat.tiny_rag import write_checkpoint


def checks(*words: object) -> dict[str, Any]:
    """The checks that found a problem, by name."""
    done = consilience("doctor", *words, "--json")
    found = done.document
    problems = {check["name"]: check for check in found["checks"] if not check["ok"]}
    assert (done.code, found["ok"]) == (4 if problems else 0, not problems)
    assert all(check.keys() == {"name", "ok", "message", "fix"} for check in found["checks"])
    return problems


def test_a_sound_house(room: Path) -> None:
    assert checks("--model", "model") == {}
    lines = consilience("doctor", "--model", "model").out.splitlines()
    named = [line.split(": ")[0] for line in lines[:-1]]
    for name in ("python", "torch", "processor", "model", "store", "lexical index", "vectors"):
        assert f"ok  {name}" in named
    assert lines[-1] == "No problem found."


def test_a_changed_model_file(room: Path) -> None:
    with Path("model/tokenizer.json").open("a") as file:
        file.write(" ")
    problem = checks("--model", "model")["model"]
    assert problem["message"].startswith("the model file model/tokenizer.json has sha256 ")
    assert problem["fix"] == (
        "install the package again, or copy the model folder again from where it came"
    )


@pytest.mark.parametrize("passages", [True, False])
def test_a_checkpoint_of_transformers(room: Path, tmp_path: Path, *, passages: bool) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", passages=passages)
    lines = consilience("doctor", "--model", checkpoint).out.splitlines()
    held = "DPRQuestionEncoder, " + "DPRContextEncoder, " * passages
    told = f"RagTokenForGeneration of transformers: {held}BartForConditionalGeneration"
    assert f"ok  model: {checkpoint}, {told}" in " ".join(lines)
    problems = checks("--model", checkpoint)
    assert problems.keys() == {"vectors"}
    if passages:
        assert problems["vectors"]["fix"] == "consilience add --re-embed --store knowledge"
    else:
        assert "holds no encoder of passages" in problems["vectors"]["message"]


def test_a_checkpoint_without_weights(room: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors" in checks("--model", checkpoint)["model"]["message"]


def test_vectors_of_another_model(room: Path, other_model: Path) -> None:
    problem = checks("--model", other_model)["vectors"]
    assert problem["fix"] == "consilience add --re-embed --store knowledge"


def test_a_damaged_store(room: Path) -> None:
    Path("knowledge/store.sqlite3").write_bytes(b"not a database" * 100)
    assert checks("--model", "model")["store"]["fix"] == (
        "mv knowledge knowledge.damaged && consilience add PATH --store knowledge"
    )
    lines = consilience("doctor", "--model", "model", "--lang", "zh").out.splitlines()
    assert any(line.startswith("问题  store: ") for line in lines)
    assert lines[-2] == (
        "    接下来: mv knowledge knowledge.damaged && consilience add PATH --store knowledge"
    )
    assert lines[-1] == "发现问题：1 个"


@pytest.mark.parametrize("harm", ["removed", "garbled"])
def test_derived_indexes_come_back_by_themselves(room: Path, harm: str) -> None:
    assert consilience("search", "visitors", "--mode", "bm25").code == 0
    if harm == "removed":
        shutil.rmtree("knowledge/derived")
    else:
        for file in Path("knowledge/derived").rglob("*"):
            if file.is_file():
                file.write_bytes(b"?")
    assert checks("--model", "model") == {}


def test_a_store_that_was_named_must_be_there(bare: Path, tiny_model_folder: Path) -> None:
    assert checks("--model", tiny_model_folder) == {}
    problem = checks("--model", tiny_model_folder, "--store", "mine")["store"]
    assert problem["message"] == "there is no store at mine"
    assert problem["fix"] == "consilience add PATH --store mine"
