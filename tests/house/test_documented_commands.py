"""What the documentation tells people to type works as it is written."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from consilience.cli.main import command, run
from tests.house.tree import ROOT, blocks, named, pages

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
HOSPITAL = ROOT / "examples/three_organisations/hospital/documents"


def documented(program: str) -> Iterator[tuple[str, list[str]]]:
    """Every documented call of a program: where it stands, and its words after the name."""
    for page in pages():
        for code in blocks(page, "bash"):
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == [program]:
                    yield named(page), words[1:]


def _as_typed(given: str | tuple[str, ...]) -> str:
    return given if isinstance(given, str) else " ".join(given)


CALLS = sorted({(page, tuple(words)) for page, words in documented("consilience")})
VERBS = command().commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(("page", "words"), CALLS, ids=_as_typed)
def test_documented_commands_are_understood(page: str, words: tuple[str, ...]) -> None:
    if words[0] == "VERB":
        return
    if words[0].startswith("-"):
        assert words[0] in {flag for each in command().params for flag in each.opts}
        return
    assert words[0] in VERBS, page
    with VERBS[words[0]].make_context(words[0], list(words[1:])) as context:
        assert isinstance(context, click.Context)


@pytest.mark.parametrize("page", ["docs/command-line.md", "docs/zh/command-line.md"])
def test_every_verb_and_option_is_documented(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    sections = re.findall(r"^## ([a-z]+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(VERBS)
    options = {
        flag
        for verb in VERBS.values()
        for each in verb.params
        if isinstance(each, click.Option)
        for flag in each.opts
    }
    assert sorted(flag for flag in options - {"--help", "-h"} if f"`{flag}" not in text) == []


def test_documented_tasks_exist() -> None:
    called = {words[0] for _, words in documented("make") if words}
    assert {"demo", "test", "help"} <= called
    assert called - TARGETS == set()


def test_help_lists_every_task_and_says_what_it_does() -> None:
    explained = set(re.findall(r"^([a-z-]+):.*## \w", MAKEFILE, re.MULTILINE))
    assert {target for target in TARGETS if target != "picture"} == explained


def test_continuous_integration_runs_the_task_and_nothing_else() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").splitlines()[-1] == "exec make test"


@pytest.fixture
def clone(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that looks like a clone, with a tiny model in place of the shipped one."""
    monkeypatch.setattr("consilience.encoding.folder.shipped_folder", lambda: tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


def _some_documents(folder: Path) -> None:
    """Files of the names that the READMEs use."""
    for name in ("handbook/leave.md", "handbook/old.md", "规章制度/旧版.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(HOSPITAL / "visiting-hours.md", folder / name)
    for name in ("report.pdf", "报告.pdf"):
        shutil.copy(HOSPITAL / "mri-safety.pdf", folder / name)


# These run until they are stopped, need a server, other parties, or a teacher larger than the tiny
# model.
ELSEWHERE = {"serve", "publish", "distil", "federate"}


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_the_commands_of_the_readme_run(
    readme: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _some_documents(clone)
    calls = [words for page, words in documented("consilience") if page == readme]
    verbs = []
    for words in calls:
        verbs.append(words[0])
        if words[0] in ELSEWHERE:
            continue
        if words[:2] == ["ask", "--history"]:
            words = [*words, "And on Sundays?"]  # without a question it would talk to a person
        assert run(words) == 0, (words, capsys.readouterr())
    assert set(verbs) == set(VERBS) - {"demo"}


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh.md", "docs/python.md", "docs/zh/python.md"]
)
def test_the_python_examples_run(
    page: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = blocks(ROOT / page, "python")
    assert examples
    names: dict[str, object] = {}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"{page}, example {number}", "exec"), names)
    assert capsys.readouterr().out.strip()
