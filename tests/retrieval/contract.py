"""What every retriever over a store must do, whatever ranks its passages.

Subclass `RetrieverContract`, say in `open` how the retriever is made, and let pytest collect it.
The class needs the fixture `store`: an empty `Store` that can embed what it is given.
"""

import threading

import pytest

from consilience.documents import Document
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
