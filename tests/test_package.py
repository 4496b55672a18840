"""What `import consilience` does to the process that imports it: next to nothing."""

import subprocess
import sys

import pytest

import consilience


def printed(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_loads_no_engine() -> None:
    heavy = ("torch", "transformers", "faiss", "numpy", "apsw", "rich", "typer")
    program = f"import sys, consilience; print([m for m in {heavy!r} if m in sys.modules])"
    assert printed(program) == "[]"


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE"),
        ("THP_MEM_ALLOC_ENABLE", "1", "0"),
        ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256", "1024"),
    ],
)
def test_what_torch_is_told_unless_somebody_told_it(name: str, ours: str, theirs: str) -> None:
    program = f"import os, consilience; print(os.environ[{name!r}])"
    assert printed(program) == ours
    assert printed(program, **{name: theirs}) == theirs


@pytest.mark.parametrize("name", consilience.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(consilience, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        consilience.nothing  # noqa: B018
