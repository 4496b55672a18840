from collections.abc import Iterator
from pathlib import Path

import pytest

from consilience.store import Store
from tests.retrieval.encoders import TrigramEncoder


@pytest.fixture
def encoder() -> TrigramEncoder:
    return TrigramEncoder()


@pytest.fixture
def store(tmp_path: Path, encoder: TrigramEncoder) -> Iterator[Store]:
    with Store.open(tmp_path / "knowledge", encoder=encoder) as opened:
        yield opened
