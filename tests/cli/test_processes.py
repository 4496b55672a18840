"""What only a process of its own can show: imports, streams, completion, a terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.terminal import PATIENCE, PROGRAM, Typist, spawn

CTRL_D = "\x04"

IMPORTS = """
import sys
from consilience.cli.main import run
code = run()
sys.stderr.write(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (("--help",), {"torch", "numpy", "transformers", "faiss", "apsw"}),
        (("ask", "--help"), {"torch", "numpy", "transformers", "faiss", "apsw"}),
        (("search", "visitors", "--mode", "bm25", "--json"), {"torch", "transformers", "faiss"}),
        (("show",), {"torch", "transformers", "faiss"}),
        (("remove", "docs/fees.csv"), {"torch", "transformers", "faiss"}),
        (("add", "docs"), {"torch", "transformers", "faiss"}),
    ],
)
def test_heavy_packages_wait_until_they_are_needed(
    room: Path, words: tuple[str, ...], absent: set[str]
) -> None:
    done = spawn(*words, program=IMPORTS)
    assert done.code == 0, done
    loaded = set(done.err.split())
    assert "consilience" in loaded
    assert not loaded & absent


def test_a_new_process_answers_with_nothing_but_json(room: Path) -> None:
    words = ("ask", "When may visitors come?", "--model", "model", "--max-new-tokens", 3, "--json")
    answer = spawn(*words)
    assert (answer.code, answer.err) == (0, "")
    assert answer.document["citations"]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_error(room: Path, flags: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "show", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 1


def test_a_stream_that_has_no_chinese_gets_escapes(room: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    shown = spawn("show", "docs/制度/请假.txt", "--json", **ascii_only)
    assert shown.document["source"] == "docs/制度/请假.txt"
    people = spawn("show", "--lang", "zh", **ascii_only)
    assert people.code == 0
    assert r"\u77e5\u8bc6\u5e93 knowledge" in people.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = spawn(_CONSILIENCE_COMPLETE=f"source_{shell}")
    assert done.code == 0
    assert "_CONSILIENCE_COMPLETE" in done.out


def test_completion_of_verbs_and_choices() -> None:
    def completed(words: str, at: int) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(at)}
        return spawn(_CONSILIENCE_COMPLETE="complete_bash", **asked).out.split()

    assert completed("consilience s", 1) == ["search", "show", "serve"]
    assert completed("consilience search a --mode ", 4) == ["bm25", "dense", "hybrid"]


def test_a_conversation_on_a_terminal(room: Path) -> None:
    words = ("ask", "--model", "model", "--max-new-tokens", 3, "--history", "talk.jsonl")
    typist = Typist(words, cwd=room)
    typist.read_until("Ctrl-D ends the conversation.")
    typist.read_until("? ")
    typist.type("When may visitors come?\n")
    assert "Sources" in typist.read_until("confidence ")
    typist.read_until("? ")
    typist.type("x" * 4001 + "\n")
    typist.read_until("4000 are read at most")
    typist.type("\n年假几天？\n")
    typist.read_until("confidence ")
    typist.read_until("? ")
    typist.type(CTRL_D)
    assert typist.leave() == 0
    assert len(Path("talk.jsonl").read_text("utf-8").splitlines()) == 2


def test_progress_moves_on_a_terminal(room: Path) -> None:
    typist = Typist(("add", "docs"), cwd=room)
    typist.read_until("3/3 files")
    typist.read_until("unchanged 3 ")
    assert typist.leave() == 0
