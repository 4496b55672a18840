"""The examples in the docstrings run and print what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "consilience.questions.read",
    "consilience.training.card",
    "consilience.training.collapse",
    "consilience.training.data",
    *(
        f"consilience.training.objectives.{name}"
        for name in (
            *("abstention", "distillation", "grad_cache", "joint", "masking", "mixture"),
            *("retriever", "self_supervision", "spans"),
        )
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
