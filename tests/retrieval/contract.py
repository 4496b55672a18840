"""What every retriever over a store must do, whatever ranks its passages.

Subclass `RetrieverContract`, say in `open` how the retriever is made, and let pytest collect it.
The class needs the fixture `store`: an empty `Store` that can embed what it is given.
"""

import threading
from math import isfinite

import pytest

from consilience.documents import Document, Page
from consilience.errors import UsageError
from consilience.retrieval import Retriever
from consilience.store import Store, Where
from tests.retrieval.corpus import QUESTIONS, TEXTS, fill

ASK = "How many days of annual leave do employees receive?"


def sources(
    retriever: Retriever, question: str = ASK, *, k: int = 20, **options: object
) -> list[str]:
    return [hit.passage.source for hit in retriever.search(question, k=k, **options)]  # type: ignore[arg-type]


class RetrieverContract:
    """The contract of `Retriever`, and of following a store."""

    def open(self, store: Store) -> Retriever:
        raise NotImplementedError

    @pytest.mark.parametrize(("question", "source"), QUESTIONS.items())
    def test_the_passage_that_answers_comes_first(
        self, store: Store, question: str, source: str
    ) -> None:
        fill(store)
        hits = self.open(store).search(question, k=3)
        assert hits[0].passage.source == source
        assert hits[0].passage.text == TEXTS[source]

    def test_scores_fall_and_passages_are_distinct(self, store: Store) -> None:
        fill(store)
        hits = self.open(store).search(ASK, k=20)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert len({hit.passage.id for hit in hits}) == len(hits)

    def test_at_most_k(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        everything = sources(retriever)
        assert sources(retriever, k=1) == everything[:1]
        assert sources(retriever, k=2) == everything[:2]
        assert len(everything) <= len(TEXTS)

    def test_an_empty_store_has_no_answers(self, store: Store) -> None:
        assert sources(self.open(store)) == []

    @pytest.mark.parametrize("question", ["", " \n\t", "\u200b", "\u3000"])
    def test_an_empty_question_is_refused(self, store: Store, question: str) -> None:
        with pytest.raises(UsageError) as error:
            self.open(store).search(question, k=1)
        assert error.value.message == f"the question is empty, received {question!r}"
        assert error.value.hint == 'Ask something: consilience search "opening hours"'

    @pytest.mark.parametrize("k", [0, -1])
    def test_k_below_one_is_refused(self, store: Store, k: int) -> None:
        with pytest.raises(UsageError, match=rf"^k must be 1 or more, received {k}$"):
            self.open(store).search(ASK, k=k)

    @pytest.mark.parametrize("question", ["???", "的", "the of and", "\ud800 leave", "a" * 70_000])
    def test_strange_questions_are_answered_or_not_but_do_no_harm(
        self, store: Store, question: str
    ) -> None:
        fill(store, "leave")
        assert set(sources(self.open(store), question)) <= {"leave"}

    def test_labels_hide_passages(self, store: Store) -> None:
        fill(store, "leave", access=("staff", "board"))
        fill(store, "visits", "loans")
        retriever = self.open(store)
        assert sources(retriever)[0] == "leave"
        assert sources(retriever, access=None)[0] == "leave"
        assert sources(retriever, access=("staff",))[0] == "leave"
        assert sources(retriever, access={"board", "x"})[0] == "leave"
        for held in ((), ("guests",), ("staf",), ("*",), ("",), ("=staff",)):
            assert "leave" not in sources(retriever, access=held)

    def test_one_label_as_bare_text_is_that_label(self, store: Store) -> None:
        fill(store, "leave", access=("staff",))
        fill(store, "loans", access=("s",))
        retriever = self.open(store)
        assert sources(retriever, access="staff") == ["leave"]

    def test_hidden_passages_take_no_place(self, store: Store) -> None:
        for number in range(30):
            text = f"{TEXTS['leave']} Version {number}."
            store.add(Document(text, source=f"secret {number}", access=("board",)))
        fill(store, "leave")
        assert sources(self.open(store), k=1, access=()) == ["leave"]

    def test_a_search_is_confined_to_the_documents_asked_for(self, store: Store) -> None:
        fill(store, "leave", "visits")
        store.add(Document(TEXTS["leave"], source="copies/leave", contributor="ward 3"))
        store.add(Document(TEXTS["leave"], source="old", language="xx", metadata={"year": "1999"}))
        retriever = self.open(store)
        for conditions, expected in (
            (["source=leave"], {"leave"}),
            (["source=copies/"], {"copies/leave"}),
            (["source=leave", "source=copies/"], {"leave", "copies/leave"}),
            (["contributor=ward 3"], {"copies/leave"}),
            (["language=xx"], {"old"}),
            (["metadata.year=1999", "metadata.year=2000"], {"old"}),
            (["metadata.year=1999", "contributor=ward 3"], set()),
            (["source=nowhere"], set()),
        ):
            found = sources(retriever, where=Where.parse(conditions))
            assert set(found) == expected, conditions

    def test_documents_outside_of_the_filter_take_no_place(self, store: Store) -> None:
        store.add([Document(f"{TEXTS['leave']} Version {n}.", source=f"v{n}") for n in range(30)])
        store.add(Document(TEXTS["leave"], source="ours", contributor="us"))
        assert sources(self.open(store), k=1, where=Where(contributors=("us",))) == ["ours"]

    def test_filter_and_labels_hold_together(self, store: Store) -> None:
        fill(store, "leave", access=("staff",))
        fill(store, "visits")
        retriever = self.open(store)
        only = Where(sources=("leave",))
        assert sources(retriever, where=only, access=("staff",)) == ["leave"]
        assert sources(retriever, where=only, access=("guests",)) == []

    def test_a_key_of_metadata_that_no_document_has_is_refused(self, store: Store) -> None:
        store.add(Document(TEXTS["leave"], source="a", metadata={"year": "1999"}))
        with pytest.raises(UsageError) as error:
            sources(self.open(store), where=Where.parse(["metadata.yaer=1999"]))
        assert error.value.message == "there is no field 'metadata.yaer' to filter by"
        assert error.value.hint == "One of: source, contributor, language, metadata.year."

    @pytest.mark.parametrize("source", [*QUESTIONS.values()])
    def test_a_hit_is_the_passage_as_the_store_has_it(self, store: Store, source: str) -> None:
        fill(store)
        question = next(asked for asked, right in QUESTIONS.items() if right == source)
        hit = self.open(store).search(question, k=1)[0]
        assert hit.passage == store.passage(hit.passage.id)

    def test_a_hit_says_where_it_stands(self, store: Store) -> None:
        text = f"{TEXTS['parking']}\n\n{TEXTS['leave']}"
        pages = (Page(1, 0, len(TEXTS["parking"])), Page(2, len(TEXTS["parking"]), len(text)))
        store.add(
            Document(
                text,
                source="handbook/rules.pdf",
                title="Rules of the house",
                contributor="personnel",
                access=("staff",),
                pages=pages,
            )
        )
        found = self.open(store).search(ASK, k=1)[0].passage
        assert (found.title, found.source) == ("Rules of the house", "handbook/rules.pdf")
        assert (found.contributor, found.access) == ("personnel", ("staff",))
        assert text[found.start : found.end] == found.text
        assert found.page == store.passage(found.id).page

    def test_words_of_the_title_are_searched(self, store: Store) -> None:
        fill(store, "loans", "visits")
        store.add(Document("Ask at the desk.", source="desk", title="Lost umbrellas"))
        assert sources(self.open(store), "Where are lost umbrellas kept?", k=1) == ["desk"]

    def test_the_same_question_has_the_same_answer(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        assert retriever.search(ASK, k=20) == retriever.search(ASK, k=20)

    def test_scores_are_finite(self, store: Store) -> None:
        fill(store)
        assert all(isfinite(hit.score) for hit in self.open(store).search(ASK, k=20))

    def test_more_than_there_are_gives_those_that_there_are(self, store: Store) -> None:
        fill(store, "leave", "loans")
        assert len(self.open(store).search(ASK, k=1000)) <= 2

    def test_as_many_as_are_asked_for_where_there_are_as_many(self, store: Store) -> None:
        store.add([Document(f"{TEXTS['leave']} No. {n}.", source=f"v{n}") for n in range(150)])
        found = self.open(store).search(ASK, k=130)
        assert len({hit.passage.id for hit in found}) == 130

    def test_equal_texts_of_several_sources_are_all_found(self, store: Store) -> None:
        store.add([Document(TEXTS["leave"], source=name) for name in ("a", "b", "c")])
        assert sorted(sources(self.open(store))) == ["a", "b", "c"]

    @pytest.mark.parametrize(
        "question",
        [
            "How many 天 of annual leave 员工?",
            "annual leave'; DROP TABLE passages; --",
            '"annual leave" OR *:* {"match_all": {}}',
            "annual\x00leave",
            "ANNUAL LEAVE!!! \U0001f3d6\ufe0f",
            "annual leave " * 2000,
        ],
    )
    def test_questions_are_never_read_as_commands(self, store: Store, question: str) -> None:
        fill(store, "leave", "loans")
        assert sources(self.open(store), question)[0] == "leave"
        assert len(store) == 2

    @pytest.mark.parametrize(
        "text",
        [
            "Annual leave: \U0001f3d6\U00020bb7 \u05d7\u05d5\u05e4\u05e9\u05d4 days",
            f"Annual leave days {'x' * 3000}",
            "Annual leave days \\ ' \" % _ $1 {} \t end",
            "Annual leave\ndays\n\nof employees",
        ],
    )
    def test_texts_come_back_as_they_were(self, store: Store, text: str) -> None:
        store.add(Document(text, source="odd"))
        found = self.open(store).search("annual leave days", k=1)[0].passage
        assert found.text == store.passage(found.id).text
        assert found.text in text

    @pytest.mark.parametrize(
        "label", ["年", "a b", "'; --", "=", "*", "%", "_", "x" * 300, '"', "\\", "a,b"]
    )
    def test_labels_are_compared_as_they_are(self, store: Store, label: str) -> None:
        fill(store, "leave", access=(label,))
        retriever = self.open(store)
        assert sources(retriever, access=(label,)) == ["leave"]
        for other in ("x", f"{label}x", label[:-1] or "y"):
            assert sources(retriever, access=(other,)) == []

    @pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
    def test_labels_come_in_any_collection(self, store: Store, kind: type) -> None:
        fill(store, "leave", access=("staff",))
        assert sources(self.open(store), access=kind(["guests", "staff"])) == ["leave"]

    @pytest.mark.parametrize(
        "value", ["a=b", "二〇二四", "x" * 1000, "' OR 1=1", "", "100%", 'say "so"', "a\nb"]
    )
    def test_values_of_metadata_are_compared_as_they_are(self, store: Store, value: str) -> None:
        store.add(Document(TEXTS["leave"], source="a", metadata={"note": value}))
        store.add(Document(TEXTS["leave"], source="b", metadata={"note": f"{value}."}))
        found = sources(self.open(store), where=Where(metadata=(("note", value),)))
        assert found == ["a"]

    @pytest.mark.parametrize("key", ["year.of.issue", "年", "a b", "x=y", "'"])
    def test_keys_of_metadata_are_compared_as_they_are(self, store: Store, key: str) -> None:
        store.add(Document(TEXTS["leave"], source="a", metadata={key: "1"}))
        store.add(Document(TEXTS["leave"], source="b", metadata={f"{key}2": "1"}))
        assert sources(self.open(store), where=Where(metadata=((key, "1"),))) == ["a"]

    def test_folders_are_those_that_the_name_begins_with(self, store: Store) -> None:
        for name in ("a/b/c", "a/bc", "ab/c", "A/b", "a/b/年/d", "a"):
            store.add(Document(f"{TEXTS['leave']} In {name}.", source=name))
        retriever = self.open(store)
        for folder, inside in (
            ("a/", {"a/b/c", "a/bc", "a/b/年/d"}),
            ("a/b/", {"a/b/c", "a/b/年/d"}),
            ("a/b/年/", {"a/b/年/d"}),
            ("a", {"a"}),
            ("a/b", set()),
            ("b/", set()),
            ("%/", set()),
        ):
            assert set(sources(retriever, where=Where(sources=(folder,)))) == inside, folder

    def test_alternatives_of_one_field_widen_and_fields_narrow(self, store: Store) -> None:
        for name, contributor, language in (
            ("a", "ward 3", "en"),
            ("b", "ward 4", "en"),
            ("c", "ward 3", "zh"),
            ("d", "", ""),
        ):
            store.add(
                Document(
                    f"{TEXTS['leave']} {name}.",
                    source=name,
                    contributor=contributor,
                    language=language,
                )
            )
        retriever = self.open(store)
        two = Where(contributors=("ward 3", "ward 4"))
        assert set(sources(retriever, where=two)) == {"a", "b", "c"}
        both = Where(contributors=("ward 3", "ward 4"), languages=("en",))
        assert set(sources(retriever, where=both)) == {"a", "b"}
        assert sources(retriever, where=Where(contributors=("",))) == ["d"]

    def test_what_the_reader_may_not_see_takes_no_place_within_a_filter(self, store: Store) -> None:
        for number in range(30):
            text = f"{TEXTS['leave']} Version {number}."
            store.add(Document(text, source=f"x/{number}", access=("board",)))
        store.add(Document(TEXTS["leave"], source="x/open"))
        fill(store, "leave")
        only = Where(sources=("x/",))
        assert sources(self.open(store), k=1, access=("staff",), where=only) == ["x/open"]

    def test_a_filter_follows_the_store(self, store: Store) -> None:
        store.add(Document(TEXTS["leave"], source="a", metadata={"year": "1999"}))
        retriever = self.open(store)
        year = Where(metadata=(("year", "2000"),))
        assert sources(retriever, where=year) == []
        store.add(Document(TEXTS["leave"], source="a", metadata={"year": "2000"}))
        assert sources(retriever, where=year) == ["a"]

    def test_a_store_that_was_emptied_can_be_filled_again(self, store: Store) -> None:
        fill(store, "leave", "loans")
        retriever = self.open(store)
        assert sources(retriever)
        store.remove("leave", "loans")
        assert sources(retriever) == []
        fill(store, "leave")
        assert sources(retriever) == ["leave"]

    def test_many_commits_between_two_searches_are_one_step(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        sources(retriever)
        for number in range(12):
            store.add(Document(f"{TEXTS['leave']} Version {number}.", source="leave"))
        store.remove("loans")
        hits = retriever.search(ASK, k=20)
        assert hits[0].passage.text.endswith("Version 11.")
        assert [hit.passage.source for hit in hits].count("leave") == 1
        assert "loans" not in [hit.passage.source for hit in hits]

    def test_what_is_added_is_found_by_the_next_search(self, store: Store) -> None:
        fill(store, "loans")
        retriever = self.open(store)
        assert "leave" not in sources(retriever)
        fill(store, "leave")
        assert sources(retriever)[0] == "leave"

    def test_what_is_removed_is_gone_at_once(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        assert sources(retriever)[0] == "leave"
        store.remove("leave")
        assert "leave" not in sources(retriever)

    def test_what_is_replaced_answers_with_its_new_text(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        sources(retriever)
        store.add(Document(f"{TEXTS['leave']} Since May.", source="leave"))
        hit = retriever.search(ASK, k=1)[0]
        assert hit.passage.text.endswith("Since May.")

    def test_labels_that_change_count_at_once(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        assert "leave" in sources(retriever, access=())
        fill(store, "leave", access=("board",))
        assert "leave" not in sources(retriever, access=())

    def test_commits_of_another_handle_are_followed(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        sources(retriever)
        with Store.open(store.path) as other:
            other.remove("leave")
        assert "leave" not in sources(retriever)

    def test_a_retriever_opened_later_answers_the_same(self, store: Store) -> None:
        fill(store)
        before = self.open(store).search(ASK, k=20)
        assert self.open(store).search(ASK, k=20) == before

    def test_threads_may_search_while_documents_come_and_go(self, store: Store) -> None:
        fill(store)
        retriever = self.open(store)
        wrong: list[object] = []

        def ask() -> None:
            for _ in range(20):
                try:
                    found = sources(retriever, k=1)
                except Exception as error:  # noqa: BLE001 - reported by the assertion below
                    wrong.append(error)
                else:
                    wrong.extend(source for source in found if source != "leave")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            store.remove("loans")
            fill(store, "loans")
        for thread in threads:
            thread.join()
        assert wrong == []
