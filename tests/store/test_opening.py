"""A store is found, made, or refused with the reason and the next command."""

from pathlib import Path
from typing import Any

import apsw
import pytest

from consilience.documents import Document
from consilience.errors import (
    BusyError,
    ConsilienceError,
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
    VersionError,
)
from consilience.store import Store, opening, require_fingerprint
from consilience.store.connection import Database
from consilience.store.opening import _initialise, _require_free
from tests.store.doubles import HashingEncoder
from tests.store.processes import start

FACT = Document(text="The ferry leaves at nine.", source="ferry")


def make(root: Path) -> Path:
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(FACT)
    return root / "store.sqlite3"


def refusal(root: Path, kind: type[ConsilienceError], *, create: bool = True) -> ConsilienceError:
    with pytest.raises(kind) as caught:
        Store.open(root, create=create)
    return caught.value


def set_meta(database: Path, key: str, value: object) -> None:
    connection = apsw.Connection(str(database))
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.close()


def test_a_new_store_is_empty_and_keeps_its_identity(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a" / "b") as store:
        identity = store.identity
        assert (store.sequence, store.fingerprint, store.dimension, len(store)) == (0, "", 0, 0)
        assert store, "an empty store is true: it is there"
        assert store.path == tmp_path / "a" / "b"
    with Store.open(tmp_path / "a" / "b", create=False) as store:
        assert store.identity == identity


def test_two_stores_have_two_identities(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a") as one, Store.open(tmp_path / "b") as other:
        assert one.identity != other.identity


def test_a_missing_store_is_not_made_when_that_is_not_wanted(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none", MissingError, create=False)
    assert error.message == f"there is no store at {tmp_path / 'none'}"
    assert error.hint == f"consilience add PATH --store {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


def test_an_empty_folder_is_no_store_but_can_become_one(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    assert "there is no store" in refusal(tmp_path, MissingError, create=False).message
    Store.open(tmp_path).close()
    Store.open(tmp_path, create=False).close()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    error = refusal(tmp_path / "notes.txt", UsageError)
    assert error.message == f"{tmp_path / 'notes.txt'} is a file; a store is a folder"


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md", "d.md"):
        (tmp_path / name).write_text(name)
    error = refusal(tmp_path, UsageError)
    assert error.message == (
        f"{tmp_path} is a folder but not a store: it holds a.md, b.md, c.md and more"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "b.md", "c.md", "d.md"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refusal(tmp_path / "file" / "store", ConsilienceError)
    assert "cannot be made: Not a directory" in error.message


@pytest.mark.parametrize("content", [b"not a database at all" * 300, b"\0" * 9000])
def test_a_file_that_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    database = make(tmp_path / "s")
    database.write_bytes(content)
    error = refusal(tmp_path / "s", DamagedError)
    assert error.message.startswith(f"{database} is damaged: ")
    assert error.hint == f"consilience doctor --store {tmp_path / 's'}"


def test_an_emptied_database_is_damage_and_not_a_new_store(tmp_path: Path) -> None:
    database = make(tmp_path / "s")
    database.write_bytes(b"")
    assert "it is empty" in refusal(tmp_path / "s", DamagedError).message
    database.unlink()
    assert "the file is gone" in refusal(tmp_path / "s", DamagedError).message


def test_a_creation_that_did_not_finish_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").touch()
    assert "there is no store" in refusal(tmp_path, MissingError, create=False).message
    with Store.open(tmp_path) as store:
        assert store.sequence == 0


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "store.sqlite3"))
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    error = refusal(tmp_path, DamagedError)
    assert "it is an SQLite database, but not a store's" in error.message
    connection = apsw.Connection(str(tmp_path / "store.sqlite3"))
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("recipes",)]
    connection.close()


def test_missing_tables_are_damage(tmp_path: Path) -> None:
    database = make(tmp_path / "s")
    connection = apsw.Connection(str(database))
    connection.execute("DROP TABLE meta")
    connection.close()
    assert "no such table: meta" in refusal(tmp_path / "s", DamagedError).message


def test_a_store_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = make(tmp_path / "s")
    set_meta(database, "schema", 99)
    set_meta(database, "created_by", "7.1")
    error = refusal(tmp_path / "s", VersionError)
    assert error.message == (
        f"the store at {tmp_path / 's'} has schema version 99 (made by consilience 7.1); "
        "this version reads up to 1"
    )
    assert error.hint == "pip install --upgrade consilience"


def test_a_schema_version_that_is_none_is_damage(tmp_path: Path) -> None:
    database = make(tmp_path / "s")
    set_meta(database, "schema", "latest")
    assert "its schema version is 'latest'" in refusal(tmp_path / "s", DamagedError).message


def test_damage_found_while_reading_is_told_as_damage(tmp_path: Path) -> None:
    database = make(tmp_path / "s")
    whole = database.read_bytes()
    database.write_bytes(whole[: 2 * 4096] + b"\xff" * (len(whole) - 2 * 4096))
    with Store.open(tmp_path / "s") as store, pytest.raises(DamagedError, match="is damaged"):
        store.sources()


def test_another_encoder_is_refused_at_the_door(tmp_path: Path) -> None:
    make(tmp_path / "s")
    other = HashingEncoder(fingerprint="another-encoder-with-a-long-name")
    with pytest.raises(FingerprintError) as caught:
        Store.open(tmp_path / "s", encoder=other)
    assert caught.value.message == (
        f"the vectors of the store at {tmp_path / 's'} are from encoder hashing-encoder-, "
        "received encoder another-encoder-"
    )
    assert caught.value.hint == f"consilience add --re-embed --store {tmp_path / 's'}"


def test_any_encoder_fits_while_nothing_was_embedded(store: Store) -> None:
    require_fingerprint(store, HashingEncoder(fingerprint="any"))
    store.add(FACT)
    with pytest.raises(FingerprintError):
        require_fingerprint(store, HashingEncoder(fingerprint="any"))


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(UsageError, match="is closed"):
        store.sources()


def test_a_store_that_another_process_makes_this_moment_is_no_foreign_folder(
    tmp_path: Path,
) -> None:
    make(tmp_path / "s")
    _require_free(tmp_path / "s", create=True)


def test_a_store_that_others_make_at_the_same_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, refused = Database.execute, ["once", "twice"]

    def busy(self: Database, sql: str, *bindings: Any) -> Any:
        if "journal_mode" in sql and refused:
            refused.pop()
            raise BusyError("another process kept writing")
        return execute(self, sql, *bindings)

    monkeypatch.setattr(Database, "execute", busy)
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        assert refused == []
        assert store._database.connection.execute("PRAGMA journal_mode").get == "wal"
    monkeypatch.setattr(opening, "BUSY_SECONDS", 0)
    refused.append("for ever")
    with pytest.raises(BusyError):
        Store.open(tmp_path / "t")


def test_tables_that_another_process_has_just_made_stay(store: Store) -> None:
    identity = store.identity
    _initialise(store._database)
    assert store._database.meta("identity") == identity


def open_and_add(root: str, number: int) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(Document(text=f"fact {number}", source=f"source {number}"))


def test_many_processes_may_make_one_store_at_once(tmp_path: Path) -> None:
    root = str(tmp_path / "s")
    processes = [start(open_and_add, root, n) for n in range(6)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    with Store.open(root) as store:
        assert [s.source for s in store.sources()] == [f"source {n}" for n in range(6)]
        assert store.sequence == 6
        assert store.check() == []
