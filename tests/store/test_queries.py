"""Reading: every answer is one committed state, and changes are all that an index needs."""

import threading
from pathlib import Path

import numpy as np
import pytest

from consilience.documents import Document
from consilience.errors import MissingError
from consilience.store import SourceInfo, Store
from consilience.store import queries as queries_module
from tests.store.doubles import HashingEncoder


def document(source: str, text: str = "") -> Document:
    return Document(text=text or f"About {source}.", source=source)


class Index:
    """The smallest derived index: what it was told, by number."""

    def __init__(self) -> None:
        self.sequence = 0
        self.rows: dict[int, str] = {}

    def follow(self, store: Store) -> None:
        with store.changes(self.sequence) as changes:
            for number in changes.removed:
                del self.rows[number]
            taken = 0
            for batch in changes.added:
                assert not self.rows.keys() & {row.number for row in batch}
                self.rows |= {row.number: row.text for row in batch}
                taken += len(batch)
            assert taken == changes.rows
            self.sequence = changes.sequence


def test_an_index_that_follows_holds_what_the_store_holds(store: Store) -> None:
    eager, lazy = Index(), Index()
    store.add(document("a"), document("b"))
    eager.follow(store)
    store.add(document("a", "New."))
    eager.follow(store)
    store.add(document("c"), document("d"))
    store.remove("b", "c")
    eager.follow(store)
    eager.follow(store)
    lazy.follow(store)
    assert eager.rows == lazy.rows
    assert sorted(eager.rows.values()) == ["About d.", "New."]
    assert eager.sequence == lazy.sequence == store.sequence == 6


def test_what_came_and_went_unseen_is_not_mentioned(store: Store) -> None:
    store.add(document("a"))
    store.remove("a")
    with store.changes(0) as changes:
        assert (changes.removed, list(changes.added), changes.rows) == ([], [], 0)


def test_changes_come_in_batches_by_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries_module, "BATCH", 3)
    store.add([document(str(n)) for n in range(8)])
    with store.changes(1) as changes:
        batches = list(changes.added)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    numbers = [row.number for batch in batches for row in batch]
    assert numbers == sorted(numbers)


def test_changes_are_one_snapshot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries_module, "BATCH", 1)
    store.add(document("a"), document("b"))
    with store.changes(0) as changes:
        first = next(changes.added)
        store.remove("b")
        store.add(document("c"))
        seen = [row.text for batch in [first, *changes.added] for row in batch]
    assert seen == ["About a.", "About b."]
    assert (changes.sequence, store.sequence) == (2, 4)


def test_the_snapshot_stands_before_anything_is_read(store: Store) -> None:
    store.add(document("a"))
    with store.changes(0) as changes:
        store.add(document("b"))
        assert (changes.sequence, changes.rows) == (1, 1)
        assert [row.text for batch in changes.added for row in batch] == ["About a."]


def test_a_row_carries_all_that_an_index_needs(store: Store, encoder: HashingEncoder) -> None:
    store.add(
        Document(
            text="渡轮九点开。", source="ferry", title="渡轮", contributor="me", access=("b", "a")
        )
    )
    with store.changes(0) as changes:
        ((row,),) = list(changes.added)
        assert (changes.fingerprint, changes.dimension) == (encoder.fingerprint, 16)
    assert (row.title, row.text, row.contributor) == ("渡轮", "渡轮九点开。", "me")
    assert row.access == ("a", "b")
    assert row.vector.dtype == np.float16
    expected = encoder.encode_passages(["渡轮\n渡轮九点开。"])[0].astype(np.float16)
    np.testing.assert_array_equal(row.vector, expected)


def test_vectors_and_passages_by_number_leave_out_what_is_gone(store: Store) -> None:
    store.add(document("a"), document("b"), document("c"))
    store.remove("b")
    found = store.vectors([3, 2, 1, 99])
    assert found.numbers.tolist() == [1, 3]
    assert found.vectors.shape == (2, 16)
    assert found.vectors.dtype == np.float16
    np.testing.assert_allclose(
        np.linalg.norm(found.vectors.astype(np.float32), axis=1), 1, atol=1e-3
    )
    passages = store.passages([3, 2, 1, 99])
    assert [(n, p.source) for n, p in passages.items()] == [(3, "c"), (1, "a")]
    assert store.passages([]) == {}
    assert store.vectors([]).vectors.shape == (0, 16)


def test_sources_and_statistics(store: Store, encoder: HashingEncoder) -> None:
    store.add(Document(text="渡轮九点开。", source="b", title="渡轮", access=("staff",)))
    store.add(document("a"))
    assert store.sources() == [
        SourceInfo("a", "", "en", "", (), "a", 8, 1),
        SourceInfo("b", "渡轮", "zh", "", ("staff",), "b", 6, 1),
    ]
    stats = store.stats()
    assert (stats.documents, stats.passages, stats.characters) == (2, 2, 14)
    assert (stats.sequence, stats.fingerprint, stats.dimension) == (2, encoder.fingerprint, 16)
    assert stats.schema == 1
    assert stats.bytes > 4096


def test_missing_passages_and_documents_are_named(store: Store) -> None:
    store.add(document("ferry.md"))
    with pytest.raises(MissingError) as caught:
        store.passage("feed")
    assert caught.value.message == f"there is no passage 'feed' in the store at {store.path}"
    with pytest.raises(MissingError) as caught:
        store.document("fery.md")
    assert caught.value.hint == "Did you mean ferry.md?"


def test_other_handles_see_commits_at_once(store: Store) -> None:
    with Store.open(store.path) as other:
        store.add(document("a"))
        assert other.sequence == 1
        assert len(other) == 1


def test_threads_share_a_store(store: Store) -> None:
    store.add(document("a"))
    found: list[int] = []

    def read() -> None:
        found.extend(len(store.passages([1])) for _ in range(50))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 200


def test_a_snapshot_ends_with_its_block(store: Store) -> None:
    store.add(document("a"))
    with store.changes(0) as changes:
        assert changes.sequence == 1
    store.remove("a")
    assert (store.path / "store.sqlite3-wal").stat().st_size == 0
    assert changes.rows == 1, "it is still held"


def test_a_dropped_snapshot_does_not_keep_the_log(store: Store, tmp_path: Path) -> None:
    store.add(document("a"))
    store.changes(0)
    store.remove("a")
    assert (store.path / "store.sqlite3-wal").stat().st_size == 0
