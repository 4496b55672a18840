import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consilience.retrieval.vector_files import (
    MANIFEST,
    Extent,
    VectorFiles,
    VectorWriter,
    WornFilesError,
    clear_away,
    compact,
    paths_of,
    read_extent,
    rows_of,
    write_extent,
)
from tests.retrieval.vectors import DIMENSION, LABELS, labels, new_extent, unit, write

ROWS = np.arange(5)


@pytest.fixture
def vectors() -> NDArray[np.float16]:
    return unit(np.random.default_rng(0), 5)


@pytest.fixture
def extent(tmp_path: Path, vectors: NDArray[np.float16]) -> Extent:
    return write(tmp_path, [1, 2, 5, 6, 9], vectors)


def test_what_was_written_is_read(
    tmp_path: Path, extent: Extent, vectors: NDArray[np.float16]
) -> None:
    assert read_extent(tmp_path) == extent
    assert (extent.rows, extent.sequence, extent.removed) == (5, 1, 0)
    files = VectorFiles(tmp_path, extent)
    assert files.numbers.tolist() == [1, 2, 5, 6, 9]
    assert files.live.all()
    np.testing.assert_array_equal(files.vectors(ROWS), vectors)
    assert [extent.kinds[kind] for kind in files.kind_of] == labels([1, 2, 5, 6, 9])
    assert set(extent.kinds) == set(LABELS)


def test_what_is_appended_is_taken_in(
    tmp_path: Path, extent: Extent, vectors: NDArray[np.float16]
) -> None:
    files = VectorFiles(tmp_path, extent)
    more = unit(np.random.default_rng(1), 2)
    grown = write(tmp_path, [10, 12], more, removed=[2, 9, 77])
    assert grown.continues(extent)
    assert not extent.continues(grown)
    assert not replace(grown, token=new_extent().token).continues(extent)
    files.grow(grown)
    for seen in (files, VectorFiles(tmp_path, grown)):
        assert seen.numbers.tolist() == [1, 2, 5, 6, 9, 10, 12]
        assert seen.numbers[seen.live].tolist() == [1, 5, 6, 10, 12]
        np.testing.assert_array_equal(seen.vectors(np.arange(7)), np.concatenate([vectors, more]))
        assert [grown.kinds[kind] for kind in seen.kind_of] == labels(seen.numbers.tolist())


def test_work_that_was_not_vouched_for_is_written_over(
    tmp_path: Path, extent: Extent, vectors: NDArray[np.float16]
) -> None:
    with VectorWriter(tmp_path, extent) as writer:
        writer.take([10, 11, 12], unit(np.random.default_rng(2), 3), labels([10, 11, 12]))
        writer.forget([1, 2])
    assert read_extent(tmp_path) == extent
    np.testing.assert_array_equal(VectorFiles(tmp_path, extent).vectors(ROWS), vectors)
    other = unit(np.random.default_rng(3), 1)
    grown = VectorFiles(tmp_path, write(tmp_path, [20], other))
    assert grown.numbers.tolist() == [1, 2, 5, 6, 9, 20]
    assert grown.live.all()
    np.testing.assert_array_equal(grown.vectors(np.array([5])), other)


def test_files_without_rows(tmp_path: Path) -> None:
    extent = write(tmp_path, [], np.empty((0, DIMENSION), np.float16))
    files = VectorFiles(tmp_path, extent)
    assert len(files) == 0
    assert list(files.codes(0)) == []


@pytest.mark.parametrize("name", ["vectors", "records"])
@pytest.mark.parametrize("deed", ["delete", "cut off", "zero"])
def test_files_that_are_gone_short_or_empty_are_recognised(
    tmp_path: Path, extent: Extent, name: str, deed: str
) -> None:
    path = paths_of(tmp_path, extent)[name]
    size = path.stat().st_size
    if deed == "delete":
        path.unlink()
    else:
        os.truncate(path, size - 1)
    if deed == "zero":
        path.write_bytes(bytes(size))
    with pytest.raises(WornFilesError):
        VectorFiles(tmp_path, extent).vectors(ROWS)


@pytest.mark.parametrize("name", ["vectors", "records", "removed"])
def test_every_byte_is_checked(tmp_path: Path, vectors: NDArray[np.float16], name: str) -> None:
    extent = write(tmp_path, [1, 2, 5, 6, 9], vectors, removed=[0])
    path = paths_of(tmp_path, extent)[name]
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        with pytest.raises(WornFilesError, match=rf"{name}-{extent.token} has changed"):
            VectorFiles(tmp_path, extent).vectors(ROWS)
    path.write_bytes(whole)
    VectorFiles(tmp_path, extent).vectors(ROWS)


def test_two_changes_that_cancel_in_a_sum_are_seen(tmp_path: Path, extent: Extent) -> None:
    path = paths_of(tmp_path, extent)["vectors"]
    changed = bytearray(path.read_bytes())
    changed[7] ^= 0x80  # the highest bits of two words
    changed[15] ^= 0x80
    path.write_bytes(changed)
    with pytest.raises(WornFilesError):
        VectorFiles(tmp_path, extent).vectors(ROWS)


def test_a_vector_that_nobody_asks_for_is_not_read(tmp_path: Path, extent: Extent) -> None:
    path = paths_of(tmp_path, extent)["vectors"]
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    files = VectorFiles(tmp_path, extent)
    files.vectors(ROWS[:-1])
    with pytest.raises(WornFilesError, match="has changed"):
        files.vectors(ROWS)


def test_a_file_that_is_cut_off_while_it_is_used_is_not_touched(
    tmp_path: Path, extent: Extent
) -> None:
    files = VectorFiles(tmp_path, extent)
    files.vectors(ROWS)
    os.truncate(paths_of(tmp_path, extent)["vectors"], 0)
    with pytest.raises(WornFilesError, match="was cut off"):
        files.vectors(ROWS)


def test_files_that_are_deleted_while_they_are_used_stay_readable(
    tmp_path: Path, extent: Extent, vectors: NDArray[np.float16]
) -> None:
    files = VectorFiles(tmp_path, extent)
    clear_away(tmp_path, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST]
    np.testing.assert_array_equal(files.vectors(ROWS), vectors)


@pytest.mark.parametrize("names", [("vectors",), ("records",), ("vectors", "records")])
def test_files_of_another_store_are_recognised(
    tmp_path: Path, extent: Extent, names: tuple[str, ...]
) -> None:
    (tmp_path / "other").mkdir()
    vectors = unit(np.random.default_rng(1), 5)
    theirs = write(tmp_path / "other", [1, 2, 5, 6, 9], vectors, identity="another")
    for name in names:
        foreign = paths_of(tmp_path / "other", theirs)[name].read_bytes()
        paths_of(tmp_path, extent)[name].write_bytes(foreign)
    with pytest.raises(WornFilesError):
        VectorFiles(tmp_path, extent).vectors(ROWS)


def test_records_in_another_order_are_recognised(tmp_path: Path, extent: Extent) -> None:
    path = paths_of(tmp_path, extent)["records"]
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(5, -1)
    path.write_bytes(records[[0, 2, 1, 3, 4]].tobytes())
    with pytest.raises(WornFilesError, match="is not in order"):
        VectorFiles(tmp_path, extent)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 4},
        {"sequence": 9},
        {"recipe": "vectors 0"},
        {"token": "../../x"},
        {"kinds": 3},
        {"more": 1},
    ],
)
def test_a_manifest_that_was_changed_is_none(
    tmp_path: Path, extent: Extent, change: dict[str, object]
) -> None:
    path = tmp_path / MANIFEST
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps({**found, "extent": {**found["extent"], **change}}))
    assert read_extent(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"extent": 1, "sha256": 1}'])
def test_what_is_no_manifest_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    assert read_extent(tmp_path) is None


def test_a_sealed_manifest_that_names_a_place_elsewhere_is_none(tmp_path: Path) -> None:
    outside = Extent("vectors 1", "store", "encoder", DIMENSION, "../../elsewhere")
    write_extent(tmp_path, outside)
    assert read_extent(tmp_path) is None


def test_a_sealed_manifest_of_another_layout_is_none(tmp_path: Path, extent: Extent) -> None:
    write_extent(tmp_path, replace(extent, recipe="vectors 0"))
    assert read_extent(tmp_path) is None


def test_the_living_are_copied_together(
    tmp_path: Path, extent: Extent, vectors: NDArray[np.float16]
) -> None:
    write(tmp_path, [], vectors[:0], removed=[1, 6])
    before = read_extent(tmp_path)
    assert before is not None
    after = compact(tmp_path, VectorFiles(tmp_path, before))
    assert read_extent(tmp_path) == after
    assert after.token != before.token
    assert not after.continues(before)
    assert (after.rows, after.removed, after.sequence) == (3, 0, before.sequence)
    files = VectorFiles(tmp_path, after)
    assert files.numbers.tolist() == [2, 5, 9]
    assert [after.kinds[kind] for kind in files.kind_of] == labels([2, 5, 9])
    np.testing.assert_array_equal(files.vectors(np.arange(3)), vectors[[1, 2, 4]])
    clear_away(tmp_path, after)
    assert len(list(tmp_path.iterdir())) == 4


def test_numbers_are_found_at_their_rows() -> None:
    numbers = np.array([1, 4, 5, 9])
    assert rows_of(numbers, np.array([0, 1, 5, 6, 9, 10])).tolist() == [0, 2, 3]
    assert rows_of(numbers[:0], np.array([1])).tolist() == []


def test_two_extents_have_two_names() -> None:
    assert new_extent().token != new_extent().token
