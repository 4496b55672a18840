"""Another encoder for the whole store: old vectors until the end, then all new ones at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from consilience.documents import Document
from consilience.encoding import Vectors
from consilience.errors import FingerprintError
from consilience.store import IndexRow, Progress, Store
from tests.store.doubles import HashingEncoder

DOCUMENTS = [Document(text=f"fact {n}", source=str(n), title="Facts") for n in range(7)]


def other() -> HashingEncoder:
    return HashingEncoder(fingerprint="other-encoder", dimension=24)


def rows(store: Store, since: int = 0) -> list[IndexRow]:
    with store.changes(since) as changes:
        return [row for batch in changes.added for row in batch]


def test_every_vector_is_the_new_encoders(store: Store) -> None:
    store.add(DOCUMENTS)
    before = rows(store)
    new = other()
    report = store.re_embed(new, batch=3)
    assert (report.passages, report.embedded, report.fingerprint) == (7, 7, "other-encoder")
    assert report.generation == store.sequence == 8
    assert (store.fingerprint, store.dimension) == ("other-encoder", 24)
    after = rows(store)
    assert [row.text for row in after] == [row.text for row in before]
    expected = new.encode_questions([f"Facts\n{row.text}" for row in after]).astype(np.float16)
    np.testing.assert_array_equal(np.stack([row.vector for row in after]), expected)
    assert store.check() == []
    assert store._database.execute("SELECT count(*) FROM staged") == [(0,)]
    assert (store.path / "store.sqlite3-wal").stat().st_size == 0, "the old ones are off the disk"


def test_an_index_sees_old_rows_go_and_new_ones_come(store: Store) -> None:
    store.add(DOCUMENTS)
    before = {row.number for row in rows(store)}
    ids = {store.passages([n])[n].id for n in before}
    store.re_embed(other())
    with store.changes(7) as changes:
        assert set(changes.removed) == before
        after = {row.number for batch in changes.added for row in batch}
    assert min(after) > max(before)
    assert {p.id for p in store.passages(sorted(after)).values()} == ids
    store.add(Document(text="later", source="later"))
    assert rows(store)[-1].number > max(after), "numbers go on after those of the swap"


def test_numbers_are_not_used_again_after_a_swap(store: Store) -> None:
    store.add(DOCUMENTS)
    store.re_embed(other())
    highest = max(row.number for row in rows(store))
    store.remove(*(str(n) for n in range(7)))
    store.add(Document(text="later", source="later"))
    assert [row.number for row in rows(store)] == [highest + 1]


def test_the_store_goes_on_with_the_new_encoder(store: Store, encoder: HashingEncoder) -> None:
    store.add(DOCUMENTS)
    store.re_embed(other())
    assert store.add(DOCUMENTS).unchanged == [str(n) for n in range(7)]
    assert store.add(Document(text="later", source="later")).embedded == 1
    with pytest.raises(FingerprintError):
        Store.open(store.path, encoder=encoder)


def test_the_same_encoder_has_nothing_to_do(store: Store, encoder: HashingEncoder) -> None:
    store.add(DOCUMENTS)
    encoder.seen.clear()
    report = store.re_embed(encoder)
    assert (report.embedded, report.generation, encoder.seen) == (0, 7, [])


def test_an_empty_store_takes_the_encoder(store: Store) -> None:
    assert store.re_embed(other()).passages == 0
    assert store.fingerprint == "other-encoder"


def test_an_interrupted_run_goes_on_and_old_vectors_answer_meanwhile(
    store: Store, encoder: HashingEncoder
) -> None:
    store.add(DOCUMENTS)
    before = rows(store)
    answers = iter([False, False, True])
    first, second = other(), other()
    report = store.re_embed(first, batch=2, cancelled=lambda: next(answers))
    assert (report.cancelled, report.embedded, len(first.seen)) == (True, 4, 4)
    assert (store.fingerprint, store.sequence) == (encoder.fingerprint, 7)
    np.testing.assert_array_equal(
        np.stack([row.vector for row in rows(store)]), np.stack([row.vector for row in before])
    )
    assert store.add(Document(text="old encoder", source="x")).added == ["x"]
    assert store.re_embed(second, batch=2).embedded == 4
    assert not set(first.seen) & set(second.seen)


def test_what_is_added_meanwhile_gets_a_vector_too(store: Store) -> None:
    store.add(DOCUMENTS)

    class Overtaken(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            if not self.seen:
                with Store.open(store.path, encoder=HashingEncoder()) as writer:
                    writer.add(Document(text="meanwhile", source="meanwhile"))
                    writer.remove("3")
            return super().encode_passages(passages)

    report = store.re_embed(Overtaken(fingerprint="new"), batch=2)
    assert (report.passages, report.embedded) == (7, 8)
    assert store.check() == []
    assert "meanwhile" in [row.text for row in rows(store)]


def test_what_another_encoder_has_staged_is_embedded_all_the_same(
    store: Store, encoder: HashingEncoder
) -> None:
    store.add(DOCUMENTS)
    texts = [f"Facts\nfact {n}" for n in range(7)]
    store.give_vectors(texts, encoder.encode_passages(texts), fingerprint=encoder.fingerprint)
    assert store.re_embed(other()).embedded == 7
    assert store.check() == []


def test_progress_counts_passages(store: Store) -> None:
    store.add(DOCUMENTS)
    steps: list[Progress] = []
    store.re_embed(other(), batch=3, progress=steps.append)
    assert steps[-1].stage == "done"
    assert steps[-1].done_files == steps[-1].total_files == steps[-1].passages == 7
    assert [step.stage for step in steps].count("done") == 1


def test_a_handle_with_the_old_encoder_may_not_add(tmp_path: Path, store: Store) -> None:
    store.add(DOCUMENTS)
    with Store.open(store.path, encoder=HashingEncoder()) as stale:
        store.re_embed(other())
        with pytest.raises(FingerprintError):
            stale.add(Document(text="fact 0", source="new"))


def test_equal_texts_are_embedded_once_and_nothing_is_left_to_count(store: Store) -> None:
    same = [Document("the same", source=str(n), title="Facts") for n in range(5)]
    store.add([*same, Document("another", source="other", title="Facts")])
    steps: list[Progress] = []
    new = other()
    assert store.re_embed(new, batch=2, progress=steps.append).embedded == 2
    assert sorted(new.seen) == ["Facts\nanother", "Facts\nthe same"]
    last = steps[-1]
    assert (last.done_files, last.done_bytes) == (last.total_files, last.total_bytes)
    assert last.seconds_left == 0
