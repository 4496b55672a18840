"""A small graph in both languages, as documents, and the triples it is made of."""

from collections.abc import Iterable

from consilience.documents import Document, Triple
from consilience.documents.triples import Fact, metadata_of, text_of

EX = "http://example.org/"
LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
ALIAS = "<http://www.w3.org/2004/02/skos/core#altLabel>"

Said = tuple[str, str]
"""A property and a value; a value of `*name` is the thing of that name."""

THINGS: dict[str, tuple[Said, ...]] = {
    "Ada Lovelace": (
        ("alias", "Countess of Lovelace"),
        ("father", "*Lord Byron"),
        ("wrote", "notes"),
    ),
    "Lord Byron": (("gender", "male"), ("child", "*Ada Lovelace"), ("home", "*Newstead Abbey")),
    "Newstead Abbey": (("county", "Nottinghamshire"),),
    "Mary Shelley": (("gender", "female"), ("wrote", "Frankenstein")),
    "刘晓华（物理学教授）": (("主讲课程", "固体物理"), ("任职", "*广东工业大学")),
    "刘晓华（歌手）": (("代表作", "远方"),),
    "广东工业大学": (("别名", "广工"), ("所在地", "广州")),
    "广东": (("省会", "广州市"),),
    "什么": (("类型", "歌曲"),),
}


def thing(name: str) -> str:
    """The IRI of a thing, as a term."""
    return f"<{EX}{name.replace(' ', '_')}>"


def about(name: str, said: Iterable[Said] | None = None, *, source: str = "") -> Document:
    """A document about one thing, as the reader makes it."""
    facts = [Fact(f"name: {name}", (Triple(thing(name), LABEL, f'"{name}"'),))]
    for what, value in THINGS[name] if said is None else said:
        predicate = ALIAS if what in ("alias", "别名") else f"<{EX}{what}>"
        obj = thing(value[1:]) if value.startswith("*") else f'"{value}"'
        facts.append(Fact(f"{what}: {value.lstrip('*')}", (Triple(thing(name), predicate, obj),)))
    return Document(
        text_of(facts),
        source or name,
        title=name,
        metadata=metadata_of(thing(name), facts),
    )


def graph() -> list[Document]:
    """Documents about all things."""
    return [about(name) for name in THINGS]
