import os
import shutil
from pathlib import Path

import pytest

from consilience.errors import BusyError, ConsilienceError, FingerprintError
from consilience.retrieval import dense, open_retriever
from consilience.retrieval.dense import DenseRanker
from consilience.retrieval.derived import exclusive
from consilience.retrieval.ranking import EVERYTHING, Scope
from consilience.retrieval.tuning import IndexName, Tuning
from consilience.store import Store, Where
from tests.retrieval.corpus import fill
from tests.retrieval.encoders import TrigramEncoder

ASK = "When are the visiting hours?"


def test_an_encoder_of_other_vectors_is_refused(store: Store) -> None:
    fill(store, "visits")
    with pytest.raises(FingerprintError) as error:
        open_retriever(store, mode="dense", encoder=TrigramEncoder("another-0002"))
    assert error.value.message == (
        f"the vectors of the store at {store.path} are from encoder trigrams-0001, "
        "received encoder another-0002"
    )
    assert error.value.hint == f"consilience add --re-embed --store {store.path}"


def test_a_store_that_is_re_embedded_is_refused_from_then_on(store: Store) -> None:
    fill(store)
    retriever = open_retriever(store, mode="dense", encoder=TrigramEncoder())
    assert retriever.search(ASK, k=1)
    with Store.open(store.path) as other:
        other.re_embed(TrigramEncoder("another-0002", dimension=32))
    with pytest.raises(FingerprintError):
        retriever.search(ASK, k=1)
    renewed = open_retriever(
        store, mode="dense", encoder=TrigramEncoder("another-0002", dimension=32)
    )
    assert renewed.search(ASK, k=1)[0].passage.source == "visits"


def test_an_empty_store_asks_no_encoder(store: Store) -> None:
    encoder = TrigramEncoder()
    assert open_retriever(store, mode="dense", encoder=encoder).search(ASK, k=1) == []
    assert encoder.questions == []


def found(ranker: DenseRanker, depth: int = 20, scope: Scope = EVERYTHING) -> list[int]:
    return [number for number, _ in ranker.rank(ASK, depth=depth, scope=scope)]


def folder_of(store: Store) -> Path:
    return store.path / "derived" / "dense"


def file_of(store: Store, name: str) -> Path:
    (path,) = folder_of(store).glob(f"{name}-*")
    return path


def test_a_ranker_opened_later_reads_no_row_of_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    before = DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20)
    sequence, changes = store.sequence, store.changes
    monkeypatch.setattr(store, "changes", lambda since: changes(max(since, sequence)))
    assert len(before) == 10
    assert DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20) == before


def test_only_what_is_new_is_written(store: Store) -> None:
    fill(store, "visits", "loans")
    ranker = DenseRanker(store, TrigramEncoder())
    assert found(ranker) == [1, 2]
    vectors = file_of(store, "vectors")
    fill(store, "leave")
    store.remove("loans")
    assert found(ranker) == [1, 3]
    assert file_of(store, "vectors") == vectors
    assert vectors.stat().st_size == 3 * 64 * 2
    assert found(DenseRanker(store, TrigramEncoder())) == [1, 3]


@pytest.mark.parametrize("name", ["vectors", "records", "removed", "manifest.json", "everything"])
@pytest.mark.parametrize("deed", ["delete", "cut off", "damage"])
def test_files_that_were_tampered_with_are_made_anew(store: Store, name: str, deed: str) -> None:
    fill(store)
    store.remove("loans")
    expected = DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20)
    fill(store, "loans")
    store.remove("loans")
    assert DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20) == expected
    tamper(store, name, deed)
    assert DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20) == expected
    assert DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20) == expected
    assert file_of(store, "vectors").stat().st_size == 9 * 64 * 2  # and no others are left


def tamper(store: Store, name: str, deed: str) -> None:
    folder = folder_of(store)
    paths = [p for p in folder.iterdir() if p.name.startswith(name) or name == "everything"]
    for path in paths:
        content = path.read_bytes()
        if deed == "delete":
            path.unlink()
        elif deed == "cut off":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.write_bytes(bytes(byte ^ 0x55 for byte in content))
    assert paths


def test_vectors_that_are_damaged_under_a_ranker_are_made_anew(store: Store) -> None:
    fill(store)
    ranker = DenseRanker(store, TrigramEncoder())
    expected = DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20)
    ranker._vectors.table()
    tamper(store, "vectors", "cut off")
    assert ranker.rank(ASK, depth=20) == expected


def test_damage_that_shows_when_vectors_are_compared_has_them_made_anew(store: Store) -> None:
    fill(store)
    codes = Tuning(index="codes")  # opens the files without reading the vectors
    expected = DenseRanker(store, TrigramEncoder(), tuning=codes).rank(ASK, depth=20)
    tamper(store, "vectors", "damage")
    assert DenseRanker(store, TrigramEncoder(), tuning=codes).rank(ASK, depth=20) == expected


def test_a_folder_of_another_store_is_not_answered_from(store: Store, tmp_path: Path) -> None:
    fill(store, "visits")
    expected = DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20)
    for names in (["loans"], ["loans", "library"]):  # as many commits, and more
        with Store.open(tmp_path / names[-1], encoder=TrigramEncoder()) as other:
            fill(other, *names)
            assert len(found(DenseRanker(other, TrigramEncoder()))) == len(names)
            shutil.rmtree(folder_of(store))
            shutil.copytree(folder_of(other), folder_of(store))
        assert DenseRanker(store, TrigramEncoder()).rank(ASK, depth=20) == expected


def test_while_another_process_changes_the_files_the_last_state_answers(store: Store) -> None:
    fill(store, "visits")
    ranker = DenseRanker(store, TrigramEncoder(), patience=0)
    assert found(ranker) == [1]
    fill(store, "loans")
    with exclusive(folder_of(store) / "lock", patience=0):
        assert found(ranker) == [1]
        assert found(DenseRanker(store, TrigramEncoder(), patience=0)) == [1]
    assert sorted(found(ranker)) == [1, 2]


def test_while_another_process_makes_the_files_one_is_asked_to_wait(store: Store) -> None:
    fill(store, "visits")
    folder_of(store).mkdir()
    with exclusive(folder_of(store) / "lock", patience=0), pytest.raises(BusyError) as error:
        DenseRanker(store, TrigramEncoder(), patience=0).rank(ASK, depth=1)
    message = f"another process is building the index in {folder_of(store)}"
    assert (error.value.message, error.value.hint) == (message, "Ask again in a moment.")


def test_a_folder_that_cannot_be_written_is_told(store: Store) -> None:
    fill(store, "visits")
    folder_of(store).write_text("a file")
    with pytest.raises(ConsilienceError) as error:
        DenseRanker(store, TrigramEncoder()).rank(ASK, depth=1)
    assert error.value.message.startswith(f"the index in {folder_of(store)} cannot be written: ")
    assert error.value.hint.startswith("Free some space, or delete ")


@pytest.mark.parametrize("name", ["vectors", "records", "removed", "manifest"])
def test_a_full_disk_is_told_and_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fill(store, "visits")
    ranker = DenseRanker(store, TrigramEncoder())
    assert found(ranker) == [1]
    fill(store, "loans")

    def full(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.startswith(name):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("consilience.retrieval.vector_files.os.fsync", full)
        with pytest.raises(ConsilienceError, match="No space left on device"):
            ranker.rank(ASK, depth=5)
    assert sorted(found(ranker)) == [1, 2]


def test_where_many_rows_are_dead_the_living_are_copied_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.retrieval.vector_index._DEAD_ROWS", 1)
    fill(store)
    ranker, other = DenseRanker(store, TrigramEncoder()), DenseRanker(store, TrigramEncoder())
    assert len(found(ranker)) == len(found(other)) == 10
    before = file_of(store, "vectors")
    store.remove("loans")
    found(ranker)
    assert ranker._vectors._compacting is None
    store.remove("leave")
    remaining = found(ranker)
    compacting = ranker._vectors._compacting
    assert compacting is not None
    compacting.join()
    after = file_of(store, "vectors")
    assert after != before
    assert after.stat().st_size == 8 * 64 * 2
    fill(store, "loans")
    for one in (ranker, other, DenseRanker(store, TrigramEncoder())):
        assert sorted(found(one)) == [*sorted(remaining), 11]


def test_masks_are_kept_until_the_next_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Scope] = []
    make = dense._mask
    monkeypatch.setattr(dense, "_mask", lambda f, w: (made.append(w.scope), make(f, w))[1])
    fill(store, "visits", access=("staff",))
    fill(store, "loans")
    ranker = DenseRanker(store, TrigramEncoder())
    guests, staff = Scope(frozenset()), Scope(frozenset({"staff"}))
    for _ in range(2):
        assert found(ranker, scope=guests) == [2]
        assert sorted(found(ranker, scope=staff)) == [1, 2]
    assert made == [guests, staff]
    fill(store, "loans", access=("staff",))
    assert found(ranker, scope=guests) == []
    assert made == [guests, staff, guests]


def test_neither_filter_nor_labels_let_a_row_take_a_place(store: Store) -> None:
    fill(store, "visits", access=("staff",))
    fill(store, "loans", "leave")
    ranker = DenseRanker(store, TrigramEncoder())
    asked = Where(sources=("visits", "loans"))
    assert sorted(found(ranker, scope=Scope(None, asked))) == [1, 2]
    assert found(ranker, scope=Scope(frozenset(), asked)) == [2]


def test_a_question_that_is_asked_again_is_not_encoded_again(store: Store) -> None:
    fill(store)
    encoder = TrigramEncoder()
    ranker = DenseRanker(store, encoder)
    assert ranker.rank(ASK, depth=2) == ranker.rank(ASK, depth=8)[:2]
    ranker.rank("another", depth=1)
    assert encoder.questions == [ASK, "another"]


@pytest.mark.parametrize("index", ["auto", "exact", "codes", "ivf", "hnsw"])
def test_every_index_of_a_tuning_answers(store: Store, index: IndexName) -> None:
    ranker = DenseRanker(store, TrigramEncoder(), tuning=Tuning(index=index))
    assert found(ranker) == []
    fill(store)
    assert store.passages(found(ranker)[:1]).popitem()[1].source == "visits"


def test_a_store_that_was_put_back_is_followed_back(store: Store, tmp_path: Path) -> None:
    fill(store, "visits")
    shutil.copytree(store.path, tmp_path / "backup")
    fill(store, "loans")
    ranker = DenseRanker(store, TrigramEncoder())
    assert len(ranker.rank(ASK, depth=5)) == 2
    with Store.open(tmp_path / "backup") as backup:
        ranker._store = ranker._vectors._store = backup
        assert [number for number, _ in ranker.rank(ASK, depth=5)] == [1]


def test_a_filter_that_was_asked_before_a_commit_is_asked_again_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "visits")
    ranker, matching = DenseRanker(store, TrigramEncoder()), store.matching

    def overtaken(where: Where) -> object:
        numbers = matching(where)
        monkeypatch.setattr(store, "matching", matching)
        fill(store, "loans")
        return numbers

    monkeypatch.setattr(store, "matching", overtaken)
    scope = Scope(None, Where(sources=("visits", "loans")))
    assert found(ranker, scope=scope) == [1]
    assert sorted(found(ranker, scope=scope)) == [1, 2]


def test_vectors_that_cannot_be_followed_are_made_anew(store: Store) -> None:
    fill(store, "visits")
    ranker = DenseRanker(store, TrigramEncoder(), patience=0)
    assert found(ranker) == [1]
    fill(store, "loans")
    found(DenseRanker(store, TrigramEncoder()))
    records = file_of(store, "records")
    content = bytearray(records.read_bytes())
    content[-1] ^= 1
    records.write_bytes(content)
    with exclusive(folder_of(store) / "lock", patience=0), pytest.raises(BusyError):
        found(ranker)
    assert sorted(found(ranker)) == [1, 2]
