"""Which weights a run moves, and how."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small import config_of, opened_session, write_dpr_world, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("parts", "beside"),
    [
        (["question_encoder", "generator"], {"question_encoder", "generator"}),
        (["question_encoder"], {"question_encoder"}),
        (["generator"], {"generator"}),
    ],
)
def test_adapters_stand_beside_what_learns_and_nowhere_else(
    world: dict[str, Path], tmp_path: Path, parts: list[str], beside: set[str]
) -> None:
    """Nor do they where nothing would come of it but numbers to keep moments of."""
    adapter = {"kind": "lora", "rank": 2}
    session, store = opened_session(config_of(world, tmp_path, train=parts, adapter=adapter))
    store.close()
    names = [name for name, weight in session.learner.named_parameters() if weight.requires_grad]
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert {name.split(".")[1] for name in names} == beside


def test_dropout_is_that_of_the_settings_everywhere(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    dpr = write_dpr_world(tmp_path_factory.mktemp("dpr"))
    config = config_of(dpr, tmp_path / "run", dropout=0.3, train=["generator"])
    session, store = opened_session(config)
    store.close()
    modules: list[Any] = list(session.rag.model.modules())
    named = ("dropout", "attention_dropout", "activation_dropout")
    numbers = [getattr(module, name, None) for module in modules for name in named]
    layers = [module.p for module in modules if isinstance(module, torch.nn.Dropout)]
    assert set(layers) == {0.3}
    assert {number for number in numbers if isinstance(number, float)} == {0.3}
