"""Waiting for other writers, and disks that are full: the old state stays, with the reason."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from consilience.documents import Document
from consilience.errors import BusyError, ConsilienceError
from consilience.store import Store
from consilience.store import connection as connection_module
from tests.store.doubles import HashingEncoder
from tests.store.processes import run
from tests.store.vfs import FullDisk, WatchedVFS

FACT = Document(text="The ferry leaves at nine.", source="ferry")
SOME = Document(text="A fact that fills a page. " * 100, source="some")
LARGE = Document(text="A fact that fills pages. " * 8000, source="large")


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    """A disk with room for any number of changes, until a test says otherwise."""
    full = FullDisk(room=10**9)
    watched = WatchedVFS(full)
    yield full
    watched.unregister()


def test_commits_are_on_disk_and_deletes_are_overwritten(store: Store) -> None:
    connection = store._database.connection
    assert connection.execute("PRAGMA journal_mode").get == "wal"
    assert connection.execute("PRAGMA synchronous").get == 2
    assert connection.execute("PRAGMA secure_delete").get == 1
    assert connection.execute("PRAGMA foreign_keys").get == 1


def test_a_second_writer_waits_and_then_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.02)
    with Store.open(store.path, encoder=HashingEncoder()) as other:
        with store._database.transaction():
            with pytest.raises(BusyError) as caught:
                other.add(FACT)
            assert len(other) == 0, "reading does not wait"
        assert caught.value.message == (
            f"another process kept writing to the store at {store.path} for 0.02 s"
        )
        assert caught.value.hint == "Let it finish, then run the same command again."
        assert other.add(FACT).added == ["ferry"]


def begin(store: Store) -> None:
    with store._database.transaction():
        """Nothing is changed."""


def test_of_two_transactions_the_second_does_not_begin(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.02)
    with Store.open(store.path) as other:
        # What it would read now could be old when it comes to write.
        with store._database.transaction(), pytest.raises(BusyError):
            begin(other)
        begin(other)


def test_every_connection_waits_for_other_writers(store: Store) -> None:
    milliseconds = 1000 * connection_module.BUSY_SECONDS
    with closing(store._database.connect()) as another:
        assert another.execute("PRAGMA busy_timeout").get == milliseconds
    store.add(FACT)
    store.remove("ferry")  # which does not wait for readers
    assert store._database.connection.execute("PRAGMA busy_timeout").get == milliseconds


def fail_after_a_change(store: Store, failure: BaseException) -> None:
    with store._database.transaction() as connection:
        connection.execute("UPDATE meta SET value = 7 WHERE key = 'sequence'")
        raise failure


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_what_fails_inside_a_transaction_leaves_nothing(
    store: Store, kind: type[BaseException]
) -> None:
    with pytest.raises(kind, match="half way"):
        fail_after_a_change(store, kind("half way"))
    assert store.sequence == 0


def failure_of(store: Store, document: Document) -> ConsilienceError | None:
    try:
        store.add(document)
    except ConsilienceError as error:
        return error
    return None


def test_a_full_disk_leaves_the_old_state_wherever_it_fills_up(
    tmp_path: Path, disk: FullDisk
) -> None:
    for room in range(60):
        with Store.open(tmp_path / str(room), encoder=HashingEncoder()) as store:
            store.add(FACT)
            disk.room = room
            error = failure_of(store, SOME)
            disk.room = 10**9
            if error is None:
                break
            assert error.message.startswith(f"the store at {store.path} could not be written: ")
            assert error.hint.startswith("Make room, then run the same command again")
            assert [info.source for info in store.sources()] == ["ferry"]
            assert store.add(SOME).added == ["some"]
            assert store.check() == []
    assert 10 < room < 59, "it filled up at every change but not after the last"


def add_within(root: Path, limit: int, told: Path) -> None:
    """In a child: add more than fits into files of `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Store.open(root, encoder=HashingEncoder()) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            store.add(LARGE)
        except ConsilienceError as error:
            os.write(os.open(told, os.O_WRONLY | os.O_CREAT), error.message.encode())


def test_a_limit_on_file_size_leaves_the_old_state_and_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        store.add(FACT)
    assert run(add_within, tmp_path / "s", 150_000, tmp_path / "told") == 0
    assert (tmp_path / "told").read_text() == (
        f"the store at {tmp_path / 's'} could not be written: File too large"
    )
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        assert [info.source for info in store.sources()] == ["ferry"]
        assert store.check() == []
        assert store.add(LARGE).added == ["large"]
