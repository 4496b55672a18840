"""Where a model computes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience import Rag
from consilience.cli.main import run
from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.model.loading import load_any_encoder, load_parts
from consilience.model.placing import VARIABLE, device_named, place
from tests.compat.tiny_rag import write_checkpoint
from tests.tiny import write_tiny_model


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which torch finds two accelerators."""

    def current(check_available: bool = False) -> torch.device:
        assert check_available
        return torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


def tensors_of(one: object) -> Iterator[torch.Tensor]:
    """The weights of an encoder, whatever its class calls them."""
    for part in vars(one).values():
        if isinstance(part, torch.nn.Module):
            yield from part.parameters()


def test_nothing_said_is_nothing_moved() -> None:
    assert device_named(None) is None
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta", "tpu9", "cuda:x", "nowhere:0"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(UsageError, match=rf"no device '{name}' here; torch finds cpu$"):
        device_named(name)


@pytest.mark.usefixtures("plain")
def test_auto_without_an_accelerator_is_the_processor() -> None:
    assert device_named("auto") == torch.device("cpu")


@pytest.mark.usefixtures("accelerated")
def test_the_accelerator_that_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("auto") == torch.device("cuda")
    assert device_named("cuda:1") == torch.device("cuda:1")
    assert device_named("cpu") == torch.device("cpu")
    for name in ("cuda:2", "mps"):
        with pytest.raises(UsageError, match=r"torch finds cpu, cuda$"):
            device_named(name)
    monkeypatch.setenv(VARIABLE, "cuda:1")
    assert device_named(None) == torch.device("cuda:1")
    assert device_named("cpu") == torch.device("cpu"), "a name goes before the environment"


@pytest.mark.parametrize("kind", ["ours", "transformers"])
def test_everything_is_moved(tiny_model_folder: Path, tmp_path: Path, kind: str) -> None:
    model = tiny_model_folder if kind == "ours" else write_checkpoint(tmp_path / "checkpoint")
    parts = load_parts(model)
    place(parts.model, parts.encoder, torch.device("meta"))
    moved: Any = [*parts.model.parameters(), *tensors_of(parts.encoder)]  # type: ignore[union-attr]
    assert len(moved) > 20
    assert {one.device.type for one in moved} == {"meta"}


@pytest.mark.parametrize("kind", ["ours", "transformers"])
def test_an_encoder_by_itself_is_moved(tmp_path: Path, kind: str) -> None:
    # A folder of its own: an encoder is read once in a process, and others want to compute with it.
    write = write_tiny_model if kind == "ours" else write_checkpoint
    encoder = load_any_encoder(write(tmp_path / "model"))
    place(None, encoder, torch.device("meta"))
    assert {one.device.type for one in tensors_of(encoder)} == {"meta"}


def test_a_model_on_a_named_device_answers(tiny_model_folder: Path) -> None:
    rag = Rag.load(tiny_model_folder, device="cpu")
    generator = rag.model.generator
    targets = torch.tensor([[7, 2]])
    assert generator.score(generator.read([Pair("what", "", "the fee")]), targets).isfinite().all()


def test_the_environment_reaches_encoders_and_the_command_line(
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, "tpu9")
    with pytest.raises(UsageError, match="no device 'tpu9' here"):
        load_any_encoder(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fee.txt").write_text("the fee is nine", "utf-8")
    assert run(["add", "fee.txt", "--model", str(tiny_model_folder)]) == 2
    assert "no device 'tpu9' here" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, "cpu")
    assert run(["add", "fee.txt", "--model", str(tiny_model_folder)]) == 0
