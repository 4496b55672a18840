"""Documents as JSON: what a record may hold, and how a bad one is named."""

import json

import pytest

from consilience.documents import Document, read_document
from tests.documents import samples
from tests.documents.conftest import Refusal


def _read(tmp_path, name: str, data: bytes) -> list[Document]:
    path = tmp_path / name
    path.write_bytes(data)
    return read_document(path, source=name)


def test_every_key_of_a_record_arrives(tmp_path) -> None:
    record = {
        "text": "第一段。",
        "id": "a1",
        "title": "规定",
        "source": "intranet/leave",
        "language": "zh",
        "contributor": "hospital",
        "access": ["staff", "人事"],
        "metadata": {"year": 2026, "final": True, "by": "Li"},
    }
    expected = Document(
        text="第一段。",
        source="intranet/leave",
        title="规定",
        id="a1",
        language="zh",
        contributor="hospital",
        access=("staff", "人事"),
        metadata={"year": "2026", "final": "true", "by": "Li"},
    )
    assert _read(tmp_path, "a.jsonl", samples.jsonl(record)) == [expected]
    assert _read(tmp_path, "a.json", json.dumps(record).encode()) == [expected]
    assert _read(tmp_path, "b.json", json.dumps([record]).encode()) == [expected]


def test_sources_without_a_name_count_lines_or_take_the_id(tmp_path) -> None:
    data = b'\xef\xbb\xbf{"text": "one"}\n\n{"text": "two", "id": "b"}\r\n'
    documents = _read(tmp_path, "a.jsonl", data)
    assert [document.source for document in documents] == ["a.jsonl#1", "a.jsonl#b"]
    assert [document.title for document in documents] == ["", ""]


def test_json_lines_under_the_other_suffix_and_raw_separators(tmp_path) -> None:
    data = '{"text": "a\u2028b"}\n{"text": "c"}\n'.encode()
    assert [document.text for document in _read(tmp_path, "a.json", data)] == ["a\u2028b", "c"]
    wide = data.decode().encode("utf-16")
    assert [document.text for document in _read(tmp_path, "a.jsonl", wide)] == ["a\u2028b", "c"]


def test_lone_surrogates_and_nul_keep_their_places(tmp_path) -> None:
    data = rb'{"text": "a\ud800b\u0000c\ud83d\ude00", "title": "x\udfff"}'
    (document,) = _read(tmp_path, "a.jsonl", data)
    assert document.text == "a\ufffdb\ufffdc\U0001f600"
    assert document.title == "x\ufffd"


SOUND = b'{"text": "fine"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": ', "line 2: not JSON (Expecting value: line 1 column 10 (char 9))"),
        (b'["text"]', "line 2: a list where an object was expected"),
        (b"{}", "line 2: holds no text under 'text'"),
        (b'{"text": " "}', "line 2: holds no text under 'text'"),
        (b'{"text": 5}', "line 2: 'text' is a int, not text"),
        (b'{"text": "a", "acess": ["staff"]}', "line 2: unknown key 'acess'"),
        (b'{"question": "a", "answers": []}', "line 2: a question and not a document"),
        (b'{"text": "a", "access": "staff"}', "line 2: 'access' is not a list of labels"),
        (b'{"text": "a", "access": [""]}', "line 2: 'access' is not a list of labels"),
        (b'{"text": "a", "metadata": []}', "line 2: 'metadata' is not an object"),
        (b'{"text": "a", "metadata": {"k": []}}', "line 2: 'metadata' holds a list under 'k'"),
        (b'{"text": "a", "source": "a.jsonl#1"}', "line 2: the source 'a.jsonl#1' comes twice"),
        (b'{"text": "\xff"}', "line 2: not UTF-8"),
    ],
)
def test_a_bad_line_is_named_by_its_number(refusal: Refusal, line: bytes, message: str) -> None:
    assert refusal("a.jsonl", SOUND + line).message == message


def test_an_unknown_key_says_what_is_known(refusal: Refusal) -> None:
    error = refusal("a.json", b'[{"text": "a"}, {"text": "b", "url": "x"}]')
    assert error.message == "record 2: unknown key 'url'"
    assert error.hint == (
        "known are text, id, title, source, language, contributor, access, metadata; "
        "put further facts under 'metadata'"
    )


@pytest.mark.parametrize("data", [b"[]", b"\n"])
def test_no_record_is_a_reason(refusal: Refusal, data: bytes) -> None:
    assert refusal("a.json", data).message == "holds no text: not one record"
