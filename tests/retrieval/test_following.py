import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document
from consilience.retrieval import following
from consilience.retrieval.derived import exclusive, read_manifest
from consilience.retrieval.following import FollowingIndex, due
from consilience.retrieval.lexical import LexicalRanker
from consilience.retrieval.ranking import PassageRetriever
from consilience.retrieval.segment_files import FIELDS, write_merged
from consilience.store import Store


def add(store: Store, *names: str) -> None:
    store.add([Document(f"Page {name} of the handbook.", source=name) for name in names])


def searched(store: Store, index: FollowingIndex, question: str = "handbook") -> set[str]:
    ranker = LexicalRanker(store)
    ranker._index = index
    return {h.passage.source for h in PassageRetriever(store, ranker).search(question, k=1000)}


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / "derived" / "lexical" / "index").iterdir())


@pytest.fixture
def index(store: Store) -> Iterator[FollowingIndex]:
    opened = FollowingIndex(store, patience=0.0)
    yield opened
    merge(opened)


def merge(index: FollowingIndex) -> None:
    """Merge what is due, if the index's own thread is not at it."""
    if index._merging is not None and index._merging.ident is not None:
        index._merging.join()
    index.merge()


# Which segments are merged.


@pytest.mark.parametrize(
    ("sizes", "span"),
    [
        ([], None),
        ([5], None),
        ([5, 1], None),
        ([4, 1], slice(0, 2)),
        ([100, 5, 1], None),
        ([100, 4, 1], slice(1, 3)),
        ([100, 20, 5], slice(0, 3)),
    ],
)
def test_segments_with_few_after_them_stay(sizes: list[int], span: slice | None) -> None:
    assert due([(size, size) for size in sizes], limit=None) == span


def test_a_segment_of_which_much_is_gone_is_rewritten() -> None:
    assert due([(9, 6), (1, 1)], limit=None) is None
    assert due([(9, 5), (1, 1)], limit=None) == slice(0, 1)
    assert due([(9, 0)], limit=None) == slice(0, 1)


def test_no_more_is_merged_than_allowed() -> None:
    assert due([(100, 100), (30, 30), (10, 10)], limit=40) == slice(1, 3)
    assert due([(100, 100), (30, 30), (10, 10)], limit=39) is None


@given(st.lists(st.integers(1, 10), max_size=300))
def test_there_are_never_many_segments(added: list[int]) -> None:
    sizes: list[int] = []
    for size in added:
        sizes.append(size)
        while span := due([(s, s) for s in sizes], limit=None):
            sizes[span] = [sum(sizes[span])]
    assert sum(sizes) == sum(added)
    assert len(sizes) <= 7


# What a commit costs.


def test_a_commit_leaves_the_files_of_a_larger_segment_alone(
    store: Store, index: FollowingIndex
) -> None:
    add(store, *map(str, range(9)))
    index.collection()
    before = set(files(store))
    add(store, "more")
    index.collection()
    after = set(files(store))
    assert before < after
    assert len(after - before) == len(FIELDS)
    store.remove("more", "3")
    index.collection()
    assert len(set(files(store)) - before) == 1  # the list of the dead
    assert searched(store, index) == {str(i) for i in range(9)} - {"3"}


def test_segments_are_full_at_so_many_tokens(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FULL", 1)
    monkeypatch.setattr("consilience.store.queries.BATCH", 2)
    monkeypatch.setattr(following, "due", lambda *_, **__: None)
    add(store, *map(str, range(5)))
    assert [len(segment) for segment in index.collection().segments] == [2, 2, 1]
    assert searched(store, index) == {str(i) for i in range(5)}


def test_nothing_is_left_of_what_is_removed(store: Store, index: FollowingIndex) -> None:
    add(store, "a", "b")
    index.collection()
    store.remove("a", "b")
    assert index.collection().segments == ()
    assert files(store) == []
    add(store, "c")
    assert searched(store, index) == {"c"}


def test_a_store_that_is_open_sees_no_file_of_its_own_again(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, *map(str, range(9)))
    index.collection()
    monkeypatch.setattr(following, "digests", lambda *_, **__: pytest.fail("read again"))
    add(store, "more")
    assert "more" in searched(store, index)


# Merging beside searches.


@pytest.fixture
def grown(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> list[threading.Thread]:
    """An index of several segments that are due, none of which was merged at once."""
    waiting: list[threading.Thread] = []
    monkeypatch.setattr(following, "_FEW", 0)
    monkeypatch.setattr(following, "_AT_ONCE", 0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: waiting.append(self))
        for name in "abcd":
            add(store, name)
            index.collection()
    return waiting


def test_what_is_large_is_merged_by_a_thread(
    store: Store, index: FollowingIndex, grown: list[threading.Thread]
) -> None:
    assert len(index.collection().segments) == 4
    grown[0].run()
    assert [len(segment) for segment in index.collection().segments] == [4]
    assert len(files(store)) == len(FIELDS)
    assert not (index._folder / "merging").exists() or not any(index._aside.iterdir())
    assert searched(store, index) == set("abcd")
    assert searched(store, FollowingIndex(store, patience=0.0)) == set("abcd")


def test_the_thread_is_started(
    store: Store, index: FollowingIndex, grown: list[threading.Thread]
) -> None:
    add(store, "e")
    index._merging = None
    index.collection()
    assert index._merging is not None
    index._merging.join()
    assert len(index.collection().segments) < 5
    assert searched(store, index) == set("abcde")


def test_commits_made_while_merging_are_kept(
    store: Store,
    index: FollowingIndex,
    grown: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = following.write_merged
    rounds: list[int] = []

    def meanwhile(*args: object) -> str:
        name = original(*args)  # type: ignore[arg-type]
        if not rounds:
            rounds.append(1)
            store.remove("b")
            add(store, "e")
            assert searched(store, index) == set("acde")
        return name

    monkeypatch.setattr(following, "write_merged", meanwhile)
    index.merge()
    assert searched(store, index) == set("acde")
    assert searched(store, FollowingIndex(store, patience=0.0)) == set("acde")


def test_what_is_removed_while_merging_stays_removed(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*args: object) -> str:
        monkeypatch.setattr(following, "write_merged", write_merged)
        name = write_merged(*args)  # type: ignore[arg-type]
        store.remove("b")
        assert len(index.collection()) == 3  # none of the segments is empty, so both are there
        return name

    monkeypatch.setattr(following, "_FEW", 0)
    monkeypatch.setattr(following, "_AT_ONCE", 0)
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    for names in ("ab", "cd"):
        add(store, *names)
        index.collection()
    monkeypatch.setattr(following, "write_merged", meanwhile)
    index.merge()
    for one in (index, FollowingIndex(store, patience=0.0)):
        assert len(one.collection()) == 3


def test_what_another_has_merged_is_left_to_it(
    store: Store,
    index: FollowingIndex,
    grown: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = FollowingIndex(store, patience=0.0)
    with exclusive(index._folder / "merging.lock", patience=0):
        assert len(other.collection().segments) == 4
        index.merge()
        assert len(index.collection().segments) == 4
    merge(other)
    before = files(store)
    index.merge()  # has still the four
    assert files(store) == before
    assert searched(store, index) == set("abcd")


def test_nothing_is_merged_while_another_process_changes_the_index(
    store: Store, index: FollowingIndex, grown: list[threading.Thread]
) -> None:
    before = files(store)
    with exclusive(index._folder / "lock", patience=0):
        index.merge()
    assert files(store) == before
    assert len(index.collection().segments) == 4


@pytest.mark.parametrize("step", ["write_merged", "digest", "write_manifest"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_merge_that_dies_costs_nothing(
    store: Store,
    index: FollowingIndex,
    grown: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    when: str,
) -> None:
    class Death(BaseException):
        """What no handler catches."""

    def dying(*args: object) -> object:
        if when == "after":
            original(*args)
        raise Death

    original = getattr(following, step)
    with monkeypatch.context() as patch:
        patch.setattr(following, step, dying)
        with pytest.raises(Death):
            index.merge()
    assert searched(store, index) == set("abcd")
    again = FollowingIndex(store, patience=0.0)
    assert searched(store, again) == set("abcd")
    merge(again)
    assert len(again.collection().segments) == 1
    assert searched(store, again) == set("abcd")
    assert searched(store, index) == set("abcd")


def test_a_merge_for_which_there_is_no_room_is_given_up(
    store: Store,
    index: FollowingIndex,
    grown: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        index.merge()
    assert len(index.collection().segments) == 4
    assert searched(store, index) == set("abcd")
    index.merge()
    assert len(index.collection().segments) == 1


# Files that come and go while they are opened.


def test_an_index_that_is_replaced_while_it_is_opened_is_opened_again(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, *map(str, range(9)))
    index.collection()
    original = following.read_manifest
    stale = read_manifest(index._manifest)
    store.remove("3", "4", "5", "6")
    index.collection()  # rewrites the segment under another name
    answers = iter([stale])
    monkeypatch.setattr(following, "read_manifest", lambda p: next(answers, None) or original(p))
    with exclusive(index._folder / "lock", patience=0):
        opened = FollowingIndex(store, patience=0.0).collection()
    assert len(opened) == 5


def test_files_that_are_mapped_may_be_deleted_by_others(
    store: Store, index: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.retrieval.segment_files._MAPPED_FROM", 0)
    add(store, *map(str, range(9)))
    index.collection()
    for path in (store.path / "derived" / "lexical" / "index").iterdir():
        path.unlink()
    assert searched(store, index) == {str(i) for i in range(9)}


def test_no_file_holds_objects(store: Store, index: FollowingIndex) -> None:
    add(store, "a")
    index.collection()
    for path in (store.path / "derived" / "lexical" / "index").iterdir():
        assert np.load(path, allow_pickle=False).dtype.kind in "iu"


def test_a_file_with_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        following.read_array(tmp_path / "x.npy")
