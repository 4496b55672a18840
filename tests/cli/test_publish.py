import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import consilience
from tests.servers import postgres_socket, postgres_url

__all__ = ["postgres_socket", "postgres_url"]

CANARY = "c4n4ry"


@pytest.fixture
def url(postgres_url: Callable[[], str]) -> str:
    return postgres_url()


def test_what_was_published_is_searched_without_the_store(
    room: Path, bare_room: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = consilience("publish", url, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.document == {
        "engine": url,
        "generation": 3,
        "passages": 3,
        "added": 3,
        "removed": 0,
    }
    here = consilience("search", "visitors", "--mode", "bm25", "--json").document["hits"]
    monkeypatch.chdir(bare_room)
    hits = consilience("search", "visitors", "--mode", "bm25", "--engine", url, "--json")
    assert [hit["id"] for hit in hits.document["hits"]] == [hit["id"] for hit in here]


@pytest.fixture
def bare_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


def test_a_model_answers_from_a_copy(room: Path, url: str) -> None:
    consilience("publish", url)
    words = ("Until when may visitors stay?", "--model", "model", "--json")
    here, there = consilience("ask", *words), consilience("ask", *words, "--engine", url)
    assert there.code == 0
    assert there.document["answer"] == here.document["answer"]
    assert cited(there.document) == cited(here.document) != []
    shown = consilience("ask", *words[:-1], "--engine", url)
    assert (shown.code, shown.err) == (0, "")


def cited(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["passage_id"], one["text"]) for one in document["citations"]]


def test_refinements_work_on_a_copy(room: Path, url: str) -> None:
    consilience("publish", url)
    for flags in (("--diversity", 0.5), ("--per-contributor", 1), ("--mode", "hybrid")):
        words = ("search", "visitors at the weekend", "--model", "model", "--json", *flags)
        here, there = consilience(*words), consilience(*words, "--engine", url)
        assert [hit["id"] for hit in there.document["hits"]] == [
            hit["id"] for hit in here.document["hits"]
        ]


def test_people_are_told_in_their_language(room: Path, url: str) -> None:
    done = consilience("publish", url)
    assert done.code == 0
    assert done.out.splitlines() == [
        f"{url} is at generation 3: passages 3 · added 3 · removed 0",
        f"next: consilience search 'What must I bring?' --engine '{url}'",
    ]
    consilience("remove", "docs/visits.md")
    again = consilience("publish", url, "--lang", "zh")
    assert again.out.splitlines()[0] == f"{url} 已到版次 4：段落 2 · 新增 0 · 移除 1"


def test_another_store_needs_replace(room: Path, url: str, tmp_path: Path) -> None:
    consilience("publish", url)
    (room / "one.txt").write_text("Something else.", "utf-8")
    consilience("add", "one.txt", "--store", "other", "--model", "model", "--quiet")
    refused = consilience("publish", url, "--store", "other", "--json")
    assert refused.code == 2
    assert (
        "holds a copy of another store than the one at other"
        in refused.document["error"]["message"]
    )
    assert consilience("publish", url, "--store", "other", "--replace", "--json").code == 0


def test_store_and_engine_exclude_each_other(room: Path, url: str) -> None:
    for verb in ("ask", "search"):
        done = consilience(verb, "visitors", "--engine", url, "--store", "other", "--json")
        assert done.code == 2
        assert done.document["error"]["message"] == "--engine and --store were both given"


def test_tuning_needs_a_store(room: Path, url: str) -> None:
    done = consilience("search", "--tune", "dev.jsonl", "--engine", url, "--json")
    assert (
        done.document["error"]["message"] == "--tune measures a plain search and takes no --engine"
    )


def test_passwords_are_never_told(
    room: Path, postgres_socket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSILIENCE_DEBUG", "1")
    urls = (
        f"postgresql://postgres:{CANARY}@/nowhere?host={postgres_socket}",
        f"postgresql://u:{CANARY}@/d?host={tmp_path}",
        f"postgresql://u:{CANARY}@[::bad/d",
        f"postgresql://u:{CANARY}@h:99999/d",
        f"postgresql://u:{CANARY}@h/d?password={CANARY}",
        f"mysql://u:{CANARY}@h/d",
    )
    for url in urls:
        for words in (("publish", url), ("search", "visitors", "--mode", "bm25", "--engine", url)):
            for form in ((), ("--json",)):
                done = consilience(*words, *form)
                assert done.code != 0
                assert CANARY not in done.out + done.err, words


def test_a_missing_package_is_named(room: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    done = consilience("publish", url, "--json")
    assert done.code == 8
    assert done.document["error"]["hint"] == "pip install 'consilience[postgres]'"
