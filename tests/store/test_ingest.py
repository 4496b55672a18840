"""What `add` does with new, changed, unchanged, failing and interrupted documents."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from consilience.documents import Document, Failure, Page, Passage
from consilience.encoding import Vectors
from consilience.errors import DamagedError, FingerprintError, UsageError
from consilience.store import AddInterruptedError, AddOptions, NamedFile, Progress, Store, Where
from consilience.store import drafts as drafts_module
from consilience.store.ingest import is_below
from tests.store.doubles import HashingEncoder


def texts(store: Store) -> dict[str, list[str]]:
    """Everything in the store, by source, in the order of the text."""
    with store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
    found: dict[str, list[str]] = {}
    for passage in store.passages(numbers).values():
        found.setdefault(passage.source, []).append(passage.text)
    return found


@pytest.fixture
def handbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two files, named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("handbook")
    (folder / "zh").mkdir(parents=True)
    (folder / "leave.md").write_text("# Leave\n\nStaff have 25 days of leave.\n", "utf-8")
    (folder / "zh" / "leave.txt").write_text("员工每年有二十五天年假。\n", "utf-8")
    return folder


class Unread:
    """A replacement for the reader that must not be called."""

    def __call__(self, path: Path, *, source: str) -> list[Document]:
        raise AssertionError(f"{path} was parsed")


def test_a_folder_becomes_documents_with_passages(store: Store, handbook: Path) -> None:
    report = store.add(handbook)
    assert report.added == ["handbook/leave.md", "handbook/zh/leave.txt"]
    assert (report.updated, report.unchanged, report.failed, report.removed) == ([], [], [], [])
    assert report.passages == len(store) >= 2
    assert report.generation == store.sequence == 2
    document = store.document("handbook/zh/leave.txt")
    assert document.text.strip() == "员工每年有二十五天年假。"
    assert document.language == "zh"


def test_every_passage_is_the_exact_text_of_its_place(store: Store, handbook: Path) -> None:
    store.add(handbook)
    with store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
    for passage in store.passages(numbers).values():
        whole = store.document(passage.source).text
        assert whole[passage.start : passage.end] == passage.text
        assert store.passage(passage.id) == passage


def test_unchanged_files_are_neither_parsed_nor_embedded(
    store: Store, handbook: Path, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(handbook)
    encoder.seen.clear()
    monkeypatch.setattr("consilience.store.origins.read_document", Unread())
    report = store.add(handbook)
    assert report.unchanged == ["handbook/leave.md", "handbook/zh/leave.txt"]
    assert (report.passages, report.embedded, encoder.seen) == (0, 0, [])
    assert store.sequence == 2


def test_unchanged_files_do_not_load_the_encoder(tmp_path: Path, handbook: Path) -> None:
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        store.add(handbook)
    with Store.open(tmp_path / "s") as store:
        store._load_encoder = Unread()  # type: ignore[method-assign, assignment]
        assert len(store.add(handbook).unchanged) == 2


def test_same_size_and_time_do_not_hide_a_change(store: Store, handbook: Path) -> None:
    file = handbook / "leave.md"
    store.add(handbook)
    before = file.stat()
    file.write_text("# Leave\n\nStaff have 30 days of leave.\n", "utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert store.add(handbook).updated == ["handbook/leave.md"]
    assert any("30 days" in text for text in texts(store)["handbook/leave.md"])


def test_a_changed_file_replaces_its_passages_and_keeps_other_vectors(
    store: Store, encoder: HashingEncoder, tmp_path: Path
) -> None:
    file = tmp_path / "a.md"
    one, two, new = ("The first fact. " * 60, "The second fact. " * 60, "The third fact. " * 60)
    file.write_text(f"{one}\n\n{two}\n", "utf-8")
    store.add(file)
    kept = {text for text in texts(store)[file.as_posix()] if "second" not in text}
    encoder.seen.clear()
    file.write_text(f"{one}\n\n{new}\n", "utf-8")
    report = store.add(file)
    assert report.updated == [file.as_posix()]
    assert report.embedded == len(encoder.seen) < report.passages
    assert not any(text in seen for text in kept for seen in encoder.seen)
    assert not any("second" in text for text in texts(store)[file.as_posix()])
    assert store.check() == []


def test_a_renamed_file_keeps_its_vectors(
    store: Store, encoder: HashingEncoder, handbook: Path
) -> None:
    store.add(handbook)
    encoder.seen.clear()
    (handbook / "leave.md").rename(handbook / "holidays.md")
    report = store.add(handbook)
    assert report.added == ["handbook/holidays.md"]
    assert encoder.seen == []


def test_the_title_is_part_of_what_is_embedded(store: Store, encoder: HashingEncoder) -> None:
    store.add(Document(text="Nine o'clock.", source="a", title="Ferry"))
    store.add(Document(text="Nine o'clock.", source="a", title="Train"))
    store.add(Document(text="Nine o'clock.", source="b"))
    assert encoder.seen == ["Ferry\nNine o'clock.", "Train\nNine o'clock.", "Nine o'clock."]


def test_changed_labels_replace_passages_without_embedding(
    store: Store, handbook: Path, encoder: HashingEncoder
) -> None:
    store.add(handbook)
    encoder.seen.clear()
    for options in (
        AddOptions(contributor="clinic"),
        AddOptions(contributor="clinic", access=("staff", "audit")),
    ):
        report = store.add(handbook, options=options)
        assert len(report.updated) == 2
        assert store.add(handbook, options=options).updated == []
    assert encoder.seen == []
    info = store.sources()[0]
    assert (info.contributor, info.access) == ("clinic", ("audit", "staff"))


def test_labels_of_a_document_win_over_those_of_the_call(store: Store) -> None:
    own = Document(text="Secret.", source="own", contributor="bank", access=("board",))
    none = Document(text="Public.", source="none")
    store.add(own, none, options=AddOptions(contributor="clinic", access=("staff",)))
    found = {info.source: (info.contributor, info.access) for info in store.sources()}
    assert found == {"own": ("bank", ("board",)), "none": ("clinic", ("staff",))}


def test_a_new_recipe_reads_unchanged_files_again(
    store: Store, handbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(handbook)
    monkeypatch.setattr(drafts_module, "RECIPE", drafts_module.RECIPE + 1)
    assert len(store.add(handbook).updated) == 2


def test_bad_files_are_named_with_reasons_and_stop_nothing(store: Store, handbook: Path) -> None:
    (handbook / "empty.txt").write_text("  \n", "utf-8")
    (handbook / "scan.pdf").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = store.add(handbook, "nowhere.md")
    assert report.added == ["handbook/leave.md", "handbook/zh/leave.txt"]
    assert [failure.path for failure in report.failed] == [
        "nowhere.md",
        "handbook/empty.txt",
        "handbook/scan.pdf",
    ]
    assert all(failure.reason for failure in report.failed)


def test_a_file_that_becomes_bad_leaves_what_the_store_has(store: Store, handbook: Path) -> None:
    store.add(handbook)
    before = texts(store)
    (handbook / "leave.md").write_bytes(b"")
    report = store.add(handbook)
    assert [failure.path for failure in report.failed] == ["handbook/leave.md"]
    assert texts(store) == before


def test_a_file_that_changes_while_it_is_read_fails(
    store: Store, handbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_write(path: Path, *, source: str, name: str) -> list[Document]:
        path.write_text("something else", "utf-8")
        return [Document(text="what was there", source=source)]

    monkeypatch.setattr("consilience.store.origins.read_document", read_and_write)
    report = store.add(handbook / "leave.md")
    assert report.failed == [Failure("handbook/leave.md", "it changed while it was being read")]
    assert len(store) == 0


def test_a_file_of_records_is_one_change(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    name = file.as_posix()
    file.write_text('{"text": "One.", "id": "a"}\n{"text": "Two."}\n', "utf-8")
    report = store.add(file)
    assert (report.added, report.generation) == ([name], 1)
    assert texts(store) == {f"{name}#a": ["One."], f"{name}#2": ["Two."]}
    file.write_text('{"text": "One."}\n{"text": ', "utf-8")
    report = store.add(file)
    assert report.failed[0].path == name
    assert texts(store) == {f"{name}#a": ["One."], f"{name}#2": ["Two."]}
    file.write_text('{"text": "Three.", "id": "c"}\n', "utf-8")
    assert store.add(file).updated == [name]
    assert texts(store) == {f"{name}#c": ["Three."]}


def test_pruning_removes_what_is_gone_from_the_given_folders_only(
    store: Store, handbook: Path
) -> None:
    other = Path("handbook2.md")  # begins as the folder does, and is not in it
    other.write_text("Another file.", "utf-8")
    given = Document(text="No file at all.", source="handbook/never-a-file")
    store.add(handbook, other, given)
    (handbook / "leave.md").unlink()
    other.unlink()
    assert store.add(handbook).removed == []
    assert len(store.sources()) == 4
    assert store.add(handbook, options=AddOptions(prune=True)).removed == ["handbook/leave.md"]
    assert set(texts(store)) == {"handbook/zh/leave.txt", "handbook2.md", "handbook/never-a-file"}


@pytest.mark.parametrize(
    ("name", "prefixes", "below"),
    [
        ("handbook/a.md", ["handbook/"], True),
        ("handbook2/a.md", ["handbook/"], False),
        ("a.md", [""], True),
        ("/abs/a.md", [""], False),
        ("../a.md", [""], False),
        ("/abs/a.md", ["/abs/"], True),
        ("a.md", [], False),
    ],
)
def test_what_lies_below_a_folder(name: str, prefixes: list[str], below: bool) -> None:
    assert is_below(name, prefixes) is below


def test_a_source_belongs_to_one_origin(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "One.", "source": "shared"}\n', "utf-8")
    store.add(Document(text="Mine.", source="shared"))
    report = store.add(file)
    assert report.failed == [
        Failure(file.as_posix(), "the source 'shared' is already in the store, from 'shared'")
    ]
    assert texts(store) == {"shared": ["Mine."]}
    nameless = [Passage("", text, "", "wiki", None, 0, len(text)) for text in ("One.", "Two.")]
    assert store.add(nameless).failed == [
        Failure("wiki", "two of its documents have the source 'wiki'")
    ]
    assert texts(store) == {"shared": ["Mine."]}


def test_documents_that_cannot_be_stored_fail_with_reasons(store: Store) -> None:
    report = store.add(
        Document(text=" \n", source="blank"),
        Document(text="half \ud800 a pair", source="surrogate"),
        Document(text="Nameless.", source=" "),
        Document(text="Letters as labels.", source="labels", access="staff"),  # type: ignore[arg-type]
        Document(text="Good.", source="good"),
    )
    assert report.added == ["good"]
    assert report.failed == [
        Failure("blank", "it holds no text"),
        Failure("surrogate", "character 5 is half of a surrogate pair, which is not text"),
        Failure(" ", "it has no source"),
        Failure("labels", "its access labels are 'staff'"),
    ]


def test_a_document_comes_back_as_it_was_given(store: Store) -> None:
    document = Document(
        text="第一页。\nPage two. 👩‍👩‍👧 שלום",
        source="两页",
        title="Pages",
        id="p",
        language="zh",
        contributor="clinic",
        access=("audit", "staff"),
        metadata={"year": "2026", "作者": "王"},
        pages=(Page(1, 0, 5), Page(2, 5, 24)),
    )
    store.add(document)
    assert store.document("两页") == document


def test_passages_know_their_pages_and_end_with_them(store: Store) -> None:
    one, two = "First page.\n\n", "Second page."
    pages = (Page(1, 0, len(one)), Page(2, len(one), len(one + two)))
    store.add(Document(text=one + two, source="two", pages=pages))
    found = store.passages([1, 2, 3]).values()
    assert [(p.text, p.page) for p in found] == [("First page.", 1), ("Second page.", 2)]


def test_ready_made_passages_are_kept_with_their_ids(store: Store) -> None:
    first = Passage("w1", "A long one. " * 300, "Title", "wiki", 7, 100, 3700, "me", ("all",))
    second = Passage("w2", "Short.", "Title", "wiki", None, 3700, 3706)
    report = store.add([first, second])
    assert (report.added, report.passages) == (["wiki"], 2)
    kept = store.passage("w1")
    assert (kept.text, kept.source, kept.page) == (first.text, "wiki#w1", 7)
    assert (kept.start, kept.end) == (0, len(first.text))
    assert (kept.contributor, kept.access) == ("me", ("all",))
    assert store.add([second]).updated == ["wiki"], "the passages of a source replace each other"
    assert len(store) == 1
    taken = Passage("w2", "Another.", "", "elsewhere", None, 0, 8)
    assert store.add(taken).failed == [
        Failure("elsewhere", "one of its passages has an id that another passage already has")
    ]


def test_what_cannot_be_added_is_refused_before_anything_is_done(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        store.add(Document(text="Fine.", source="fine"), 7)  # type: ignore[arg-type]
    assert caught.value.message == "cannot add int 7"
    assert len(store) == 0


@pytest.mark.parametrize("access", ["staff", ("",), (1,)])
def test_options_are_checked(access: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="access must be a tuple of non-empty labels"):
        AddOptions(access=access)
    with pytest.raises(UsageError, match="batch must be at least 1, received 0"):
        AddOptions(batch=0)


def test_texts_are_embedded_in_batches_across_documents(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Counting(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            sizes.append(len(passages))
            return super().encode_passages(passages)

    documents = [Document(text=f"fact {n}", source=str(n)) for n in range(10)]
    with Store.open(tmp_path / "s", encoder=Counting()) as store:
        store.add(documents, options=AddOptions(batch=4))
        assert sizes == [4, 4, 2]
        assert store.sequence == 10, "each document is a change of its own"


def test_a_text_that_comes_often_is_embedded_once(store: Store, encoder: HashingEncoder) -> None:
    store.add([Document(text="The same.", source=str(n)) for n in range(5)])
    assert encoder.seen == ["The same."]
    assert len(store) == 5


def test_an_encoder_that_breaks_its_protocol_is_refused(tmp_path: Path) -> None:
    class Short(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            return super().encode_passages(passages)[:, :-1]

    with Store.open(tmp_path / "s", encoder=Short()) as store:
        with pytest.raises(UsageError, match=r"returned shape \(1, 15\).*expected \(1, 16\)"):
            store.add(Document(text="a", source="a"))
        assert store.sequence == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    class Broken(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            vectors = super().encode_passages(passages)
            vectors[-1, 3] = value
            return vectors

    with Store.open(tmp_path / "s", encoder=Broken()) as store:
        with pytest.raises(UsageError, match="or values that are not finite for 1 passages"):
            store.add(Document(text="a", source="a"))
        assert store.sequence == 0


class Stopping(HashingEncoder):
    """Raises KeyboardInterrupt at the n-th call, as Ctrl-C would."""

    calls_left: int = 1

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        self.calls_left -= 1
        return super().encode_passages(passages)


def test_ctrl_c_keeps_what_is_committed_and_the_next_run_goes_on(tmp_path: Path) -> None:
    documents = [Document(text=f"fact {n}", source=str(n)) for n in range(6)]
    with Store.open(tmp_path / "s", encoder=Stopping()) as store:
        with pytest.raises(AddInterruptedError) as caught:
            store.add(documents, options=AddOptions(batch=2))
        assert caught.value.report.cancelled
        assert caught.value.report.added == ["0", "1"]
        assert set(texts(store)) == {"0", "1"}
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        report = store.add(documents, options=AddOptions(batch=2))
        assert (report.unchanged, report.added) == (["0", "1"], ["2", "3", "4", "5"])
        assert not report.cancelled


def test_even_the_embedding_of_one_large_document_goes_on(tmp_path: Path) -> None:
    passages = [Passage(str(n), f"fact {n}", "", "large", None, 0, 0) for n in range(10)]
    stopping, going_on = Stopping(), HashingEncoder()
    stopping.calls_left = 3
    with Store.open(tmp_path / "s", encoder=stopping) as store:
        with pytest.raises(AddInterruptedError):
            store.add(passages, options=AddOptions(batch=2))
        assert (len(store), store.sequence) == (0, 0)
    with Store.open(tmp_path / "s", encoder=going_on) as store:
        report = store.add(passages, options=AddOptions(batch=2))
        assert (report.passages, report.embedded) == (10, 4)
        assert store.check() == []
        assert store._database.execute("SELECT count(*) FROM staged") == [(0,)]
    assert going_on.seen == [f"fact {n}" for n in range(6, 10)]


def test_a_callback_cancels_between_documents(store: Store) -> None:
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 6

    documents = [Document(text=f"fact {n}", source=str(n)) for n in range(6)]
    report = store.add(documents, options=AddOptions(batch=1, cancelled=cancelled))
    assert report.cancelled
    assert report.added == ["0", "1"], "asked before each document, each batch and each commit"


def test_progress_is_told_and_ends_with_done_once(store: Store, handbook: Path) -> None:
    steps: list[Progress] = []
    store.add(handbook, progress=steps.append)
    assert [step.stage for step in steps].count("done") == 1
    last = steps[-1]
    assert (last.stage, last.done_files, last.total_files) == ("done", 2, 2)
    assert (
        last.done_bytes
        == last.total_bytes
        == sum(path.stat().st_size for path in handbook.rglob("*.*"))
    )
    assert last.passages == len(store)


def test_adding_with_an_encoder_that_was_outrun_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        with Store.open(tmp_path / "s", encoder=HashingEncoder(fingerprint="other")) as faster:
            faster.add(Document(text="first", source="first"))
        with pytest.raises(FingerprintError):
            store.add(Document(text="second", source="second"))
        assert set(texts(store)) == {"first"}


def test_vectors_of_an_encoder_that_is_replaced_meanwhile_are_not_committed(
    tmp_path: Path,
) -> None:
    class Overtaken(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            with Store.open(tmp_path / "s") as other:
                other.re_embed(HashingEncoder(fingerprint="faster"))
            return super().encode_passages(passages)

    with Store.open(tmp_path / "s", encoder=HashingEncoder()) as store:
        store.add(Document(text="first", source="first"))
    with Store.open(tmp_path / "s", encoder=Overtaken()) as store:
        with pytest.raises(FingerprintError, match="are from encoder faster, received"):
            store.add(Document(text="second", source="second"))
        assert set(texts(store)) == {"first"}
        assert store.check() == []


def test_a_file_is_kept_under_the_name_that_it_is_given(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "0123abcd"
    path.write_bytes("# 休假\n\n年假五天。".encode())
    named = NamedFile(path, "handbook.md")
    report = store.add(named, options=AddOptions(access=("staff",)))
    assert report.added == ["handbook.md"]
    (info,) = store.sources()
    assert (info.source, info.origin, info.title) == ("handbook.md", "handbook.md", "休假")
    assert store.add(named, options=AddOptions(access=("staff",))).unchanged == ["handbook.md"]
    path.unlink()
    report = store.add(named)
    assert report.failed[0].path == "handbook.md"
    assert report.failed[0].reason == "it cannot be read: No such file or directory"
    assert len(store.sources()) == 1
    other = NamedFile(path, "handbook.exe")
    path.write_text("x")
    (failure,) = store.add(other).failed
    assert failure.reason == "unknown format: no reader for .exe"
    assert failure.hint.startswith("readable: .pdf")


def test_a_stamp_tells_what_an_origin_was_made_from(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("first")
    store.add(NamedFile(path, "a.txt"))
    first = store.stamp("a.txt")
    assert (len(first), store.stamp("b.txt")) == (64, "")
    path.write_text("second")
    store.add(NamedFile(path, "a.txt"))
    assert store.stamp("a.txt") not in ("", first)
    store.remove("a.txt")
    assert store.stamp("a.txt") == ""


def test_a_cancel_during_the_last_batch_commits_nothing(
    store: Store, encoder: HashingEncoder
) -> None:
    document = Document(text="only fact", source="a")
    report = store.add(document, options=AddOptions(cancelled=lambda: bool(encoder.seen)))
    assert (report.cancelled, report.added, len(store)) == (True, [], 0)


def test_of_two_documents_under_one_name_the_later_stays(store: Store) -> None:
    old, new = Document("old", source="a"), Document("new", source="a")
    store.add(old)
    assert store.add(new, old).updated == ["a", "a"]
    assert store.document("a").text == "old"


def test_vectors_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    class Long(HashingEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Vectors:
            return super().encode_passages(passages) * np.float32(1e6)

    with Store.open(tmp_path / "s", encoder=Long()) as store:
        with pytest.raises(UsageError, match="values that are not finite"):
            store.add(Document("a", source="a"))
        assert store.sequence == 0


HALF = "\ud800"
"""Half of a surrogate pair, as a terminal that is not set to UTF-8 makes them."""


@pytest.mark.parametrize(
    "about",
    [
        {"language": HALF},
        {"contributor": HALF},
        {"metadata": {"a": HALF}},
        {"metadata": {HALF: ""}},
        {"source": "a\0b"},
        {"id": "\0"},
    ],
)
def test_what_cannot_be_kept_of_a_document_is_told_with_it(
    store: Store, about: dict[str, Any]
) -> None:
    report = store.add(Document(**{"text": "a", "source": "a", **about}))
    (failure,) = report.failed
    assert (
        "half of a surrogate pair" in failure.reason or "character of value zero" in failure.reason
    )
    assert store.sequence == 0


@pytest.mark.parametrize("options", [{"contributor": HALF}, {"access": ("staff", HALF)}])
def test_options_that_are_no_text_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^'\\ud800' is not text"):
        AddOptions(**options)


def test_names_that_are_no_text_are_refused(store: Store) -> None:
    store.add(Document("a", source="a"))
    for asked in (store.remove, store.document, lambda name: store.matching(Where((name,)))):
        with pytest.raises(UsageError, match=r"^'\\ud800' is not text") as error:
            asked(HALF)
        assert error.value.hint == "set the terminal's encoding to UTF-8 and type it again"


def test_a_store_without_its_tables_is_damaged(store: Store) -> None:
    store.add(Document("a", source="a"))
    with closing(apsw.Connection(str(store.path / "store.sqlite3"))) as connection:
        connection.execute("DROP TABLE meta")
    with pytest.raises(DamagedError, match="no such table: meta"):
        assert store.sequence
