import json
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
        (("search",), "Missing argument 'QUESTION'."),
        (("search", "a", "--dry-run"), "--dry-run does nothing without --tune"),
        (("search", "a", "--index", "ivf"), "--index does nothing without --tune"),
        (
            ("search", "--tune", "x", "--mode", "bm25", "--index", "ivf"),
            "--index does nothing with --mode bm25",
        ),
        (
            ("search", "a", "--tune", "x", "--k", "3"),
            "--tune measures a plain search and takes no a question, no --k",
        ),
        (("search", "a", "--mode", "bm25", "--rerank", "magic"), "there is no reranker 'magic'"),
    ],
)
def test_a_wrong_question_is_refused(room: Path, words: tuple[str, ...], message: str) -> None:
    done = consilience(*words, "--json")
    assert done.code == 2
    assert done.document["error"]["message"] == message


def test_questions_that_are_not_there_are_missing(room: Path) -> None:
    done = consilience("search", "--tune", "nowhere.jsonl", "--json")
    assert done.code == 3
    assert done.document["error"]["message"] == "there is no file of questions at nowhere.jsonl"


@pytest.fixture
def questions(room: Path) -> str:
    """Questions that only two of the documents answer, and some that say nothing."""
    asked = [
        {"question": f"When may visitors come, number {n}?", "answers": ["14:30"]}
        for n in range(14)
    ]
    asked += [{"question": f"年假有几天？第{n}次", "answers": ["五天"]} for n in range(14)]
    asked.append({"question": "Why?"})
    Path("dev.jsonl").write_text("\n".join(map(json.dumps, asked)), "utf-8")
    return "dev.jsonl"


def test_what_is_tuned_is_kept_with_the_store(room: Path, questions: str) -> None:
    words = ("search", "--tune", questions, "--mode", "bm25", "--json")
    dry = consilience(*words, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.document["written"] is False
    from consilience.store import Store

    with Store.open("knowledge", create=False) as store:
        assert store.settings == {}
    found = consilience(*words).document
    assert found.keys() == {
        "tuning",
        "before",
        "after",
        "curve",
        "questions",
        "held",
        "written",
    }
    assert found["written"] is True
    assert found["questions"] == {"fit": 14, "check": 14, "left_out": 1}
    assert found["after"]["check"].keys() == {"recall@1", "recall@5", "recall@20", "mrr@10"}
    point = {"k", "candidates", "recall", "mrr", "p50_ms", "p95_ms"}
    assert all(one.keys() == point for one in found["curve"])
    with Store.open("knowledge", create=False) as store:
        assert store.settings["retrieval"] == found["tuning"]


def test_the_k_of_the_store_counts_where_none_is_given(room: Path) -> None:
    from consilience.retrieval import Tuning
    from consilience.store import Store

    with Store.open("knowledge", create=False) as store:
        Tuning(k=1).keep(store)

    def found(*flags: object) -> int:
        done = consilience("search", "the, 19 yuan, 年假, at", "--mode", "bm25", "--json", *flags)
        return len(done.document["hits"])

    assert found() == 1
    assert found("--k", 3) > 1


def test_people_see_what_was_measured(room: Path, questions: str) -> None:
    done = consilience("search", "--tune", questions, "--model", "model", "--dry-run")
    assert done.code == 0
    assert done.out.startswith("14 questions chose, 14 others check, 1 say nothing of a passage.\n")
    assert "Recall and latency on the questions that check" in done.out
    assert "temperature" in done.out
    assert done.out.endswith("Nothing was written.\n")


def test_contributors_are_capped(room: Path) -> None:
    for name in ("a", "b", "c"):
        Path(f"{name}.txt").write_text(f"The zebra of the {name} house.\n")
    assert consilience("add", "a.txt", "b.txt", "--contributor", "x", "--model", "model").code == 0
    assert consilience("add", "c.txt", "--contributor", "y", "--model", "model").code == 0
    words = ("search", "zebra", "--mode", "bm25", "--json")
    assert len(consilience(*words).document["hits"]) == 3
    hits = consilience(*words, "--per-contributor", 1).document["hits"]
    assert len(hits) == 2
    assert hits[-1]["source"] == "c.txt" or hits[0]["source"] == "c.txt"


@pytest.mark.parametrize(
    "flags", [("--rerank", "maxsim"), ("--rerank", "prior"), ("--diversity", 0.5)]
)
def test_rankings_are_refined(room: Path, flags: tuple[object, ...]) -> None:
    done = consilience(
        "search", "visitors weekdays", "--mode", "bm25", "--model", "model", "--json", *flags
    )
    assert (done.code, done.err) == (0, "")
    assert done.document["hits"][0]["source"] == "docs/visits.md"


def test_a_filter_confines_the_search(room: Path) -> None:
    def sources(*conditions: str) -> set[str]:
        flags = [word for one in conditions for word in ("--where", one)]
        done = consilience("search", "visitors 年假 fee", "--mode", "bm25", "--json", *flags)
        return {hit["source"] for hit in done.document["hits"]}

    everything = sources()
    assert len(everything) == 3
    assert sources("source=docs/制度/") == {"docs/制度/请假.txt"}
    assert sources("language=en", "source=docs/visits.md") == {"docs/visits.md"}
    assert sources("source=docs/visits.md", "source=docs/fees.csv") == {
        "docs/visits.md",
        "docs/fees.csv",
    }
    assert sources("contributor=nobody") == set()


@pytest.mark.parametrize("verb", ["search", "ask"])
@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("visits.md", "a filter is FIELD=VALUE, received 'visits.md'"),
        ("author=Li", "there is no field 'author' to filter by"),
    ],
)
def test_a_wrong_filter_is_told_before_anything_is_loaded(
    bare: Path, verb: str, condition: str, message: str
) -> None:
    done = consilience(verb, "who?", "--where", condition, "--json")
    assert (done.code, done.document["error"]["message"]) == (2, message)
