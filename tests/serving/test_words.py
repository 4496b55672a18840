import pytest

from consilience import errors as below
from consilience.errors import ConsilienceError
from consilience.serving import errors
from consilience.serving.words import CHINESE, ENGLISH, explanation, language_of_header


def kinds() -> set[str]:
    found = {"internal"}
    for module in (below, errors):
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, ConsilienceError):
                found.add(one.kind)
    return found


def test_every_kind_has_a_status_and_is_explained_in_both_languages() -> None:
    assert set(errors.STATUS) == kinds()
    assert set(ENGLISH) == set(CHINESE) == kinds()
    assert explanation("unheard", "en") == ENGLISH["error"]


def test_codes_tell_kinds_apart() -> None:
    found = {
        one.kind: one.code
        for module in (below, errors)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, ConsilienceError)
    }
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.5,zh;q=0.9", "zh"),
        ("fr,zh;q=0.3", "zh"),
        ("fr", "en"),
        ("zh;q=0,en;q=0.1", "en"),
        ("zh;q=x", "en"),
        ("ZH-hant", "zh"),
        (";;;,,,q=", "en"),
    ],
)
def test_the_language_is_the_one_that_is_asked_for_first(header: str, language: str) -> None:
    assert language_of_header(header) == language


def test_files_of_the_server_are_told_to_those_who_look_after_it() -> None:
    error = ConsilienceError("the disk of /data/secret is full", hint="make room in /data/secret")
    told = errors.error_body(error, language="en", request_id="r1", full=True)["error"]
    assert told["message"] == "the disk of /data/secret is full"
    kept = errors.error_body(error, language="en", request_id="r1", full=False)["error"]
    assert "/data" not in str(kept)
    assert kept["hint"] == "ask its operator for request r1 in the log"
    assert kept["kind"] == "error"
