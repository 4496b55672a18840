"""A process is ended at every change of every file, and the store is always the old or the new.

The first half ends a process before, in the middle of and after each write, sync, truncation,
deletion and creation that SQLite does. The second half looks through the eyes of retrieval, whose
indexes are files of their own: a process is ended at each file operation that Python sees, and at
random moments for those that it does not see, and afterwards a search finds the old or the new.
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from consilience import retrieval
from consilience.documents import Document
from consilience.store import Store
from tests.store.doubles import HashingEncoder
from tests.store.processes import run, start
from tests.store.vfs import EXIT, Countdown, Moment, WatchedVFS, carry_out

OLD = Document(text="Oldword begins it.\n\n" + "Middleold fills it. " * 60, source="changing")
NEW = Document(text="Newword begins it.\n\n" + "Middlenew fills it. " * 90, source="changing")
LASTING = Document(text="Lastingword stays.", source="lasting")

State = dict[str, Any]


def create(root: Path) -> None:
    Store.open(root).close()


def add(root: Path) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(OLD)


def replace(root: Path) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(NEW)


def remove(root: Path) -> None:
    with Store.open(root) as store:
        if any(info.source == OLD.source for info in store.sources()):
            store.remove(OLD.source)


def re_embed(root: Path) -> None:
    with Store.open(root) as store:
        store.re_embed(HashingEncoder(fingerprint="other", dimension=8), batch=2)


def start_empty(root: Path) -> None:
    """No store at all."""


def start_lasting(root: Path) -> None:
    with Store.open(root, encoder=HashingEncoder()) as store:
        store.add(LASTING)


def start_full(root: Path) -> None:
    start_lasting(root)
    add(root)


CASES = {
    "create": (start_empty, create),
    "add": (start_lasting, add),
    "replace": (start_full, replace),
    "remove": (start_full, remove),
    "re_embed": (start_full, re_embed),
}


def state_of(root: Path) -> State:
    """All that a reader can learn, and proof that nothing of it is broken."""
    with Store.open(root) as store:
        assert store.check() == []
        with store.changes(0) as changes:
            found = [row for batch in changes.added for row in batch]
        return {
            "documents": {info.source: store.document(info.source) for info in store.sources()},
            "passages": [(row.text, row.vector.tobytes()) for row in found],
            "fingerprint": store.fingerprint if found else "",
        }


def stopped_at(root: Path, case: str, watched: WatchedVFS, countdown: Countdown) -> int:
    """Do the case in a fork of this process, which the countdown ends; its exit code."""
    child = os.fork()
    if not child:
        watched.event = countdown
        CASES[case][1](root)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stops(events: list[str]) -> Iterator[tuple[int, Moment]]:
    """Where to end the process: after one change is before the next, so only the last has both."""
    for point, event in enumerate(events, start=1):
        yield point, "before"
        if event == "write":
            yield point, "torn"
    yield len(events), "after"


def stop_everywhere(folder: Path, case: str, report: Path) -> None:
    """In a child without threads, which may fork: stop the case at every point, report states."""
    prepare, act = CASES[case]
    before, after = folder / "before", folder / "after"
    watched, events = WatchedVFS(carry_out), Countdown(0, "before")
    prepare(before)
    prepare(after)
    begun = before.exists()
    watched.event = events
    act(after)
    watched.event = carry_out
    allowed, seen = [state_of(before), state_of(after)], []
    for point, moment in stops(events.seen):
        root = folder / f"{point}-{moment}"
        if begun:
            shutil.copytree(before, root)
        assert stopped_at(root, case, watched, Countdown(point, moment)) == EXIT
        state = state_of(root)
        assert state in allowed, f"neither old nor new when ended {moment} change {point}"
        seen.append(allowed.index(state))
        act(root)
        assert state_of(root) == allowed[1], "doing it again completes it"
    report.write_text(json.dumps({"writes": events.seen.count("write"), "seen": seen}))


@pytest.mark.parametrize("case", list(CASES))
def test_every_change_of_the_database_files_is_all_or_nothing(case: str, tmp_path: Path) -> None:
    assert run(stop_everywhere, tmp_path, case, tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["writes"] >= 8
    assert report["seen"] == sorted(report["seen"]), "once it is new it stays new"
    assert case == "create" or set(report["seen"]) == {0, 1}, "both sides of the commit were tried"


WORDS = ("Oldword", "Middleold", "Newword", "Middlenew", "Lastingword")
WATCHED = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}

needs_retrieval = pytest.mark.skipif(
    not hasattr(retrieval, "open_retriever"), reason="no retriever to look through"
)


def answers(root: Path) -> dict[str, list[str]]:
    """What every way of searching finds for each word; dense search ranks all there is."""
    found: dict[str, list[str]] = {}
    with Store.open(root, encoder=HashingEncoder()) as store:
        for mode in ("bm25", "dense"):
            retriever = retrieval.open_retriever(store, mode=mode, encoder=HashingEncoder())
            for word in WORDS:
                hits = retriever.search(word, k=100)
                found[f"{mode} {word}"] = sorted(hit.passage.text for hit in hits)
    return found


def truth(root: Path) -> dict[str, list[str]]:
    """What every way of searching must find, from the store alone."""
    with Store.open(root) as store, store.changes(0) as changes:
        texts = sorted(row.text for batch in changes.added for row in batch)
    found = {f"bm25 {word}": [text for text in texts if word in text] for word in WORDS}
    return found | {f"dense {word}": texts for word in WORDS}


def write_answers(root: Path, report: Path) -> None:
    """In a child, since index engines have threads that a fork must not copy."""
    report.write_text(json.dumps([answers(root), truth(root)]))


def changed_and_searched(root: Path, case: str, point: int, events: Path | None) -> None:
    """In a child: change, then search, ending the process before the `point`-th file operation."""
    count = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        reads = event == "open" and args[1] in {"r", "rb"}
        if event in WATCHED and not reads and str(root) in str(args[0]):
            count += 1
            if count == point:
                os._exit(EXIT)

    sys.addaudithook(watch)
    CASES[case][1](root)
    answers(root)
    if events is not None:
        events.write_text(str(count))


@pytest.fixture
def indexed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store with its indexes, as the case that is asked for begins."""
    root = tmp_path / "indexed"
    CASES[request.param][0](root)
    assert run(write_answers, root, tmp_path / "answers") == 0
    return root


def require_old_or_new(root: Path, allowed: list[dict[str, list[str]]]) -> None:
    report = root.with_suffix(".json")
    assert run(write_answers, root, report) == 0, "reopening is never an error"
    found, true = json.loads(report.read_text())
    assert found == true
    assert true in allowed
    shutil.rmtree(root)


def outcomes(indexed: Path, case: str) -> list[dict[str, list[str]]]:
    """The answers before and after."""
    done = indexed.with_name("done")
    shutil.copytree(indexed, done)
    CASES[case][1](done)
    return [truth(indexed), truth(done)]


@needs_retrieval
@pytest.mark.parametrize(
    ("case", "indexed"), [(c, c) for c in ("add", "replace", "remove")], indirect=["indexed"]
)
def test_ended_at_a_file_operation_search_finds_old_or_new(
    case: str, indexed: Path, tmp_path: Path
) -> None:
    allowed = outcomes(indexed, case)
    whole = tmp_path / "whole"
    shutil.copytree(indexed, whole)
    assert run(changed_and_searched, whole, case, 0, tmp_path / "events") == 0
    events = int((tmp_path / "events").read_text())
    assert events >= 5
    for point in range(1, events + 1):
        root = tmp_path / f"point-{point}"
        shutil.copytree(indexed, root)
        assert run(changed_and_searched, root, case, point, None) == EXIT
        require_old_or_new(root, allowed)


@needs_retrieval
@pytest.mark.parametrize(
    ("case", "indexed"), [(c, c) for c in ("add", "replace", "remove")], indirect=["indexed"]
)
def test_killed_at_any_moment_search_finds_old_or_new(
    case: str, indexed: Path, tmp_path: Path
) -> None:
    allowed = outcomes(indexed, case)
    moments = random.Random(case)
    for n in range(8):
        root = tmp_path / f"moment-{n}"
        shutil.copytree(indexed, root)
        process = start(changed_and_searched, root, case, 0, None)
        process.join(timeout=moments.uniform(0.0, 0.25))
        with suppress(ProcessLookupError):  # It may have ended by itself this moment.
            process.kill()
        process.join()
        require_old_or_new(root, allowed)
