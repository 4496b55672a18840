"""Removing, and what every change leaves behind for indexes to follow."""

from pathlib import Path

import pytest

from consilience.documents import Document
from consilience.errors import MissingError
from consilience.store import RemoveReport, Store


def document(source: str, text: str = "") -> Document:
    return Document(text=text or f"About {source}.", source=source)


def names(store: Store) -> list[str]:
    return [info.source for info in store.sources()]


def files(store: Store) -> bytes:
    """All that the store has on disk."""
    return b"".join(p.read_bytes() for p in sorted(store.path.rglob("*")) if p.is_file())


def test_a_removed_source_is_gone_at_once(store: Store) -> None:
    store.add(document("a"), document("b"))
    assert store.remove("a") == RemoveReport(["a"], 1, 3)
    assert names(store) == ["b"]
    assert store.sequence == 3
    with pytest.raises(MissingError):
        store.document("a")


def test_removed_text_leaves_the_disk_too(store: Store) -> None:
    secret = "Patient 4711 is called Zaphod."
    store.add(document("a", secret), document("b"))
    assert secret.encode() in files(store)
    store.remove("a")
    assert secret.encode() not in files(store)
    assert b"About b." in files(store)


def test_a_reader_does_not_hold_a_removal_up(store: Store) -> None:
    store.add(document("a"), document("b"))
    with store.changes(0) as changes:
        store.remove("a")
        assert sum(len(batch) for batch in changes.added) == 2
    assert names(store) == ["b"]


def test_several_sources_are_one_change(store: Store) -> None:
    store.add(document("a"), document("b"), document("c"))
    assert store.remove("c", "a", "a") == RemoveReport(["a", "c"], 2, 4)


def test_an_unknown_source_removes_nothing_and_names_close_ones(store: Store) -> None:
    store.add(document("handbook/leave.md"), document("handbook/pay.md"))
    with pytest.raises(MissingError) as caught:
        store.remove("handbook/pay.md", "handbook/leaf.md")
    assert caught.value.message == (
        f"there is no source 'handbook/leaf.md' in the store at {store.path}"
    )
    assert caught.value.hint.startswith("Did you mean handbook/leave.md")
    assert names(store) == ["handbook/leave.md", "handbook/pay.md"]
    with pytest.raises(MissingError) as caught:
        store.remove("什么")
    assert caught.value.hint == f"consilience show --store {store.path}"


def test_removing_nothing_changes_nothing(store: Store) -> None:
    assert store.remove() == RemoveReport([], 0, 0)


def test_a_file_is_removed_whole_or_document_by_document(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    name = file.as_posix()
    file.write_text('{"text": "One."}\n{"text": "Two."}\n{"text": "Three."}\n', "utf-8")
    store.add(file)
    assert store.remove(f"{name}#2").removed == [f"{name}#2"]
    assert names(store) == [f"{name}#1", f"{name}#3"]
    assert store.add(file).updated == [name], "adding the file brings all of it back"
    assert len(names(store)) == 3
    assert store.remove(f"{name}#1", f"{name}#2", f"{name}#3").removed == [name]
    store.add(file)
    assert store.remove(name).removed == [name]
    assert len(store) == 0
    assert store.check() == []


def test_a_folder_is_removed_with_a_slash(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("h/a.md", "h/100%_b.md", "h2/a.md"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(f"About {name}.", "utf-8")
    store.add("h", "h2", document("h/given"))
    with pytest.raises(MissingError):
        store.remove("h")
    assert store.remove("h/").removed == ["h/100%_b.md", "h/a.md"]
    assert names(store) == ["h/given", "h2/a.md"]


def test_numbers_are_never_used_again(store: Store) -> None:
    def numbers() -> list[int]:
        with store.changes(0) as changes:
            return [row.number for batch in changes.added for row in batch]

    store.add(document("a"))
    (first,) = numbers()
    store.remove("a")
    store.add(document("a"))
    assert numbers() > [first]
    with store.changes(1) as changes:
        assert changes.removed == [first]
