from collections.abc import Iterator
from pathlib import Path

import pytest

from consilience.store import Store
from tests.store.doubles import HashingEncoder


@pytest.fixture
def encoder() -> HashingEncoder:
    return HashingEncoder()


@pytest.fixture
def store(tmp_path: Path, encoder: HashingEncoder) -> Iterator[Store]:
    with Store.open(tmp_path / "knowledge", encoder=encoder) as opened:
        yield opened
