import subprocess
import sys
from pathlib import Path

import pytest

from consilience.errors import UsageError
from consilience.serving.config import ServeConfig, is_loopback
from consilience.training.settings import leaves, parse_settings, read_settings


def test_every_setting_is_told_in_both_languages() -> None:
    for leaf in leaves(ServeConfig):
        assert leaf.setting.help.endswith("."), leaf.path
        assert leaf.setting.zh.endswith("。"), leaf.path


def test_a_file_and_flags_make_a_config(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("store: 规章\nport: 9000\nlimits: {k: 7, rate: 0}\n", "utf-8")
    found = read_settings(ServeConfig, path, {"port": "0", "limits.history": "3"}, verb="serve")
    assert (found.store, found.port, found.host) == (Path("规章"), 0, "127.0.0.1")
    assert (found.limits.k, found.limits.rate, found.limits.history) == (7, 0, 3)
    assert found.limits.longest_question == 4000


def test_every_mistake_is_told_at_once() -> None:
    wrong = {"prot": 1, "port": 70_000, "limits": {"k": 0, "longest_question": 4001}}
    with pytest.raises(UsageError) as caught:
        parse_settings(ServeConfig, wrong, source="serve.yaml", verb="serve")
    for part in (
        "4 mistakes in serve.yaml",
        "prot is no setting; did you mean port?",
        "port is 70000, allowed: a whole number from 0 to 65535",
        "limits.k is 0, allowed: a whole number from 1 to 1000",
        "limits.longest_question is 4001",
    ):
        assert part in caught.value.message
    assert caught.value.hint == "consilience serve --help lists every key"


def test_keys_lie_beside_the_store_so_that_a_copy_of_it_has_none() -> None:
    assert ServeConfig(store=Path("a/knowledge")).key_path == Path("a/knowledge.keys.json")
    assert ServeConfig(keys=Path("k.json")).key_path == Path("k.json")
    assert ServeConfig(store=Path("a")).evaluation_folder == Path("a/evaluations")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("2130706433", False),
        ("0x7f000001", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("consilience.serving", ("torch", "transformers", "fastapi", "uvicorn")),
        ("consilience.serving.config", ("torch", "fastapi")),
        ("consilience.serving.app", ("torch", "transformers", "faiss")),
        ("consilience.cli.main", ("torch", "fastapi", "uvicorn", "pydantic")),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(
    module: str, unwanted: tuple[str, ...]
) -> None:
    script = f"import sys, {module}; print([n for n in {unwanted!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
