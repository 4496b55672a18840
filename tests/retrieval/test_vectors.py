import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consilience.retrieval.vectors import VectorTable

DIMENSION = 16


def unit(rng: np.random.Generator, rows: int, dimension: int = DIMENSION) -> NDArray[np.float16]:
    vectors = rng.normal(size=(rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halved: NDArray[np.float16] = vectors.astype(np.float16)
    return halved


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


@pytest.mark.parametrize("codes_from", [0, 1_000_000])
@given(steps=steps, seed=st.integers(0, 1000), depth=st.integers(1, 30))
@settings(deadline=None)
def test_any_history_is_searched_as_numpy_does(
    codes_from: int, steps: list[tuple[bool, int]], seed: int, depth: int
) -> None:
    rng = np.random.default_rng(seed)
    table, reference, born = VectorTable(DIMENSION, codes_from=codes_from), Reference(), 0
    for adds, count in steps:
        if adds:
            numbers, vectors = list(range(born, born + count)), unit(rng, count)
            table.add(numbers, vectors)
            reference.rows.update(zip(numbers, vectors, strict=True))
            born += count
        else:
            gone = rng.integers(0, born + 1, count).tolist()
            stay = table.remove(gone)
            assert stay.tolist() == [number not in gone for number in reference.rows]
            reference.rows = {n: row for n, row in reference.rows.items() if n not in gone}
    assert len(table) == len(reference.rows)
    mask = rng.random(len(table)) < 0.5
    question = unit(rng, 1)[0].astype(np.float32)
    everyone, some = set(reference.rows), set(np.array(list(reference.rows), int)[mask].tolist())
    for chosen, allowed in ((None, everyone), (mask, some)):
        found = table.search(question, depth=depth, mask=chosen)
        expected = reference.search(question, depth, allowed)
        assert {number for number, _ in found} <= allowed
        assert [score for _, score in found] == pytest.approx(
            [score for _, score in expected], abs=1e-3
        )


def test_signs_choose_candidates_that_hold_the_nearest() -> None:
    rng = np.random.default_rng(3)
    vectors, questions = unit(rng, 5000, 128), unit(rng, 20, 128).astype(np.float32)
    exact, signs = VectorTable(128), VectorTable(128, codes_from=1)
    for table in (exact, signs):
        table.add(range(5000), vectors)
    shared = [
        len({n for n, _ in exact.search(q, depth=10)} & {n for n, _ in signs.search(q, depth=10)})
        for q in questions
    ]
    assert np.mean(shared) >= 9  # random vectors, which have no neighbourhoods, are the worst case


def test_a_dimension_that_fills_no_byte_and_depth_beyond_the_candidates() -> None:
    rng = np.random.default_rng(4)
    table = VectorTable(11, codes_from=1)
    table.add(range(1500), unit(rng, 1500, 11))
    question = unit(rng, 1, 11)[0].astype(np.float32)
    assert len(table.search(question, depth=1200)) == 1200
    assert len(table.search(question, depth=5)) == 5


def test_equal_scores_are_ordered_by_number() -> None:
    table = VectorTable(DIMENSION)
    row = unit(np.random.default_rng(5), 1)
    table.add([7, 3, 5], np.repeat(row, 3, axis=0))
    assert [n for n, _ in table.search(row[0].astype(np.float32), depth=3)] == [3, 5, 7]
