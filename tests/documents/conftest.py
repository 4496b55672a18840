"""What the tests of this room share: a way to read bytes as a file of some name."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consilience.documents import Document, ReadLimits, read_document
from consilience.documents.limits import DEFAULT_LIMITS
from consilience.errors import DocumentError

Read = Callable[..., Document]
Refusal = Callable[..., DocumentError]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads bytes as the file `name`, which must hold one document."""

    def reading(name: str, data: bytes, limits: ReadLimits = DEFAULT_LIMITS) -> Document:
        path = tmp_path / name
        path.write_bytes(data)
        (document,) = read_document(path, source=f"handbook/{name}", limits=limits)
        return document

    return reading


@pytest.fixture
def refusal(tmp_path: Path) -> Refusal:
    """Reads bytes as the file `name`, which must fail, and hands over the error."""

    def reading(name: str, data: bytes, limits: ReadLimits = DEFAULT_LIMITS) -> DocumentError:
        path = tmp_path / name
        path.write_bytes(data)
        return failure(path, limits)

    return reading


def failure(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> DocumentError:
    """The error of a file that must fail, which fits on one line."""
    with pytest.raises(DocumentError) as caught:
        read_document(path, source=path.name, limits=limits)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def reason(path: Path) -> str:
    """The message of a file that must fail."""
    return failure(path).message


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder of a user without privileges, as whom the test runs even under root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs users as POSIX has them")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        if root:
            os.seteuid(0)
