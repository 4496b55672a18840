"""The dictionary of names: what is found in a question, and how it follows the store."""

import threading
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document, Triple
from consilience.documents.triples import Fact, metadata_of, text_of
from consilience.documents.vocabulary import TYPE
from consilience.retrieval.links import LONGEST_NAME, LinkIndex, key, names_of, normal
from consilience.store import Store
from tests.retrieval.corpus import fill
from tests.retrieval.graphs import EX, about, graph, thing


def _named(links: LinkIndex, store: Store, question: str) -> set[tuple[str, str]]:
    """The stretches of a question that are names, and the sources that give them."""
    asked = normal(question)
    assert links.follow()
    found = links.mentions(asked)
    sources = store.passages([mention.number for mention in found])
    return {(asked[m.start : m.end], sources[m.number].source) for m in found}


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Who was the father of Ada Lovelace?", {("ada lovelace", "Ada Lovelace")}),
        ("ADA_LOVELACE's father", {("ada lovelace", "Ada Lovelace")}),
        ("the Countess of Lovelace", {("countess of lovelace", "Ada Lovelace")}),
        ("Adaptable lovelaces", set()),
        ("the Lord Byrons", set()),
        (
            "廣東工業大學在哪里？",
            {("广东工业大学", "广东工业大学"), ("广东", "广东")},
        ),
        ("广工在哪", {("广工", "广东工业大学")}),
        (
            "刘晓华教什么",
            {
                ("刘晓华", "刘晓华（物理学教授）"),
                ("刘晓华", "刘晓华（歌手）"),
                ("什么", "什么"),
            },
        ),
        (
            "Lord Byron和Ada Lovelace",
            {("lord byron", "Lord Byron"), ("ada lovelace", "Ada Lovelace")},
        ),
        ("nobody", set()),
        ("?!", set()),
    ],
)
def test_names_are_found_in_both_languages(
    store: Store, question: str, names: set[tuple[str, str]]
) -> None:
    store.add(graph())
    assert _named(LinkIndex(store), store, question) == names


def test_a_name_without_its_explanation_says_so(store: Store) -> None:
    store.add(graph())
    links = LinkIndex(store)
    links.follow()
    assert {m.bare for m in links.mentions(normal("刘晓华"))} == {True}
    whole = [m for m in links.mentions(normal("刘晓华（歌手）")) if not m.bare]
    assert [m.length for m in whole] == [len("刘晓华 歌手")]


def test_things_lead_on_to_things(store: Store) -> None:
    store.add(graph())
    links = LinkIndex(store)
    links.follow()
    (ada,) = {m.entity for m in links.mentions(normal("Ada Lovelace"))}
    ((entity, numbers),) = links.passages([ada]).items()
    assert entity == ada == key(f"{EX}Ada_Lovelace")
    assert links.aims(numbers) == {numbers[0]: [key(f"{EX}Lord_Byron")]}
    assert links.passages([]) == links.aims([]) == {}


def test_the_kind_of_a_thing_is_not_led_to(store: Store) -> None:
    ada = thing("Ada Lovelace")
    facts = [Fact("type: Person", (Triple(ada, TYPE, thing("Person")),))]
    facts += [Fact("father: Lord Byron", (Triple(ada, f"<{EX}father>", thing("Lord Byron")),))]
    metadata = metadata_of(ada, facts)
    store.add(Document(text_of(facts), "Ada", title="Ada Lovelace", metadata=metadata))
    links = LinkIndex(store)
    links.follow()
    (mention,) = links.mentions(normal("Ada Lovelace"))
    assert links.aims([mention.number]) == {mention.number: [key(f"{EX}Lord_Byron")]}


def test_documents_that_are_no_graphs_have_no_names(store: Store) -> None:
    fill(store)
    store.add(Document("p: o", source="Ada", title="Ada", metadata={"format": "graph"}))
    broken = replace(
        about("Ada Lovelace"), metadata={**about("Ada Lovelace").metadata, "triples": "x"}
    )
    store.add(broken)
    links = LinkIndex(store)
    assert not links.follow()
    assert links.mentions(normal("Ada Lovelace")) == []


def test_the_dictionary_follows_the_store(store: Store) -> None:
    links = LinkIndex(store)
    assert not links.follow()
    store.add(about("Lord Byron"))
    assert _named(links, store, "Lord Byron") == {("lord byron", "Lord Byron")}
    store.add(about("Lord Byron", [("alias", "George Gordon")]))
    assert _named(links, store, "Was George Gordon Lord Byron?") == {
        ("george gordon", "Lord Byron"),
        ("lord byron", "Lord Byron"),
    }
    store.remove("Lord Byron")
    assert not links.follow()
    assert links.mentions("lord byron") == []
    assert links.passages([key(f"{EX}Lord_Byron")]) == {}


def test_another_process_goes_on_from_what_is_there(store: Store) -> None:
    store.add(graph())
    LinkIndex(store).follow()
    again = LinkIndex(store)
    database = store.path / "derived" / "links" / "names.db"
    before = apsw.Connection(str(database)).execute("SELECT max(rowid) FROM names").get
    store.add(about("Lord Byron", [("alias", "George Gordon")]))
    assert ("george gordon", "Lord Byron") in _named(again, store, "George Gordon")
    after = apsw.Connection(str(database)).execute("SELECT count(*) FROM names").get
    assert after <= before + 1


@pytest.mark.parametrize("damage", ["nonsense", "cut", "recipe", "identity", "ahead", "table"])
def test_what_is_not_this_stores_dictionary_is_made_anew(store: Store, damage: str) -> None:
    store.add(graph())
    LinkIndex(store).follow()
    _harm(store.path / "derived" / "links" / "names.db", damage)
    assert _named(LinkIndex(store), store, "Lord Byron") == {("lord byron", "Lord Byron")}


def _harm(path: Path, damage: str) -> None:
    if damage == "nonsense":
        path.write_bytes(b"nonsense" * 1000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        sql = {
            "recipe": "UPDATE meta SET recipe = 'older'; DELETE FROM names",
            "identity": "UPDATE meta SET identity = 'x'; DELETE FROM names",
            "ahead": "UPDATE meta SET sequence = 99; DELETE FROM names",
            "table": "DROP TABLE meta",
        }[damage]
        connection = apsw.Connection(str(path))
        connection.execute(sql)
        connection.close()


def test_without_room_for_the_dictionary_there_are_no_names(store: Store) -> None:
    store.add(graph())
    (store.path / "derived").mkdir(exist_ok=True)
    (store.path / "derived" / "links").write_text("in the way")
    assert not LinkIndex(store).follow()


def test_nothing_readable_is_kept(store: Store) -> None:
    store.add(about("Lord Byron"))
    LinkIndex(store).follow()
    data = (store.path / "derived" / "links" / "names.db").read_bytes().lower()
    assert b"byron" not in data


def test_threads_share_a_dictionary(store: Store) -> None:
    store.add(graph())
    links = LinkIndex(store)
    found: list[int] = []

    def look() -> None:
        for _ in range(20):
            links.follow()
            found.append(len(links.mentions("lord byron")))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 80


def test_long_questions_are_looked_at_from_their_end(store: Store) -> None:
    store.add(graph())
    links = LinkIndex(store)
    assert _named(links, store, f"{'年' * 5000} Lord Byron") == {("lord byron", "Lord Byron")}
    assert _named(links, store, f"Lord Byron {'x ' * 5000}") == set()


def test_names_of_one_character_and_endless_ones_are_left_out() -> None:
    assert names_of("山", EX, []) == {}
    assert names_of("x" * (LONGEST_NAME + 1), EX, []) == {}
    assert names_of("Mercury (planet)", EX, []) == {"mercury": True, "mercury planet": False}


@given(st.text(max_size=60))
def test_normal_text_stays_as_it_is(text: str) -> None:
    once = normal(text)
    assert normal(once) == once
    assert "  " not in once
