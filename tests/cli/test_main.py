import re
import shlex
from pathlib import Path

import apsw
import pytest

from consilience import __version__
from consilience.cli import main
from consilience.cli.main import EXAMPLES, VERBS, command
from tests.cli.terminal import Outcome, consilience

NAMES = (
    *("add", "ask", "search", "show", "remove", "publish", "train", "distil", "federate"),
    *("evaluate", "compare", "serve", "keys", "doctor", "demo"),
)


def test_the_verbs_are_those_of_the_table() -> None:
    assert tuple(verb.__name__ for verb, _ in VERBS) == NAMES
    assert consilience() == consilience("--help") == consilience("-h")
    for name in NAMES:
        assert f"│ {name} " in consilience("--help").out


@pytest.mark.parametrize(
    ("name", "examples"), [("", EXAMPLES), *((verb.__name__, each) for verb, each in VERBS)]
)
def test_help_ends_with_three_real_commands(name: str, examples: tuple[str, ...]) -> None:
    done = consilience(*filter(None, [name]), "--help")
    assert (done.code, done.err) == (0, "")
    lines = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert lines[-4:] == ["Examples:", *examples]
    for example in examples:
        program, verb, *words = shlex.split(example)
        assert program == "consilience"
        parsed = command().commands[verb]  # type: ignore[attr-defined]
        with parsed.make_context(verb, words):
            pass  # every flag and argument of the example is one that the verb has


def test_examples_are_in_both_languages() -> None:
    lines = [line for _, examples in VERBS for line in examples]
    assert sum(line.isascii() for line in lines) >= 7
    assert sum(not line.isascii() for line in lines) >= 5


def test_every_verb_takes_the_common_flags() -> None:
    for name in NAMES:
        text = consilience(name, "--help").out
        assert "--json" in text
        assert "--lang" in text


def test_version() -> None:
    assert consilience("--version") == Outcome(0, f"consilience {__version__}\n", "")


USAGE = [
    (("fly",), "No such command 'fly'.", "consilience --help"),
    (("evalute", "a"), "No such command 'evalute'. Did you mean 'evaluate'?", "consilience --help"),
    (("search",), "Missing argument 'QUESTION'.", "consilience search --help"),
    (("show", "--colour"), "No such option '--colour'.", "consilience show --help"),
]


@pytest.mark.parametrize(("words", "message", "hint"), USAGE)
def test_a_wrong_command_line(words: tuple[str, ...], message: str, hint: str) -> None:
    people = consilience(*words)
    assert people == Outcome(2, "", f"error: {message}\nhint: {hint}\n")
    scripts = consilience(*words, "--json")
    assert (scripts.code, scripts.err) == (2, "")
    error = {"code": 2, "kind": "usage", "message": message, "hint": hint}
    assert scripts.document == {"error": error}


def test_labels_of_errors_are_translated(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Outcome(
        3,
        "",
        "错误: there is no store at knowledge\n提示: consilience add PATH --store knowledge\n",
    )
    assert consilience("show", "--lang", "zh") == expected
    assert consilience("show", "--lang=zh") == expected
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert consilience("show") == expected
    assert consilience("show", "--lang", "en").err.startswith("error: ")
    assert consilience("show", "--lang").err.startswith("错误: ")


@pytest.mark.parametrize(
    "words", [("search", "a"), ("ask", "a"), ("show",), ("remove", "a"), ("add", "--re-embed")]
)
def test_a_missing_store(bare: Path, words: tuple[str, ...]) -> None:
    done = consilience(*words, "--store", "mine", "--json")
    assert (done.code, done.err) == (3, "")
    assert done.document == {
        "error": {
            "code": 3,
            "kind": "missing",
            "message": "there is no store at mine",
            "hint": "consilience add PATH --store mine",
        }
    }
    assert not Path("mine").exists()


@pytest.mark.parametrize("words", [("search", "a"), ("ask", "a"), ("show",), ("add", "docs")])
def test_a_store_from_a_newer_version(room: Path, words: tuple[str, ...]) -> None:
    connection = apsw.Connection("knowledge/store.sqlite3")
    connection.execute("UPDATE meta SET value = 99 WHERE key = 'schema'")
    connection.close()
    done = consilience(*words)
    assert done.code == 5
    message, hint = done.err.splitlines()
    assert message.startswith("error: the store at knowledge has schema version 99 (made by ")
    assert hint == "hint: pip install --upgrade consilience"


@pytest.mark.parametrize("words", [("ask", "a"), ("search", "a"), ("add", "docs")])
def test_a_broken_model_folder(room: Path, words: tuple[str, ...]) -> None:
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    done = consilience(*words, "--model", "model")
    assert (done.code, done.out) == (4, "")
    message, hint = done.err.splitlines()
    assert re.match(r"error: the model file \S*model/model\.safetensors has sha256 ", message)
    assert hint == (
        "hint: install the package again, or copy the model folder again from where it came"
    )


def test_a_model_that_is_not_there(room: Path) -> None:
    done = consilience("ask", "a", "--model", "nowhere")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: no model folder 'nowhere'",
        "hint: name a folder that `Rag.save` wrote, a hub id such as facebook/rag-token-nq, "
        "or leave out --model",
    ]


def failing(error: BaseException) -> tuple[tuple[object, tuple[str, ...]], ...]:
    def show(*, output: main.Output) -> int:
        raise error

    return ((show, ()),)


def test_a_mistake_of_ours(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "VERBS", (*failing(RuntimeError("7 \x1b[31m")), *VERBS[:1]))
    done = consilience("show")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        r"error: RuntimeError: 7 \x1b[31m",
        "hint: this is a mistake in consilience; report it with the output of the same command "
        "after: export CONSILIENCE_DEBUG=1",
    ]
    error = consilience("show", "--json").document["error"]
    assert (error["code"], error["kind"]) == (1, "internal")
    monkeypatch.setenv("CONSILIENCE_DEBUG", "1")
    assert "Traceback (most recent call last)" in consilience("show").err
    assert consilience("show", "--json").document["error"] == error


def test_ctrl_c(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "VERBS", (*failing(KeyboardInterrupt()), *VERBS[:1]))
    done = consilience("show")
    assert done == Outcome(
        130,
        "",
        "error: interrupted\nhint: what was finished is kept; run the same command again\n",
    )
    assert consilience("show", "--json").document["error"]["kind"] == "interrupted"
