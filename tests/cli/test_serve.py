"""What `serve` refuses before it listens; what it does then is in tests/serving/test_running.py."""

import sys
from pathlib import Path

import pytest

from consilience.cli.main import run
from consilience.serving.config import ServeConfig
from consilience.training.settings import leaves
from tests.cli.terminal import consilience


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_other_machines_need_a_key(room: Path, host: str) -> None:
    done = consilience("serve", "--host", host, "--model", "nowhere", "--json")
    assert done.code == 2
    error = done.document["error"]
    assert error["message"] == f"other machines reach {host}, and there is no key yet"
    assert error["hint"] == "consilience keys create admin --scope admin"


def test_the_line_that_makes_a_key_makes_the_one_that_is_needed(room: Path) -> None:
    flags = ("--host", "0.0.0.0", "--store", "other", "--keys", "mine.json")
    hint = consilience("serve", *flags, "--json").document["error"]["hint"]
    assert hint == "consilience keys create admin --scope admin --store other --keys mine.json"
    assert consilience(*hint.split()[1:]).code == 0
    done = consilience("serve", *flags, "--model", "nowhere", "--json")
    assert done.document["error"]["kind"] == "missing"


def test_a_file_of_keys_without_a_key_is_not_enough(room: Path) -> None:
    made = consilience("keys", "create", "a", "--json").document
    consilience("keys", "revoke", made["id"])
    done = consilience("serve", "--host", "0.0.0.0", "--model", "nowhere", "--json")
    assert "there is no key yet" in done.document["error"]["message"]


def test_every_mistake_of_file_and_flags_is_told_at_once(room: Path) -> None:
    Path("serve.yaml").write_text("prot: 1\nlimits: {k: many}\n", "utf-8")
    done = consilience("serve", "--port", "x", "--json")
    assert done.code == 2
    for part in ("3 mistakes in serve.yaml", "did you mean port", "port is 'x'", "limits.k is"):
        assert part in done.document["error"]["message"]
    assert done.document["error"]["hint"] == "consilience serve --help lists every key"


def test_a_config_that_is_not_there_is_told(room: Path) -> None:
    done = consilience("serve", "other.yaml", "--json")
    assert (done.code, done.document["error"]["kind"]) == (3, "missing")


def test_flags_alone_are_enough_and_are_checked(room: Path) -> None:
    done = consilience("serve", "--grace", "-1", "--json")
    assert "a mistake in the flags: grace is '-1'" in done.document["error"]["message"]


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(
    room: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = consilience("serve", "--model", "model", "--json")
    assert done.code == 8
    assert done.document["error"]["message"] == f"serving needs the package {package}"
    assert done.document["error"]["hint"] == "pip install 'consilience[serve]'"


def test_every_setting_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0
    told = capsys.readouterr().out
    for leaf in leaves(ServeConfig):
        assert f"--{leaf.path}" in told
