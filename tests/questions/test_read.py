"""Files of questions: a format is told by what it holds, and every bad line is named at once."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from consilience.errors import DocumentError, MissingError
from consilience.questions import (
    Context,
    Question,
    Turn,
    context_id,
    read_contexts,
    read_questions,
)
from consilience.questions.formats import FORMATS, recognised

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Super_Bowl_50",
            "paragraphs": [
                {
                    "context": "Denver won in Santa Clara.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "Who won?",
                            "answers": [
                                {"text": "Denver", "answer_start": 0},
                                {"text": "Denver", "answer_start": 0},
                            ],
                        },
                        {
                            "id": "b",
                            "question": "Who lost?",
                            "is_impossible": True,
                            "answers": [{"text": "nobody knows", "answer_start": 0}],
                            "plausible_answers": [{"text": "Denver", "answer_start": 0}],
                        },
                    ],
                }
            ],
        }
    ],
}
SQUAD_QUESTIONS = [
    Question(
        "Who won?",
        ("Denver",),
        id="a",
        context="Denver won in Santa Clara.",
        title="Super Bowl 50",
        language="en",
    ),
    Question(
        "Who lost?",
        id="b",
        context="Denver won in Santa Clara.",
        title="Super Bowl 50",
        language="en",
        unanswerable=True,
    ),
]
DPR = [
    {
        "dataset": "nq",
        "question": "who won",
        "answers": ["Denver"],
        "positive_ctxs": [
            {"title": "Bowl", "text": "Denver won.", "passage_id": "17"},
            {"title": "Bowl", "text": "It was Denver.", "psg_id": 18},
        ],
        "negative_ctxs": [{"title": "Far", "text": "Nothing."}],
        "hard_negative_ctxs": [{"title": "Near", "text": "Carolina.", "passage_id": "9"}],
    }
]


def written(folder: Path, content: str | bytes, name: str = "set.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def of_lines(folder: Path, *records: Any) -> Path:
    return written(folder, "\n".join(json.dumps(record) for record in records))


def messages(path: Path) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read_questions(path)
    return caught.value.message.split("\n")


def test_a_record_with_every_key(tmp_path: Path) -> None:
    record = {
        "question": "And on Sundays?",
        "answers": ["no", "closed", "no"],
        "id": 7,
        "context": "Closed on Sundays.",
        "title": "Hours",
        "positive_ids": ["p1", 2, "p1"],
        "negative_ids": ["n1"],
        "history": [{"question": "When is it open?", "answer": "Daily."}],
        "user": "ada",
        "label": 3,
        "language": "de",
        "unanswerable": False,
        "evidence": "unknown keys are passed over",
    }
    assert read_questions(of_lines(tmp_path, record)) == [
        Question(
            "And on Sundays?",
            ("no", "closed"),
            id="7",
            context="Closed on Sundays.",
            title="Hours",
            positive_ids=("p1", "2"),
            negative_ids=("n1",),
            history=(Turn("When is it open?", "Daily."),),
            user="ada",
            label="3",
            language="de",
        )
    ]


def test_language_is_told_by_characters_only_where_none_is_given(tmp_path: Path) -> None:
    path = of_lines(
        tmp_path,
        {"question": "谁可以申请？"},
        {"question": "Who may apply?"},
        {"question": "Who?", "language": ""},
    )
    assert [each.language for each in read_questions(path)] == ["zh", "en", ""]


@pytest.mark.parametrize(
    ("record", "answers"),
    [
        ({"answer": "one"}, ("one",)),
        ({"answer": ["one", "two"]}, ("one", "two")),
        ({"answers": {"text": ["one"], "answer_start": [0]}}, ("one",)),
        ({"answers": None}, ()),
        ({}, ()),
        ({"answers": ["sounds right"], "is_impossible": True}, ()),
    ],
)
def test_answers_in_the_shapes_that_are_common(
    tmp_path: Path, record: dict[str, Any], answers: tuple[str, ...]
) -> None:
    path = of_lines(tmp_path, {"question": "Which?", **record})
    assert read_questions(path)[0].answers == answers
    assert read_questions(path)[0].unanswerable is ("is_impossible" in record)


def test_document_ids_of_other_sets_are_positives(tmp_path: Path) -> None:
    path = of_lines(tmp_path, {"question": "Which?", "doc_ids": ["d1"]})
    assert read_questions(path)[0].positive_ids == ("d1",)


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
def test_squad_on_one_line_and_on_many(tmp_path: Path, indent: int | None) -> None:
    assert read_questions(written(tmp_path, json.dumps(SQUAD, indent=indent))) == SQUAD_QUESTIONS


def test_squad_that_begins_on_its_first_line(tmp_path: Path) -> None:
    text = json.dumps(SQUAD, indent=1).replace("{\n", '{"note": 1,\n', 1)
    assert read_questions(written(tmp_path, text)) == SQUAD_QUESTIONS


def test_drcd_is_squad_with_answers_that_have_ids(tmp_path: Path) -> None:
    answers = [{"id": "1", "text": "歐洲", "answer_start": 1}]
    qas = [{"id": "1147-5-1", "question": "在哪裡？", "answers": answers}]
    article = {
        "title": "梵文",
        "id": "1147",
        "paragraphs": [{"context": "在歐洲。", "id": "1147-5", "qas": qas}],
    }
    path = written(tmp_path, json.dumps({"version": "1.3", "data": [article]}))
    assert read_questions(path) == [
        Question(
            "在哪裡？", ("歐洲",), id="1147-5-1", context="在歐洲。", title="梵文", language="zh"
        )
    ]


def test_cmrc_as_it_was_first_published(tmp_path: Path) -> None:
    qas = [{"query_id": "T_0", "query_text": "谁写的？", "answers": ["鲁迅", "鲁迅", "鲁迅先生"]}]
    paragraph = {"context_id": "T", "context_text": "鲁迅写的。", "title": "呐喊", "qas": qas}
    assert read_questions(written(tmp_path, json.dumps([paragraph]))) == [
        Question(
            "谁写的？",
            ("鲁迅", "鲁迅先生"),
            id="T_0",
            context="鲁迅写的。",
            title="呐喊",
            language="zh",
        )
    ]


def test_dpr_with_and_without_ids(tmp_path: Path) -> None:
    (question,) = read_questions(written(tmp_path, json.dumps(DPR, indent=2)))
    assert question == Question(
        "who won",
        ("Denver",),
        context="Denver won.",
        title="Bowl",
        positive_ids=("17", "18"),
        negative_ids=("9", context_id("Nothing.", title="Far")),
        language="en",
    )


def test_contexts_have_the_ids_that_questions_name(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(DPR * 2))
    found = read_contexts(path)
    assert Context("9", "Near", "Carolina.") in found
    assert len(found) == 4
    named = {
        name for each in read_questions(path) for name in each.positive_ids + each.negative_ids
    }
    assert named == {each.id for each in found}


def test_contexts_of_squad_come_once(tmp_path: Path) -> None:
    text = "Denver won in Santa Clara."
    assert read_contexts(written(tmp_path, json.dumps(SQUAD))) == [
        Context(context_id(text, title="Super Bowl 50"), "Super Bowl 50", text)
    ]


def test_kilt(tmp_path: Path) -> None:
    pages = [{"wikipedia_id": "42", "title": "Denver"}, {"wikipedia_id": "42"}]
    output = [{"answer": "Denver", "provenance": pages}, {"provenance": pages}]
    path = of_lines(tmp_path, {"id": "k", "input": "who won", "output": output, "meta": {}})
    assert read_questions(path) == [
        Question(
            "who won", ("Denver",), id="k", title="Denver", positive_ids=("42",), language="en"
        )
    ]


def test_a_list_of_records(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([{"question": "One?"}, {"question": "Two?"}]))
    assert [each.question for each in read_questions(path)] == ["One?", "Two?"]


def test_gzip_and_a_byte_order_mark_are_told_by_their_bytes(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"question": "One?"}\r\n\r\n{"question": "Two?"}\r\n'
    assert len(read_questions(written(tmp_path, line))) == 2
    assert len(read_questions(written(tmp_path, gzip.compress(line)))) == 2


def test_the_last_format_takes_what_no_other_does() -> None:
    assert list(FORMATS)[-1] == "records"
    assert recognised({"question": "", "answers": []}) == "records"
    assert recognised({"question": "", "positive_ctxs": []}) == "dpr"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answers": []}, "key 'question': it is missing; there are 'answers'"),
        (
            {"question": 7},
            "key 'question': expected a text, received 7 (number)",
        ),
        (
            {"question": " "},
            "key 'question': expected a text that says something, received \" \" (text)",
        ),
        (
            {"question": "Q", "answers": 3},
            "key 'answers': expected a list of texts, received 3 (number)",
        ),
        (
            {"question": "Q", "answers": ["a", True]},
            "key 'answers': expected a text, received true (truth value)",
        ),
        (
            {"question": "Q", "anwsers": ["a"]},
            "key 'anwsers': unknown; did you mean 'answers'?",
        ),
        (
            {"question": "Q", "answer": "a", "answers": []},
            "key 'answer': it stands beside 'answers'",
        ),
        (
            {"question": "Q", "answers": ["a"], "unanswerable": True},
            "key 'unanswerable': expected false beside answers, received true (truth value)",
        ),
        (
            {"question": "Q", "unanswerable": "no"},
            "key 'unanswerable': expected true or false, received \"no\" (text)",
        ),
        (
            {"question": "Q", "positive_ids": "p1"},
            "key 'positive_ids': expected a list of names, received \"p1\" (text)",
        ),
        (
            {"question": "Q", "positive_ids": [None, {"id": 1}]},
            "key 'positive_ids': expected a text, received {\"id\": 1} (object)",
        ),
        (
            {"question": "Q", "history": [{"answer": "a"}]},
            "history[0], key 'question': it is missing; there are 'answer'",
        ),
        (
            {"question": "Q", "history": ["earlier"]},
            'history[0]: expected an object, received "earlier" (text)',
        ),
        (
            {"question": "Q", "context": "half \ud83d of a pair"},
            "key 'context': expected a text of whole characters, "
            'received "half \\ud83d of a pair" (text)',
        ),
    ],
)
def test_what_a_key_must_not_hold(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = of_lines(tmp_path, {"question": "Good?"}, record)
    assert messages(path) == ["set.json: wrong in 1 place", f"  line 2, {message}"]


def test_all_bad_lines_are_named_up_to_ten(tmp_path: Path) -> None:
    bad = ["{", "[1]", '{"question": "Good?"}', "", *['{"question": 0}'] * 12]
    found = messages(written(tmp_path, "\n".join(['{"question": "Good?"}', *bad])))
    assert found[0] == "set.json: wrong in 14 places"
    assert found[1].startswith("  line 2: not JSON (")
    assert found[2] == "  line 3: expected an object, received [1] (list)"
    assert found[3] == "  line 6, key 'question': expected a text, received 0 (number)"
    assert found[10] == "  line 13, key 'question': expected a text, received 0 (number)"
    assert found[11:] == ["  and 4 more"]


def test_a_first_line_that_is_cut_short_is_one_bad_line(tmp_path: Path) -> None:
    found = messages(written(tmp_path, '{"question": "Go\n{"question": "Good?"}\n'))
    assert found[0] == "set.json: wrong in 1 place"
    assert found[1].startswith("  line 1: not JSON (")


def test_faults_can_be_noted_and_passed_over(tmp_path: Path) -> None:
    path = of_lines(tmp_path, {"question": "Good?"}, {"question": ""}, {"question": "Too."})
    faults: list[str] = []
    assert len(read_questions(path, faults=faults)) == 2
    assert faults == [
        "line 2, key 'question': expected a text that says something, received \"\" (text)"
    ]


def test_a_place_inside_squad(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(SQUAD))
    broken["data"][0]["paragraphs"][0]["qas"][1]["question"] = None
    del broken["data"][0]["paragraphs"][0]["qas"][0]["answers"][1]["text"]
    broken["data"].append({"title": "Empty"})
    assert messages(written(tmp_path, json.dumps(broken))) == [
        "set.json: wrong in 3 places",
        "  line 1, data[0], paragraphs[0], qas[0], answers[1], key 'text': it is missing; "
        "there are 'answer_start'",
        "  line 1, data[0], paragraphs[0], qas[1], key 'question': expected a text that says "
        "something, received null (nothing)",
        "  line 1, data[1], key 'paragraphs': expected a list of objects, received null (nothing)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "set.json: holds no question"),
        (b"[]", "set.json: holds no question"),
        (b'{"data": []}', "set.json: holds no question"),
        (b"\x1f\x8bnot gzip", "set.json: damaged gzip"),
        (b'{"question": "\xff"}', "line 1: not UTF-8 (byte 0xff)"),
        (b"[1, 2", "the file: not JSON (Expecting"),
        (b"[" * 100_000, "the file: nested too deep"),
    ],
)
def test_files_that_hold_no_question(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_questions(written(tmp_path, content))
    assert message in caught.value.message
    if "gzip" not in message:
        assert caught.value.hint.startswith('one JSON object per line, such as {"question": "…"')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        read_questions(tmp_path / "no.jsonl")
    assert caught.value.message == f"there is no file of questions at {tmp_path / 'no.jsonl'}"


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    found = messages(of_lines(tmp_path, {"question": ["word"] * 100}))
    assert len(found[1]) < 140
    assert found[1].endswith("… (list)")
