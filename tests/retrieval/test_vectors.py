from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consilience.retrieval import candidates as candidates_module
from consilience.retrieval import vectors as vectors_module
from consilience.retrieval.tuning import IndexName
from consilience.retrieval.vectors import VectorTable
from tests.retrieval.vectors import DIMENSION, unit, write

INDEXES: list[IndexName] = ["exact", "codes", "ivf", "hnsw"]


class Reference:
    """The same table as a dictionary, searched with numpy."""

    def __init__(self) -> None:
        self.rows: dict[int, NDArray[np.float16]] = {}

    def search(
        self, vector: NDArray[np.float32], depth: int, allowed: set[int]
    ) -> list[tuple[int, float]]:
        scored = [
            (number, float(row.astype(np.float32) @ vector))
            for number, row in self.rows.items()
            if number in allowed
        ]
        return sorted(scored, key=lambda ranked: -ranked[1])[:depth]


steps = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=12)


@pytest.mark.parametrize("index", ["exact", "codes"])
@pytest.mark.parametrize("few", [0, 4096])
@given(steps=steps, seed=st.integers(0, 1000), depth=st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_any_history_is_searched_as_numpy_does(
    tmp_path_factory: pytest.TempPathFactory,
    index: IndexName,
    few: int,
    steps: list[tuple[bool, int]],
    seed: int,
    depth: int,
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("dense")
    extent = write(folder, [], unit(rng, 0))
    table, reference, born = VectorTable(folder, extent, index=index), Reference(), 0
    for adds, count in steps:
        if adds:
            numbers, vectors = list(range(born, born + count)), unit(rng, count)
            extent = write(folder, numbers, vectors)
            reference.rows.update(zip(numbers, vectors, strict=True))
            born += count
        else:
            gone = np.unique(rng.integers(0, born + 1, count)).tolist()
            gone = [number for number in gone if number < born]
            extent = write(folder, [], unit(rng, 0), removed=gone)
            reference.rows = {n: row for n, row in reference.rows.items() if n not in gone}
        table.grow(extent)
    mask = rng.random(len(table.files)) < 0.5
    question = unit(rng, 1)[0].astype(np.float32)
    some = set(table.files.numbers[mask].tolist()) & reference.rows.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors_module, "_FEW", few)
        for chosen, allowed in ((None, set(reference.rows)), (mask, some)):
            for searched in (table, VectorTable(folder, extent, index=index)):
                found = searched.search(question, depth=depth, mask=chosen)
                expected = reference.search(question, depth, allowed)
                assert {number for number, _ in found} <= allowed
                assert [score for _, score in found] == pytest.approx(
                    [score for _, score in expected], abs=1e-3
                )


@pytest.fixture
def without_short_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are asked even for few rows."""
    monkeypatch.setattr(vectors_module, "_FEW", 0)


def clustered(rng: np.random.Generator, rows: int) -> NDArray[np.float16]:
    """Vectors around a hundred centres, as texts lie around their subjects."""
    around = rng.normal(size=(100, 64))[rng.integers(0, 100, rows)]
    vectors = around + 0.7 * rng.normal(size=(rows, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halved: NDArray[np.float16] = vectors.astype(np.float16)
    return halved


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.usefixtures("without_short_cuts")
def test_every_index_finds_the_nearest(tmp_path: Path, index: IndexName, masked: bool) -> None:
    rng = np.random.default_rng(3)
    vectors = clustered(rng, 6040)
    extent = write(tmp_path, list(range(6000)), vectors[:6000])
    table = VectorTable(tmp_path, extent, index=index)
    table.grow(write(tmp_path, [], vectors[:0], removed=list(range(0, 6000, 4))))
    mask = np.arange(6000) % 3 == 0 if masked else None
    allowed = [n for n in range(6000) if n % 4 and (not masked or n % 3 == 0)]
    shared = 0
    for question in vectors[6000:].astype(np.float32):
        scores = vectors[allowed].astype(np.float32) @ question
        best = {allowed[i] for i in np.argsort(-scores)[:10]}
        found = [n for n, _ in table.search(question, depth=10, mask=mask)]
        assert set(found) <= set(allowed)
        shared += len(best & set(found))
    assert shared / 400 >= (1.0 if index == "exact" else 0.95)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
@pytest.mark.usefixtures("without_short_cuts")
def test_an_approximate_index_is_built_once_and_again_when_it_is_outgrown(
    tmp_path: Path, index: IndexName, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = candidates_module._built
    monkeypatch.setattr(
        candidates_module, "_built", lambda n, f: (built.append(len(f)), build(n, f))[1]
    )
    rng = np.random.default_rng(4)
    vectors = clustered(rng, 2000)
    extent = write(tmp_path, list(range(1000)), vectors[:1000])
    VectorTable(tmp_path, extent, index=index)
    table = VectorTable(tmp_path, extent, index=index)
    assert built == [1000]
    table.grow(write(tmp_path, list(range(1000, 1200)), vectors[1000:1200]))
    assert built == [1000]
    new = vectors[1100].astype(np.float32)
    assert table.search(new, depth=1)[0][0] == 1100
    table.grow(write(tmp_path, list(range(1200, 2000)), vectors[1200:]))
    assert built == [1000, 2000]
    assert [p.name.split("-")[2] for p in tmp_path.glob(f"{index}-*")] == ["2000"]


@pytest.mark.parametrize("deed", ["damage", "cut off"])
@pytest.mark.usefixtures("without_short_cuts")
def test_an_approximate_index_that_was_changed_is_built_again(tmp_path: Path, deed: str) -> None:
    vectors = clustered(np.random.default_rng(5), 500)
    extent = write(tmp_path, list(range(500)), vectors)
    question = vectors[7].astype(np.float32)
    found = VectorTable(tmp_path, extent, index="ivf").search(question, depth=5)
    (path,) = tmp_path.glob("ivf-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if deed == "cut off" else whole[:-9] + b"x" * 9)
    assert VectorTable(tmp_path, extent, index="ivf").search(question, depth=5) == found
    (again,) = tmp_path.glob("ivf-*")
    assert len(again.read_bytes()) == len(whole)


def test_the_number_of_rows_decides_on_the_index(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(6), 30)
    table = VectorTable(tmp_path, write(tmp_path, list(range(10)), vectors[:10]), codes_from=20)
    assert table._name == "exact"
    table.grow(write(tmp_path, list(range(10, 30)), vectors[10:]))
    assert table._name == "codes"
    assert len(table.search(vectors[0].astype(np.float32), depth=30)) == 30


@pytest.mark.usefixtures("without_short_cuts")
def test_dead_rows_that_lie_nearest_do_not_hide_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    question = unit(rng, 1, 64)
    near = np.repeat(question, 300, axis=0) + 0.01 * unit(rng, 300, 64)
    extent = write(tmp_path, list(range(400)), np.concatenate([near, unit(rng, 100, 64)]))
    table = VectorTable(tmp_path, extent, index="codes")
    table.grow(write(tmp_path, [], near[:0], removed=list(range(299))))
    for passed_over in (1000, 0):
        monkeypatch.setattr(vectors_module, "_PASSED_OVER", passed_over)
        found = table.search(question[0].astype(np.float32), depth=2, candidates=10)
        assert found[0][0] == 299
        assert len(found) == 2


@pytest.mark.usefixtures("without_short_cuts")
def test_depth_beyond_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(8), 1500, 11)
    table = VectorTable(tmp_path, write(tmp_path, list(range(1500)), vectors), index="codes")
    question = vectors[3].astype(np.float32)
    assert len(table.search(question, depth=1200)) == 1200
    everything = table.search(question, depth=1500)
    monkeypatch.setattr(vectors_module, "_MANY", 100)
    monkeypatch.setattr(vectors_module, "_BLOCK", 64)
    assert table.search(question, depth=1500) == everything


def test_equal_scores_are_ordered_by_number(tmp_path: Path) -> None:
    row = unit(np.random.default_rng(9), 1)
    table = VectorTable(tmp_path, write(tmp_path, [3, 5, 7], np.repeat(row, 3, axis=0)))
    found = table.search(row[0].astype(np.float32), depth=3)
    assert [number for number, _ in found] == [3, 5, 7]
    assert len({score for _, score in found}) == 1
    assert row.shape[1] == DIMENSION
