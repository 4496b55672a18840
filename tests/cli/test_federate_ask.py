"""`consilience federate ask`: a question to parties on this machine, on the screen and as JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from consilience.federation.config import AskingSettings, FederationConfig
from consilience.federation.local import LocalParties
from consilience.training.settings import leaves
from tests.cli.terminal import Outcome, consilience
from tests.federation.asked import Town, write_town

LEVELS = {"hospital": "sentence", "bank": "answer", "university": "nothing"}
SHORT = ("--max-new-tokens", 1, "--k", 9)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture
def federation(town: Town, tmp_path: Path) -> Path:
    return write_federation(town, tmp_path, LEVELS)


def write_federation(town: Town, folder: Path, levels: dict[str, str]) -> Path:
    parties = []
    for name, tells in levels.items():
        party: dict[str, Any] = {
            "name": name,
            "state": str(folder / "states" / name),
            "store": str(town.folder / name),
            "model": str(town.model),
        }
        if tells != "nothing":
            party["asking"] = {"tells": tells}
        parties.append(str(written(folder / f"{name}.yaml", party)))
    settings = {
        "output": str(folder / "run"),
        "recipe": str(written(folder / "recipe.yaml", {"model": str(town.model)})),
        "parties": parties,
    }
    return written(folder / "federation.yaml", settings)


def written(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    return path


def ask(federation: Path, question: str, *words: object) -> Outcome:
    return consilience("federate", "ask", federation, question, *SHORT, *words)


def test_the_json_says_whose_the_answer_is(federation: Path, town: Town) -> None:
    done = ask(federation, "who is in the ward", "--json", "--asker", "the city")
    assert (done.code, done.err) == (0, "")
    found = done.document
    assert found.keys() == {
        *("answer", "abstained", "confidence", "support", "log_likelihood", "question"),
        *("citations", "parties", "timings_ms"),
    }
    told = {one["name"]: one for one in found["parties"]}
    assert told["university"]["reason"].startswith("university answers no questions")
    assert not told["university"]["answered"]
    assert sum(one["posterior"] for one in told.values()) == pytest.approx(1)
    for one in found["citations"]:
        assert (one["source"] is None) == (one["party"] == "bank")
    book = federation.parent / "states" / "bank" / "asked.jsonl"
    assert json.loads(book.read_text("utf-8"))["asker"] == "the city"
    assert not (federation.parent / "states" / "university" / "asked.jsonl").exists()
    assert found["timings_ms"].keys() == {"look", "propose", "weigh", "show", "total"}


def test_the_screen_in_english(federation: Path) -> None:
    done = ask(federation, "who is in the ward", "--lang", "en")
    assert done.code == 0
    assert done.err == "The question goes to every party; each writes down that it was asked.\n"
    lines = done.out.splitlines()
    assert "Sources" in lines
    assert "Parties" in lines
    assert any(re.fullmatch(r" 1 .{20}  *\d+%  (bank|hospital) · .*", line) for line in lines)
    assert any(re.fullmatch(r"   .{20}  *\d+%  bank", line) for line in lines)
    assert "lost university: university answers no questions" in done.out
    assert lines[-1].startswith("confidence ")
    assert " · 2 of 3 parties answered · " in lines[-1]


def test_the_screen_in_chinese(federation: Path) -> None:
    done = ask(federation, "who is in the ward", "--lang", "zh")
    assert done.err == "问题会发给每个参与方，各方都会记下自己被问过。\n"
    lines = done.out.splitlines()
    assert {"出处", "参与方"} <= set(lines)
    assert any("bank · 第 " in line for line in lines)
    assert "掉队 university: " in done.out
    assert " · 3 个参与方中有 2 个作答 · " in lines[-1]


def test_sources_and_sentences_are_drawn(town: Town, tmp_path: Path) -> None:
    path = write_federation(town, tmp_path, dict.fromkeys(LEVELS, "sentence"))
    questions = ("what is the fee", "who is in the ward", "费用是多少？", "考试时间是什么？")
    drawn, quoted = "", []
    for question in questions:
        drawn += ask(path, question, "--lang", "en").out
        quoted += [one["text"] for one in ask(path, question, "--json").document["citations"]]
    sentences = [text for text in quoted if text]
    assert sentences
    assert all(f"     {text}\n" in drawn for text in sentences)
    assert ".txt\n" in drawn


def test_too_little_support_is_said(tmp_path: Path) -> None:
    town = write_town(tmp_path / "town", least=2.0)
    path = write_federation(town, tmp_path, {"bank": "sentence"})
    out = ask(path, "what is the fee", "--lang", "en").out
    assert out.startswith("Not in the documents: the passages found do not support an answer.\n")
    assert ".txt" not in out
    assert ask(path, "what is the fee", "--json").document["citations"] == []


def test_without_files_those_that_joined_are_asked(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_federation(town, tmp_path, {})
    reached: list[tuple[str, bool]] = []

    def coordinate(config: FederationConfig, run: Callable[[Any], Any], *, demo: bool) -> Any:
        reached.append((config.listen, demo))
        way = LocalParties([town.party("bank")], at_once=True)
        try:
            return run(way)
        finally:
            way.close()

    monkeypatch.setattr("consilience.federation.flower.coordinate", coordinate, raising=False)
    there = ("--listen", "127.0.0.1:9000", "--expected", 1, "--patience", 50)
    found = ask(path, "what is the fee", "--json", "--demo", *there).document
    assert reached == [("127.0.0.1:9000", True)]
    assert [one["name"] for one in found["parties"]] == ["bank"]


def test_nobody_to_answer_is_an_error(town: Town, tmp_path: Path) -> None:
    path = write_federation(town, tmp_path, {"bank": "nothing"})
    done = ask(path, "what is the fee", "--json")
    assert done.code == 10
    assert done.document["error"]["message"].startswith(
        "no party answered: bank: bank answers no questions"
    )


def test_a_model_of_ones_own_is_asked_with(federation: Path, tmp_path: Path) -> None:
    from tests.federation.asked import write_sharp_model

    other = write_sharp_model(tmp_path / "other", 7)
    done = ask(federation, "what is the fee", "--json", "--model", other)
    assert done.code == 10
    assert "the model of bank is " in done.document["error"]["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ask",), "ask takes CONFIG and QUESTION, received 0 words"),
        (("ask", "f.yaml"), "ask takes CONFIG and QUESTION, received 1 words"),
        (("ask", "f.yaml", " "), "the question is empty"),
        (("ask", "f.yaml", "q", "--rounds", 3), "--rounds does nothing with ask"),
        (("ask", "f.yaml", "q", "--follow"), "--follow does nothing with ask"),
        (("simulate", "f.yaml", "--k", 3), "--k does nothing with simulate"),
        (("join", "p.yaml", "--patience", 3), "--patience does nothing with join"),
        (("status", "run", "--max-new-tokens", 3), "--max-new-tokens does nothing with status"),
    ],
)
def test_what_does_nothing_is_refused(bare: Path, words: tuple[object, ...], message: str) -> None:
    done = consilience("federate", *words, "--json")
    assert (done.code, done.document["error"]["message"]) == (2, message)


def test_other_modes_and_a_demonstration_of_files_are_refused(federation: Path) -> None:
    done = ask(federation, "what is the fee", "--json", "--mode", "hybrid")
    assert done.code == 2
    assert done.document["error"]["message"].startswith("the mode must be dense: scores of words")
    done = ask(federation, "what is the fee", "--json", "--demo")
    assert "--demo does nothing where parties names files" in done.document["error"]["message"]


def test_yes_and_no_are_no_levels(town: Town, tmp_path: Path) -> None:
    path = write_federation(town, tmp_path, {"bank": "answer"})
    party = yaml.safe_load((tmp_path / "bank.yaml").read_text("utf-8"))
    written(tmp_path / "bank.yaml", party | {"asking": {"tells": False}})
    error = ask(path, "what is the fee", "--json").document["error"]
    assert "asking.tells" in error["message"]
    assert "nothing" in error["message"]


def test_every_setting_of_asking_is_explained_in_both_languages() -> None:
    found = list(leaves(AskingSettings))
    assert [leaf.path for leaf in found] == ["tells", "a_day", "access", "model", "store"]
    assert all(leaf.setting.help.endswith(".") for leaf in found)
    assert all(leaf.setting.zh.endswith("。") for leaf in found)
    assert "copied from documents" in found[0].setting.help
