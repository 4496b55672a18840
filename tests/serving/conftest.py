import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilience.serving.service import Service
from tests.serving.small import small_service, write_store


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A folder with a store, to be copied."""
    folder = tmp_path_factory.mktemp("served")
    write_store(folder, tiny_model_folder)
    return folder


@pytest.fixture
def served(_written: Path, tmp_path: Path) -> Path:
    """A folder of its own with the store of three documents."""
    folder = tmp_path / "served"
    shutil.copytree(_written, folder)
    return folder


@pytest.fixture
def service(served: Path, tiny_model_folder: Path) -> Iterator[Service]:
    """A service on loopback without keys."""
    with small_service(served, tiny_model_folder) as opened:
        yield opened
