import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consilience.errors import ConsilienceError, DamagedError, MissingError, UsageError
from consilience.serving.files import write_whole
from consilience.serving.keys import LOOK_AGAIN, KeyRing, lifetime


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys.json")


def test_a_secret_opens_what_its_key_grants(ring: KeyRing) -> None:
    made = ring.create("reception", scopes=("write",), labels=("ward", "desk", "ward"))
    subject = ring.find(made.secret)
    assert subject is not None
    assert (subject.id, subject.name) == (made.key.id, "reception")
    assert (subject.scopes, subject.labels) == ({"write"}, {"ward", "desk"})


def test_a_secret_is_random_and_is_kept_nowhere(ring: KeyRing) -> None:
    secrets = [ring.create("a").secret for _ in range(3)]
    assert len(set(secrets)) == 3
    assert all(secret.startswith("cs_") and len(secret) == 46 for secret in secrets)
    text = ring.path.read_text("utf-8")
    assert not any(secret in text or secret[3:] in text for secret in secrets)


def test_only_the_owner_reads_the_file(ring: KeyRing) -> None:
    ring.create("a")
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", ["", "cs_", "cs_" + "x" * 43, "\ud800", "x" * 100_000])
def test_what_is_no_secret_opens_nothing(ring: KeyRing, wrong: str) -> None:
    secret = ring.create("a").secret
    assert ring.find(wrong) is None
    assert ring.find(secret + wrong + "x") is None
    assert ring.find(secret.swapcase()) is None


def test_guessing_finds_nothing(ring: KeyRing) -> None:
    ring.create("a")
    assert not any(ring.find(f"cs_{guess}") for guess in range(2000))


def test_a_digest_is_no_secret(ring: KeyRing) -> None:
    made = ring.create("a")
    assert ring.find(made.key.digest) is None


def test_a_revoked_key_opens_nothing_and_opens_nobody_else_the_door(ring: KeyRing) -> None:
    made, kept = ring.create("a"), ring.create("b")
    assert ring.revoke(made.key.id) == made.key
    assert ring.find(made.secret) is None
    assert ring.find(kept.secret) is not None
    ring.revoke(kept.key.id)
    assert (ring.list(), ring.in_force) == ((), True)


def test_an_expired_key_opens_nothing(ring: KeyRing) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    made = ring.create("a", expires=soon)
    assert ring.find(made.secret) is not None
    found = json.loads(ring.path.read_text("utf-8"))
    found["keys"][0]["expires"] = "2020-01-01T00:00:00+00:00"
    write_whole(ring.path, json.dumps(found))
    assert ring.find(made.secret) is None
    assert len(ring.list()) == 1


def test_a_first_key_of_its_own_is_in_force_at_once(ring: KeyRing) -> None:
    ring = KeyRing(ring.path, clock=lambda: 0.0)
    assert not ring.in_force
    ring.create("a")
    assert ring.in_force


def test_another_process_changes_the_file_and_is_heard(ring: KeyRing) -> None:
    now = [0.0]
    ring, other = KeyRing(ring.path, clock=lambda: now[0]), KeyRing(ring.path)
    assert (ring.list(), ring.in_force) == ((), False)
    made = other.create("a")
    now[0] += LOOK_AGAIN
    assert ring.in_force
    assert ring.find(made.secret) is not None
    other.revoke(made.key.id)
    assert ring.find(made.secret) is None


def test_both_of_two_who_write_are_kept(ring: KeyRing) -> None:
    other = KeyRing(ring.path)
    names = ["a", "b", "c", "d"]
    for holder, name in zip([ring, other, ring, other], names, strict=True):
        holder.create(name)
    assert [key.name for key in ring.list()] == names


def test_a_crash_leaves_the_old_file(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ring.create("a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConsilienceError, match="cannot be written: No space left on device"):
        ring.create("b")
    monkeypatch.undo()
    assert [key.name for key in ring.list()] == ["a"]
    assert ring.find(made.secret) is not None
    assert sorted(p.name for p in ring.path.parent.iterdir()) == [".keys.json.lock", "keys.json"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "the name of a key has 1 to 100 printable characters, received ''"),
        ("a\nb", {}, r"the name of a key has 1 to 100 printable characters, received 'a\\nb'"),
        ("x" * 101, {}, "the name of a key has 1 to 100 printable characters"),
        ("a", {"scopes": ("root",)}, r"unknown scopes \['root'\]"),
        ("a", {"scopes": ()}, r"unknown scopes \[\]"),
        ("a", {"labels": ("",)}, r"labels are texts that are not empty, received \('',\)"),
        ("a", {"labels": "staff"}, "labels are texts that are not empty, received 'staff'"),
        ("a", {"scopes": ("admin",), "labels": ("x",)}, "so labels do not confine it"),
        ("a", {"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "ended before it began, on 2020-01"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    ring: KeyRing, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ring.create(name, **options)  # type: ignore[arg-type]
    assert not ring.in_force


def test_no_label_at_all_is_not_every_label(ring: KeyRing) -> None:
    subject = ring.find(ring.create("a", labels=()).secret)
    assert subject is not None
    assert (subject.labels, subject.reads_everything) == (frozenset(), False)


def test_an_unknown_id_is_told(ring: KeyRing) -> None:
    with pytest.raises(MissingError, match="there is no key 'f00'"):
        ring.revoke("f00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys": [{}]}',
        '{"keys": {"a": 1}}',
        "\x00\x01",
        '{"keys": [{"id": "a", "name": "a", "digest": "a", "scopes": ["read"], "labels": "staff",'
        ' "created": "x", "expires": null}]}',
        '{"keys": [{"id": "a", "name": "a", "digest": "a", "scopes": ["read"], "labels": null,'
        ' "created": "x", "expires": "soon"}]}',
    ],
)
def test_a_damaged_file_opens_nothing(ring: KeyRing, text: str) -> None:
    ring.path.write_text(text, "utf-8")
    assert ring.in_force
    with pytest.raises(DamagedError, match="is not a file of keys"):
        ring.find("cs_x")


@pytest.mark.parametrize("days", [0, -1, 36_501, float("nan"), float("inf")])
def test_a_lifetime_has_bounds(days: float) -> None:
    with pytest.raises(UsageError, match="a key lives more than 0 and at most 36500 days"):
        lifetime(days)


def test_a_lifetime_is_counted_from_now() -> None:
    assert lifetime(None) is None
    end = lifetime(2)
    assert end is not None
    assert timedelta(days=1.9) < end - datetime.now(UTC) <= timedelta(days=2)
