import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.terminal import Outcome, consilience

VISITS = """# Visiting hours

Visitors are welcome on weekdays from 14:30 to 20:00. Children come with an adult.

At the weekend the wards open at 10:30 and close at 20:00.
"""
LEAVE = "请假办法\n\n工作满一年的员工每年有五天年假。请假应当提前三天提出。\n\n病假凭医院证明。\n"
FEES = "service,fee\nnew card,19 yuan\nletter of reference,40 yuan\n"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """English, no colours, no debugging, whatever the machine is set to."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in ("COLUMNS", "FORCE_COLOR", "CONSILIENCE_DEBUG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def _furnished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A working directory with documents, a model and a store, to be copied."""
    here = tmp_path_factory.mktemp("furnished")
    (here / "docs" / "制度").mkdir(parents=True)
    (here / "docs" / "visits.md").write_text(VISITS, "utf-8")
    (here / "docs" / "制度" / "请假.txt").write_text(LEAVE, "utf-8")
    (here / "docs" / "fees.csv").write_text(FEES, "utf-8")
    shutil.copytree(tiny_model_folder, here / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert consilience("add", "docs", "--model", "model", "--quiet") == Outcome(0, "", "")
    return here


@pytest.fixture
def room(_furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the furnished directory, as the working directory."""
    here = tmp_path / "room"
    shutil.copytree(_furnished, here)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def doubting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for which no support is ever enough."""
    from consilience.encoding.folder import write_folder
    from tests.tiny import tiny_config, tiny_tensors, tiny_tokenizer

    words = tiny_tokenizer()
    config = tiny_config(words)
    folder = tmp_path_factory.mktemp("doubting")
    tensors = tiny_tensors(config)
    write_folder(
        folder,
        replace(config, support_thresholds={"zh": 2.0, "en": 2.0, "other": 2.0}),
        tensors,
        words.to_json(),
    )
    return folder


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights, and so another fingerprint."""
    from tests.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def passage_id(room: Path) -> str:
    """The passage about visiting hours at the weekend or on weekdays."""
    found = consilience("search", "visitors weekdays", "--mode", "bm25", "--k", 1, "--json")
    return str(found.document["hits"][0]["id"])
