"""Knowledge graphs: every notation, words in two languages, and triples that can be cited."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document, Triple, read_document, triples_of
from consilience.documents.facts import split_facts
from consilience.documents.readers import graph
from consilience.documents.readers.base import RawFile
from consilience.documents.triples import Fact, metadata_of, text_of
from consilience.errors import DocumentError
from consilience.text import split_passages
from tests.documents.conftest import Refusal

EX = "http://example.org/"
LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
TURTLE = """
@prefix ex: <http://example.org/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
ex:born rdfs:label "born"@en, "出生日期"@zh .
ex:ada ex:birthPlace ex:london ; ex:born "1815-12-10T00:00:00Z"^^xsd:dateTime ;
  rdfs:label "Ada Lovelace"@en, "埃达·洛夫莱斯"@zh, "Ada de Lovelace"@fr ;
  skos:altLabel "Countess of Lovelace"@en ;
  rdfs:comment "A \\"mathematician\\",\\nand writer."@en ;
  ex:field ex:Analytical_Engine%20theory .
ex:london rdfs:label "London"@en ; ex:country "United Kingdom" .
"""


def _read(folder: Path, name: str, data: str | bytes) -> list[Document]:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_document(path, source=name)


def test_a_subject_becomes_a_document_with_a_line_for_each_fact(tmp_path: Path) -> None:
    ada, london = _read(tmp_path, "people.ttl", TURTLE)
    assert ada.text == (
        "name: Ada Lovelace\n"
        "name: 埃达·洛夫莱斯\n"
        "also known as: Countess of Lovelace\n"
        'description: A "mathematician", and writer.\n'
        "birth place: London\n"
        "born: 1815-12-10\n"
        "field: Analytical Engine theory"
    )
    assert (ada.title, ada.source) == ("Ada Lovelace", f"people.ttl#{EX}ada")
    assert (ada.metadata["format"], ada.metadata["subject"]) == ("graph", f"{EX}ada")
    assert (london.title, london.language) == ("London", "en")


def test_the_triple_of_a_stretch_is_found(tmp_path: Path) -> None:
    ada = _read(tmp_path, "people.ttl", TURTLE)[0]
    start = ada.text.index("1815")
    assert triples_of(ada, start, start + 4) == [
        Triple(
            f"<{EX}ada>",
            f"<{EX}born>",
            '"1815-12-10T00:00:00Z"^^<http://www.w3.org/2001/XMLSchema#dateTime>',
        )
    ]
    comment = triples_of(ada, ada.text.index("mathematician"), ada.text.index("writer"))
    assert [triple.object for triple in comment] == ['"A \\"mathematician\\",\\nand writer."@en']
    assert str(triples_of(ada, 0, 1)[0]) == f'<{EX}ada> <{LABEL}> "Ada Lovelace"@en .'
    assert len(triples_of(ada)) == 7
    assert triples_of(ada, 4, 4) == []
    assert triples_of(Document("plain", source="a")) == []


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("people.zh.ttl", "名称: 埃达·洛夫莱斯\n名称: Ada Lovelace"),
        ("people_en.ttl", "name: Ada Lovelace\nname: 埃达·洛夫莱斯"),
        ("lang=zh.ttl", "名称: 埃达·洛夫莱斯"),
        ("bazh.ttl", "name: Ada Lovelace"),
    ],
)
def test_the_name_of_the_file_says_the_language(tmp_path: Path, name: str, first: str) -> None:
    ada = _read(tmp_path, name, TURTLE)[0]
    assert set(first.split("\n")) <= set(ada.text.split("\n"))
    assert ("出生日期: 1815-12-10" in ada.text) == first.startswith("名称")


def test_the_language_is_that_of_most_labels(tmp_path: Path) -> None:
    data = f'<{EX}a> <{LABEL}> "北京"@zh ; <{EX}p> <{EX}b> . <{EX}b> <{LABEL}> "中国" .'
    (document,) = _read(tmp_path, "a.ttl", data)
    assert document.text == "名称: 北京\np: 中国"
    assert document.language == "zh"


def test_wikidata_calls_properties_by_their_entities(tmp_path: Path) -> None:
    data = (
        f'<http://www.wikidata.org/entity/Q90> <{LABEL}> "Paris"@en, "巴黎"@zh-hans,'
        ' "巴黎市"@zh-hant, "Parigi"@it ;'
        " <http://www.wikidata.org/prop/direct/P17> <http://www.wikidata.org/entity/Q142> ."
        f' <http://www.wikidata.org/entity/P17> <{LABEL}> "country"@en .'
        f' <http://www.wikidata.org/entity/Q142> <{LABEL}> "France"@en .'
    )
    (paris,) = _read(tmp_path, "a.ttl", data)
    assert paris.text == "name: Paris\nname: 巴黎\nname: 巴黎市\ncountry: France"


STATEMENT = Triple(f"<{EX}a>", f"<{EX}p>", '"北京"@zh')
JSONLD = {"@id": f"{EX}a", f"{EX}p": {"@value": "北京", "@language": "zh"}}
RDF = (
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:e="http://example.org/">'
    f'<rdf:Description rdf:about="{EX}a"><e:p xml:lang="zh">北京</e:p></rdf:Description></rdf:RDF>'
)
SPARQL_JSON = {
    "head": {"vars": ["s", "p", "o"]},
    "results": {
        "bindings": [
            {
                "s": {"type": "uri", "value": f"{EX}a"},
                "p": {"type": "uri", "value": f"{EX}p"},
                "o": {"type": "literal", "value": "北京", "xml:lang": "zh"},
            }
        ]
    },
}
SPARQL_XML = (
    '<sparql xmlns="http://www.w3.org/2005/sparql-results#"><head><variable name="object"/>'
    '<variable name="subject"/><variable name="predicate"/></head><results><result>'
    f'<binding name="subject"><uri>{EX}a</uri></binding>'
    f'<binding name="predicate"><uri>{EX}p</uri></binding>'
    '<binding name="object"><literal xml:lang="zh">北京</literal></binding>'
    "</result></results></sparql>"
)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ttl", f"{STATEMENT}"),
        ("a.ttl", b"\xef\xbb\xbf" + str(STATEMENT).encode()),
        ("a.nt", f"{STATEMENT}\n{STATEMENT}\n"),
        ("a.nq", f'<{EX}a> <{EX}p> "北京"@zh <{EX}g> .\n<{EX}a> <{EX}p> "北京"@zh <{EX}h> .\n'),
        ("a.trig", f"<{EX}g> {{ {STATEMENT} }}"),
        ("a.jsonld", json.dumps(JSONLD)),
        ("a.rdf", RDF),
        ("a.owl", RDF),
        ("a.srj", json.dumps(SPARQL_JSON)),
        ("a.srx", SPARQL_XML),
    ],
)
def test_every_notation_says_the_same(tmp_path: Path, name: str, data: str | bytes) -> None:
    (document,) = _read(tmp_path, name, data)
    assert document.text == "p: 北京"
    assert triples_of(document) == [STATEMENT]


def test_rows_of_results_tell_of_their_first_variable(tmp_path: Path) -> None:
    def uri(value: str) -> dict[str, str]:
        return {"type": "uri", "value": f"{EX}{value}"}

    def text(value: str) -> dict[str, str]:
        return {"type": "literal", "value": value, "xml:lang": "zh"}

    rows = [
        {"item": uri("Q1"), "itemLabel": text("北京"), "area": text("16410")},
        {"item": uri("Q1"), "itemLabel": text("北京"), "head": uri("Q2"), "headLabel": text("李")},
        {"area": text("nothing to tell of")},
    ]
    names = ["item", "itemLabel", "area", "head", "headLabel"]
    data = {"head": {"vars": names}, "results": {"bindings": rows}}
    (document,) = _read(tmp_path, "a.srj", json.dumps(data))
    assert document.title == "北京"
    assert document.text == "名称: 北京\narea: 16410\nhead: 李"
    assert triples_of(document)[2] == Triple(f"<{EX}Q1>", "<urn:sparql:variable:head>", f"<{EX}Q2>")


def test_nodes_without_a_name_are_told_where_they_are_referred_to(tmp_path: Path) -> None:
    data = f"""@prefix e: <{EX}> .
    e:a e:address [ e:city "Xi'an" ; e:geo [ e:lat 34.2 ] ] ; e:members ( e:x "y" ) ; e:none () ."""
    (document,) = _read(tmp_path, "a.ttl", data)
    assert document.text == (
        "address / city: Xi'an\naddress / geo / lat: 34.2\nmembers: x\nmembers: y"
    )
    first = triples_of(document, 0, 1)
    assert first[0] == Triple(f"<{EX}a>", f"<{EX}address>", "_:b1")
    assert first[1] == Triple("_:b1", f"<{EX}city>", '"Xi\'an"')
    assert _read(tmp_path, "a.ttl", data) == [document]


def test_nodes_without_names_that_refer_to_each_other_are_told_once(tmp_path: Path) -> None:
    data = (
        f'_:x <{EX}p> _:y .\n_:y <{EX}p> _:x .\n_:y <{EX}q> "end" .\n'
        f'_:z <{EX}p> _:z .\n_:z <{EX}q> "self" .\n'
        f"<{EX}a> <{EX}p> <{EX}b> .\n<{EX}b> <{EX}p> <{EX}a> .\n"
    )
    documents = _read(tmp_path, "a.nt", data)
    assert [document.text for document in documents] == ["p: b", "p: a", "q: self", "p / q: end"]
    assert [document.source for document in documents][2:] == ["a.nt#_:b3", "a.nt#_:b1"]


def test_long_chains_of_nodes_are_told_with_the_end_of_the_way(tmp_path: Path) -> None:
    lines = [
        f"_:n{n} <{EX}p{n}> _:n{n + 1} .\n_:n{n} <{EX}v> {json.dumps(str(n))} ."
        for n in range(3000)
    ]
    documents = _read(tmp_path, "a.nt", "\n".join([f"<{EX}a> <{EX}p> _:n0 .", *lines]))
    text = "\n".join(document.text for document in documents)
    assert "p2996 / p2997 / p2998 / v: 2999" in text.split("\n")
    assert len(text) < 200_000


def test_a_node_that_many_refer_to_is_told_once(tmp_path: Path) -> None:
    lines = [f'<{EX}{n}> <{EX}p> _:x .\n<{EX}{n}> <{EX}q> "{n}" .' for n in range(300)]
    lines += [f'_:x <{EX}r> "{n}" .' for n in range(300)]
    documents = _read(tmp_path, "a.nt", "\n".join(lines))
    assert sum(document.text.count("p / r") for document in documents) == 300


def test_long_subjects_fill_several_documents_without_dividing_a_fact(tmp_path: Path) -> None:
    lines = [f'<{EX}a> <{EX}wroteBook> "Book number {n}, about this and that" .' for n in range(90)]
    documents = _read(tmp_path, "a.nt", "\n".join(lines))
    assert len(documents) > 3
    assert [document.source for document in documents][:2] == [f"a.nt#{EX}a", f"a.nt#{EX}a#2"]
    assert {document.title for document in documents} == {"a"}
    assert sum(len(triples_of(document)) for document in documents) == 90
    for document in documents:
        (span,) = split_passages(document.text)
        assert document.text[span.start : span.end] == document.text


def test_a_fact_longer_than_a_passage_keeps_its_triple_in_every_passage(tmp_path: Path) -> None:
    data = f"<{EX}a> <{EX}abstract> {json.dumps('A sentence of some words. ' * 100)} ."
    (document,) = _read(tmp_path, "a.nt", data)
    spans = split_passages(document.text)
    assert len(spans) > 1
    assert all(len(triples_of(document, s.start, s.end)) == 1 for s in spans)


def test_things_of_which_only_the_label_is_known_are_no_documents(refusal: Refusal) -> None:
    error = refusal("a.nt", f'<{EX}a> <{LABEL}> "A" .\n'.encode())
    assert error.message == "holds no text: nothing that its triples say can be put into words"


def test_odd_characters_keep_lines_and_triples_together(tmp_path: Path) -> None:
    data = (
        f'<{EX}a> <{EX}p> "tab\\tline\\nquote\\"back\\\\slash\\u2028\\u0000nul" .\n'
        f'<{EX}a b\tc> <{EX}p> "odd IRI" .\n<{EX}a> <{EX}q> "" .\n'
    )
    first, second = _read(tmp_path, "a.nt", data.replace("\t", "\\u0009"))
    assert first.text == 'p: tab line quote"back\\slash \ufffdnul'
    assert triples_of(first)[0].object.startswith('"tab\\tline\\nquote\\"back\\\\slash')
    assert triples_of(second)[0].predicate == f"<{EX}p>"


names = st.text(min_size=1, max_size=30).filter(str.strip)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=30))
def test_every_line_leads_back_to_its_triples(pairs: list[tuple[str, str]]) -> None:
    facts = [
        Fact(f"f{n}: {' '.join(value.split()) or 'x'}", (Triple(f"<s{p}>", "<p>", f'"{value}"'),))
        for n, (p, value) in enumerate(pairs)
    ]
    facts = [Fact(f.text.replace("\n", " "), f.triples) for f in facts]
    document = Document(text_of(facts), "a", metadata=metadata_of("<s>", facts))
    assert len(document.metadata["triples"].split("\n")) == len(facts)
    position = 0
    for fact in facts:
        found = triples_of(document, position, position + len(fact.text))
        assert [t.predicate for t in found] == ["<p>"]
        position += len(fact.text) + 1
    assert [f for run in split_facts(facts) for f in run] == facts


def test_a_text_that_lost_its_triples_says_so() -> None:
    metadata = {"format": "graph", "subject": "s", "triples": "<s>\t<p>\t<o>"}
    with pytest.raises(DocumentError, match=r"^a: 2 lines, but triples for 1$"):
        triples_of(Document("p: o\nq: o", "a", metadata=metadata))
    with pytest.raises(DocumentError, match=r"^a line of 2 terms, which are no triples$"):
        triples_of(Document("p: o", "a", metadata={**metadata, "triples": "<s>\t<p>"}))


def test_without_the_parser_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyoxigraph", None)
    with pytest.raises(DocumentError) as caught:
        [*graph.read_graph(RawFile(b"", "a.ttl", "a", ".ttl", 1000))]
    assert caught.value.message == "reading knowledge graphs needs the package pyoxigraph"
    assert caught.value.hint == "pip install 'consilience[graph]'"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.nt", b'<http://e/a> <http://e/p> "ok" .\n<http://e/a> oops .\n', "line 2"),
        ("a.nt", b'<http://e/a> <http://e/p> "\xff\xfe" .\n', "Invalid UTF-8"),
        ("a.ttl", b"<a> <b> " + b"[" * 1_000_000, "cannot be parsed: "),
        ("a.jsonld", b'{"a":' * 200_000, "Max stack size"),
        ("a.rdf", b"<rdf:RDF", "cannot be parsed: "),
        ("a.rdf", b"", "holds no text: the file is empty (0 bytes)"),
        ("a.ttl", b"# nothing\n", "holds no text: not one triple"),
        ("a.srj", b'{"head":{},"boolean":true}', "is the answer to a yes or no question"),
        ("a.srj", b"[]", "cannot be parsed: SPARQL JSON results must be an object"),
        ("a.nt", b'<http://e/a> <http://e/p> "' + b"x" * 20_000_000, "a value of more than 16 MB"),
        (
            "a.jsonld",
            b'{"@context": "http://127.0.0.1:9/c", "@id": "http://e/a", "name": "x"}',
            "refers to a context elsewhere, which is not fetched",
        ),
        ("a.nt", b"\x1f\x8b\x08", "mislabelled: named .nt but holds a gzip archive"),
    ],
)
def test_what_is_no_graph_says_why(refusal: Refusal, name: str, data: bytes, message: str) -> None:
    assert message in refusal(name, data).message


def _laughs(entities: str, use: str) -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE r [{entities}]>'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:e="http://e/">'
        f'<rdf:Description rdf:about="http://e/a"><e:p>{use}</e:p></rdf:Description></rdf:RDF>'
    ).encode()


def test_a_billion_laughs_need_too_much_memory(refusal: Refusal) -> None:
    entities = '<!ENTITY a0 "lol">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    assert refusal("a.rdf", _laughs(entities, "&a9;")).message == (
        "needed more than 512 MB of memory"
    )


def test_entities_that_are_elsewhere_are_not_fetched(refusal: Refusal) -> None:
    entity = '<!ENTITY a SYSTEM "file:///etc/hostname">'
    assert refusal("a.rdf", _laughs(entity, "&a;")).message.startswith("cannot be parsed: ")
