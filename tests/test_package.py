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


def test_threads_wait_passively_unless_told_otherwise() -> None:
    program = "import os, consilience; print(os.environ['OMP_WAIT_POLICY'])"
    assert printed(program) == "PASSIVE"
    assert printed(program, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


@pytest.mark.parametrize("name", consilience.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(consilience, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        consilience.nothing  # noqa: B018
