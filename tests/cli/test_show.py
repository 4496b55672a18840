from pathlib import Path

from consilience import __version__
from tests.cli.conftest import VISITS
from tests.cli.terminal import consilience


def test_the_whole_store(room: Path) -> None:
    shown = consilience("show", "--json").document
    assert (shown["store"], shown["documents"], shown["generation"]) == ("knowledge", 3, 3)
    assert shown["created_by"] == __version__
    names = [source["source"] for source in shown["sources"]]
    assert names == ["docs/fees.csv", "docs/visits.md", "docs/制度/请假.txt"]
    assert shown["passages"] == sum(source["passages"] for source in shown["sources"])


def test_the_whole_store_for_people(room: Path) -> None:
    lines = consilience("show", "--lang", "zh").out.splitlines()
    assert lines[0] == "知识库 knowledge"
    assert lines[1].startswith("文档 3 · 段落 ")
    assert any(line.startswith("docs/visits.md") for line in lines)
    assert lines[-1] == "接下来: consilience show docs/fees.csv"


def test_an_empty_store_says_what_to_type(bare: Path) -> None:
    assert consilience("add", "nothing.txt", "--store", "my store").code == 7
    assert consilience("show", "--store", "my store").out.splitlines() == [
        "The knowledge base my store is empty.",
        "next: consilience add PATH --store 'my store'",
    ]


def test_a_source(room: Path) -> None:
    shown = consilience("show", "docs/visits.md", "--json").document
    assert shown["characters"] == len(VISITS)
    assert shown["title"] == "Visiting hours"
    assert (shown["language"], shown["pages"]) == ("en", [])
    people = consilience("show", "docs/visits.md").out.splitlines()
    assert people[:2] == ["docs/visits.md", "Title: Visiting hours"]
    assert f"Characters: {shown['characters']}" in people


def test_a_passage_in_its_context(room: Path, passage_id: str) -> None:
    shown = consilience("show", passage_id, "--json").document
    whole = shown["before"] + shown["text"] + shown["after"]
    assert whole in VISITS
    assert VISITS[shown["start"] : shown["end"]] == shown["text"]
    people = consilience("show", passage_id).out
    assert people.startswith(f"docs/visits.md  characters {shown['start']}–{shown['end']}\n")
    assert f"**{shown['text']}**" in people


def test_the_context_of_a_passage_is_what_stands_around_it(room: Path) -> None:
    text = "\n\n".join(f"Rule {n} says that nobody may enter room {n}." for n in range(200))
    Path("rules.txt").write_text(text)
    assert consilience("add", "rules.txt", "--model", "model").code == 0
    hits = consilience("search", "rule 100", "--mode", "bm25", "--json").document["hits"]
    shown = consilience("show", hits[0]["id"], "--json").document
    start, end = shown["start"], shown["end"]
    assert (shown["before"], shown["after"]) == (text[start - 240 : start], text[end : end + 240])
    assert len(shown["before"]) == len(shown["after"]) == 240


def test_an_unknown_name(room: Path) -> None:
    done = consilience("show", "docs/visit.md")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: there is no source 'docs/visit.md' in the store at knowledge",
        "hint: Did you mean docs/visits.md?",
    ]
