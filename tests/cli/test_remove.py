from pathlib import Path

from tests.cli.terminal import consilience


def test_what_was_removed_is_found_no_more(room: Path) -> None:
    before = consilience("search", "visitors", "--mode", "bm25", "--json").document["hits"]
    done = consilience("remove", "docs/visits.md", "--json")
    assert done.code == 0
    assert done.document.keys() == {"removed", "generation"}
    assert done.document["removed"] == ["docs/visits.md"]
    assert before
    assert consilience("search", "visitors", "--mode", "bm25", "--json").document == {"hits": []}


def test_a_folder_is_removed_by_its_name(room: Path) -> None:
    done = consilience("remove", "docs/制度/", "--lang", "zh")
    assert done.code == 0
    assert done.out.splitlines() == [
        "docs/制度/请假.txt",
        "移除 1 · 段落 1",
        "接下来: consilience show",
    ]


def test_all_or_nothing(room: Path) -> None:
    done = consilience("remove", "docs/fees.csv", "docs/visit.md")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "error: there is no source 'docs/visit.md' in the store at knowledge",
        "hint: Did you mean docs/visits.md?",
    ]
    assert len(consilience("show", "--json").document["sources"]) == 3
