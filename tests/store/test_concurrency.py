"""One process writes while others read: whatever is read is one committed state."""

import json
from pathlib import Path

from consilience.documents import Document
from consilience.store import Store
from tests.store.doubles import HashingEncoder
from tests.store.processes import start

ROUNDS = 40
READERS = 3


def document(version: int) -> Document:
    """Two to four passages, all of which name the version."""
    return Document(text=f"version {version}. \n\n" * 100 * (2 + version % 3), source="changing")


def write(root: Path) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        for version in range(1, ROUNDS + 1):
            store.add(document(version))


def read(root: Path, report: Path) -> None:
    """Read until the last version is there, in every way that takes more than one row."""
    seen: list[int] = []
    mixtures = 0
    index: dict[int, str] = {}
    reached = 0
    with Store.open(root) as store:
        while not seen or seen[-1] < ROUNDS:
            with store.changes(reached) as changes:
                for number in changes.removed:
                    del index[number]
                index |= {row.number: row.text for batch in changes.added for row in batch}
                reached = changes.sequence
            versions = {text.split(". ")[0] for text in index.values()}
            whole = {line for line in store.document("changing").text.split("\n") if line.strip()}
            still_there = {p.text[:10] for p in store.passages(list(index)).values()}
            mixtures += len(versions) != 1 or len(whole) != 1 or len(still_there) > 1
            seen.append(int(versions.pop().removeprefix("version ")))
    report.write_text(json.dumps({"seen": seen, "mixtures": mixtures}))


def test_readers_see_only_committed_states_while_one_writes(tmp_path: Path) -> None:
    root = tmp_path / "s"
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(document(0))
    reports = [tmp_path / f"reader-{n}.json" for n in range(READERS)]
    processes = [start(read, root, report) for report in reports]
    processes.append(start(write, root))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    for report in reports:
        found = json.loads(report.read_text())
        assert found["mixtures"] == 0
        assert found["seen"] == sorted(found["seen"])
    with Store.open(root) as store:
        assert store.sequence == ROUNDS + 1
        assert store.check() == []


def add_own(root: Path, name: str) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        for n in range(10):
            store.add(Document(text=f"{name} {n}", source=f"{name} {n}"))


def test_several_writers_take_turns(tmp_path: Path) -> None:
    root = tmp_path / "s"
    processes = [start(add_own, root, name) for name in "abc"]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    with Store.open(root) as store:
        assert len(store) == store.sequence == 30
        assert store.check() == []
