from pathlib import Path

import pytest

from tests.cli.terminal import consilience

HIT = {"id", "score", "title", "source", "page", "start", "end", "text"}


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
def test_every_mode_finds_passages(room: Path, mode: str) -> None:
    done = consilience("search", "年假几天", "--mode", mode, "--model", "model", "--json", "--k", 2)
    assert (done.code, done.err) == (0, "")
    hits = done.document["hits"]
    assert 1 <= len(hits) <= 2
    assert all(hit.keys() == HIT for hit in hits)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_a_hit_says_exactly_where_it_is(room: Path) -> None:
    done = consilience("search", "年假", "--mode", "bm25", "--json")
    hit = done.document["hits"][0]
    assert hit["source"] == "docs/制度/请假.txt"
    assert Path(hit["source"]).read_text("utf-8")[hit["start"] : hit["end"]] == hit["text"]


def test_people_get_a_list_and_the_next_command(room: Path, passage_id: str) -> None:
    done = consilience("search", "visitors weekdays", "--mode", "bm25", "--k", 1)
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[0].startswith(" 1 ")
    assert lines[0].endswith(f"docs/visits.md  {passage_id}")
    assert lines[1].startswith("     # Visiting hours Visitors are welcome")
    assert lines[-1] == f"next: consilience show {passage_id}"


def test_nothing_found_is_said(room: Path) -> None:
    done = consilience("search", "zyzzyva", "--mode", "bm25")
    assert (done.code, done.out) == (0, "No passage has anything of this question.\n")


def test_labels_hide_passages(room: Path) -> None:
    Path("secret.txt").write_text("The visitors of the safe.\n")
    assert consilience("add", "secret.txt", "--access", "staff", "--model", "model").code == 0

    def sources(*flags: str) -> set[str]:
        found = consilience("search", "visitors", "--mode", "bm25", "--json", *flags)
        return {hit["source"] for hit in found.document["hits"]}

    assert "secret.txt" in sources()
    assert "secret.txt" in sources("--access", "other", "--access", "staff")
    assert sources("--access", "other") == {"docs/visits.md"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", ""), "the question is empty"),
        (("search", " \n"), "the question is empty"),
        (("search", "a", "--k", "0"), "Invalid value for '--k': 0 is not in the range x>=1."),
        (
            ("search", "a", "--mode", "fast"),
            "Invalid value for '--mode': 'fast' is not one of 'bm25', 'dense', 'hybrid'.",
        ),
        (("search", "\udcff"), r"the question is not valid text: '\udcff'"),
    ],
)
def test_a_wrong_question_is_refused(room: Path, words: tuple[str, ...], message: str) -> None:
    done = consilience(*words, "--json")
    assert done.code == 2
    assert done.document["error"]["message"] == message
