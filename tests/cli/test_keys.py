import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consilience.serving.keys import KeyRing
from tests.cli.terminal import consilience

FILE = Path("knowledge.keys.json")


def test_a_key_is_shown_once_and_opens(bare: Path) -> None:
    done = consilience("keys", "create", "reception", "--json")
    assert (done.code, done.err) == (0, "")
    made = done.document
    assert made.keys() == {"id", "name", "scopes", "labels", "created", "expires", "secret"}
    assert (made["name"], made["scopes"], made["labels"]) == ("reception", ["read"], None)
    subject = KeyRing(FILE).find(made["secret"])
    assert subject is not None
    assert subject.id == made["id"]
    assert "secret" not in consilience("keys", "list", "--json").document["keys"][0]


def test_people_get_the_secret_alone_on_a_line(bare: Path) -> None:
    done = consilience("keys", "create", "护士站", "--lang", "zh")
    secret, note = done.out.splitlines()
    assert KeyRing(FILE).find(secret) is not None
    assert note.startswith("护士站 的密钥（")
    assert note.endswith("只显示这一次，请妥善保存。")


def test_what_a_key_grants_is_as_asked(bare: Path) -> None:
    flags = ("--scope", "write", "--label", "ward", "--label", "desk", "--days", "1")
    made = consilience("keys", "create", "a", *flags, "--json").document
    assert (made["scopes"], made["labels"]) == (["write"], ["desk", "ward"])
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1)
    assert consilience("keys", "create", "b", "--public", "--json").document["labels"] == []


def test_keys_are_listed_and_revoked(bare: Path) -> None:
    assert consilience("keys", "list").out == "There is no key.\n"
    made = consilience("keys", "create", "a", "--label", "ward", "--days", "9", "--json").document
    (line,) = consilience("keys", "list").out.splitlines()
    assert line == f"{made['id']}  a  read [ward] · until {made['expires'][:16]}"
    done = consilience("keys", "revoke", made["id"])
    assert done.out == f"The key of a ({made['id']}) is revoked.\n"
    assert consilience("keys", "list", "--json").document == {"keys": []}


def test_the_file_may_be_another(bare: Path) -> None:
    consilience("keys", "create", "a", "--store", "规章/库")
    consilience("keys", "create", "b", "--keys", "mine.json")
    assert [key.name for key in KeyRing(Path("规章/库.keys.json")).list()] == ["a"]
    assert [key.name for key in KeyRing(Path("mine.json")).list()] == ["b"]
    assert not FILE.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("create",), 2, "create needs a name"),
        (("create", ""), 2, "the name of a key has 1 to 100 printable characters, received ''"),
        (("revoke",), 2, "revoke needs an id"),
        (("revoke", "f00"), 3, "there is no key 'f00'"),
        (("list", "a"), 2, "list takes no name, received 'a'"),
        (("list", "--scope", "read"), 2, "--scope, --label, --public and --days do nothing with"),
        (("create", "a", "--public", "--label", "x"), 2, "--public and --label contradict each"),
        (("create", "a", "--days", "0"), 2, "a key lives more than 0 and at most 36500 days"),
        (("create", "a", "--label", ""), 2, "labels are texts that are not empty"),
        (("create", "a", "--scope", "root"), 2, "Invalid value for '--scope'"),
        (("destroy", "a"), 2, "Invalid value for"),
    ],
)
def test_what_makes_no_sense_is_refused(
    bare: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = consilience("keys", *words, "--json")
    assert done.code == code
    assert done.document["error"]["message"].startswith(message)
    assert not FILE.exists()


def test_a_damaged_file_is_named(bare: Path) -> None:
    FILE.write_text(json.dumps([1]), "utf-8")
    done = consilience("keys", "list", "--json")
    assert (done.code, done.document["error"]["kind"]) == (4, "damaged")
