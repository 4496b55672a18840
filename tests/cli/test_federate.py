"""`consilience federate`: a whole simulation, its journal on the screen, keys, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from consilience.cli.federate import Manner
from consilience.cli.main import run
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.training.settings import leaves
from tests.cli.terminal import consilience
from tests.training.small import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def federation(world: dict[str, Path], tmp_path: Path) -> Path:
    """Two parties, two rounds of one step."""
    parties = []
    for name in ("ward", "银行"):
        party = {
            "name": name,
            "state": str(tmp_path / name),
            "store": str(world["store"]),
            "model": str(world["model"]),
            "data": {"train": [str(world["data"])]},
        }
        parties.append(written(tmp_path / f"{name}.yaml", party))
    recipe = {"model": str(world["model"]), "batch": 4, "k": 2, "learning_rate": 1e-3}
    settings = {
        "output": str(tmp_path / "run"),
        "recipe": str(written(tmp_path / "recipe.yaml", recipe)),
        "parties": list(map(str, parties)),
        "rounds": 2,
        "steps": 1,
    }
    return written(tmp_path / "federation.yaml", settings)


def written(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    return path


def test_a_simulation_from_beginning_to_status(
    federation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["federate", "simulate", str(federation), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {
        *("output", "run", "rounds", "model", "resumed_from", "reason", "without_model"),
    }
    assert [one["round"] for one in found["rounds"]] == [1, 2]
    for one in found["rounds"]:
        assert one.keys() >= {"round", "metrics", "bytes_up", "bytes_down", "epsilon", "lost"}
        assert one["parties"].keys() == {"ward", "银行"}
        assert one["bytes_up"] > 1000
    assert Path(found["model"], "model.safetensors").is_file()

    # The same command goes on, and a flag wins over the file.
    assert run(["federate", "simulate", str(federation), "--rounds", "3", "--lang", "en"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("round 3/3 · loss ")
    assert " · up " in told[0]
    assert told[-2] == f"3 rounds; the model is in {found['model']}"
    assert told[-1] == f"next: consilience evaluate DATA --model {found['model']}"

    assert run(["federate", "status", found["output"], "--lang", "zh", "--follow"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["轮", "loss", "参与方", "↑", "↓", "ε", "掉队"]
    assert [line.split()[0] for line in table[1:4]] == ["1/3", "2/3", "3/3"]
    assert table[1].split()[2] == "2"
    assert table[-1] == "训练已结束。"
    assert run(["federate", "status", found["output"], "--json"]) == 0
    standing = json.loads(capsys.readouterr().out)
    assert (standing["of"], standing["ended"], len(standing["rounds"])) == (3, True, 3)


def test_keys_from_the_first_to_the_last(room: Path) -> None:
    done = consilience("federate", "keys", "make", "--host", "127.0.0.1", "--keys", "k", "--json")
    assert (done.code, done.document["parties"], done.document["hosts"]) == (0, [], ["127.0.0.1"])
    done = consilience("federate", "keys", "party", "ward", "--keys", "w", "--lang", "en")
    assert done.out == (
        "Send w/ward.public.json, which is public, to the coordinator; keep the other files.\n"
    )
    accept = ("federate", "keys", "accept", "w/ward.public.json", "--keys", "k", "--json")
    accepted = consilience(*accept).document
    assert accepted["parties"] == ["ward"]
    assert accepted["fingerprint"]
    told = consilience("federate", "keys", "list", "--keys", "k", "--lang", "zh").out.splitlines()
    assert told[0] == "参与方: ward"
    assert told[1].startswith("127.0.0.1 · ")
    assert told[2] == f"名册指纹: {accepted['fingerprint']}"
    renewed = consilience(
        "federate", "keys", "renew", "--keys", "k", "--days", 9, "--json"
    ).document
    assert renewed["expires"] < accepted["expires"]
    gone = consilience("federate", "keys", "remove", "ward", "--keys", "k", "--json").document
    assert gone["parties"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate",), "simulate takes one CONFIG, received 0"),
        (("join", "a.yaml", "b.yaml"), "join takes one PARTY, received 2"),
        (("status", "run", "--rounds", 3), "--rounds does nothing with status"),
        (("join", "a.yaml", "--rounds", 3), "--rounds does nothing with join"),
        (("simulate", "f.yaml", "--demo"), "--demo does nothing with simulate"),
        (("simulate", "f.yaml", "--follow"), "--follow does nothing with simulate"),
        (("status", "run", "--host", "x"), "--host does nothing with status"),
        (("keys",), "keys needs to be told what to do"),
        (("keys", "burn"), "keys cannot 'burn'"),
        (("keys", "party"), "keys party takes one name, received 0"),
        (("keys", "list", "--rounds", 3), "--rounds does nothing with keys"),
    ],
)
def test_what_does_nothing_is_refused(room: Path, words: tuple[object, ...], message: str) -> None:
    done = consilience("federate", *words, "--json")
    assert (done.code, done.document["error"]["message"]) == (2, message)


def test_what_is_not_there_is_missing(room: Path) -> None:
    for words in (("simulate", "no.yaml"), ("join", "no.yaml"), ("status", "no")):
        assert consilience("federate", *words, "--json").code == 3


def test_all_mistakes_of_a_file_are_told_at_once(room: Path) -> None:
    written(Path("f.yaml"), {"output": "o", "recipe": "r", "ronds": 3, "travel": {"kind": "air"}})
    error = consilience("federate", "simulate", "f.yaml", "--json").document["error"]
    assert "ronds is no setting; did you mean rounds?" in error["message"]
    assert "travel.kind is 'air'" in error["message"]
    assert error["hint"] == "consilience federate --help lists every key"


@pytest.mark.parametrize("kind", [FederationConfig, PartyConfig])
def test_every_setting_is_explained_in_both_languages(kind: type) -> None:
    for leaf in leaves(kind):
        assert leaf.setting.help.endswith(".")
        assert leaf.setting.zh.endswith("。")
    assert Manner().days == 365
