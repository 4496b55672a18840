"""Every kind of damage that a store can suffer in its rows is found and named."""

from pathlib import Path

import apsw
import pytest

from consilience.documents import Document
from consilience.store import Problem, Store
from tests.store.doubles import HashingEncoder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        store.add(
            Document(text="The ferry leaves at nine.", source="ferry"),
            Document(text="渡轮九点开。", source="渡轮"),
            Document(text="Gone soon.", source="gone"),
        )
        store.remove("gone")
    return tmp_path / "s"


def problems_after(root: Path, statement: str) -> list[Problem]:
    connection = apsw.Connection(str(root / "store.sqlite3"))
    connection.execute(statement)
    connection.close()
    with Store.open(root) as store:
        return store.check()


def test_a_sound_store_has_no_problems(root: Path) -> None:
    assert problems_after(root, "SELECT 1") == []


@pytest.mark.parametrize(
    ("statement", "subject", "message"),
    [
        (
            "UPDATE passages SET text = 'The ferry leaves at ten.' WHERE number = 1",
            "ferry",
            "passage 1 is not the text from 0 to 25",
        ),
        (
            "UPDATE documents SET title = 'Train' WHERE source = 'ferry'",
            "ferry",
            "passage 1 has the vector of another text",
        ),
        (
            "UPDATE passages SET vector = x'0000' WHERE number = 1",
            "passages",
            "1 with a vector of wrong size",
        ),
        ("DELETE FROM passages WHERE number = 1", "documents", "1 without passages"),
        (
            "DELETE FROM origins WHERE name = 'ferry'",
            "documents",
            "row 1 belongs to a row of origins that is not there",
        ),
        (
            "INSERT INTO origins (name, is_file, stamp) VALUES ('x', 0, '')",
            "origins",
            "1 without documents",
        ),
        ("UPDATE passages SET number = 3 WHERE number = 2", "passages", "1 with a removed number"),
        (
            "UPDATE passages SET sequence = 9 WHERE number = 2",
            "passages",
            "1 from a commit to come",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON passages BEGIN SELECT 1; END",
            "t",
            "is not defined as this version defines it",
        ),
        (
            "DROP INDEX passages_by_content",
            "passages_by_content",
            "is not defined as this version defines it",
        ),
    ],
)
def test_damage_is_found_and_named(root: Path, statement: str, subject: str, message: str) -> None:
    assert Problem(subject, message) in problems_after(root, statement)


def test_damaged_pages_are_a_problem_and_not_an_error(root: Path) -> None:
    database = root / "store.sqlite3"
    whole = database.read_bytes()
    database.write_bytes(whole[: 2 * 4096] + b"\xff" * (len(whole) - 2 * 4096))
    with Store.open(root) as store:
        problems = store.check()
    assert problems
    assert {problem.subject for problem in problems} == {"database"}


def test_a_trigger_in_a_foreign_store_does_not_run(root: Path) -> None:
    connection = apsw.Connection(str(root / "store.sqlite3"))
    connection.execute("CREATE TRIGGER t AFTER INSERT ON passages BEGIN DELETE FROM origins; END")
    connection.close()
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(Document(text="More.", source="more"))
        assert len(store.sources()) == 3
