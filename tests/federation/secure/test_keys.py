"""Keys of parties and the roster that pins them."""

import json
import stat
from pathlib import Path

import pytest

from consilience.errors import (
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
)
from consilience.federation.secure import PartyKey, Roster, new_party_key

# RFC 7748, section 6.1.
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOBS_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
ALICES_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
COMMON = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_agreement_as_published() -> None:
    bob = PartyKey(bytes.fromhex(BOB))
    assert bob.public == BOBS_PUBLIC
    assert bob.agree(ALICES_PUBLIC).hex() == COMMON


def test_two_parties_agree_and_a_third_does_not() -> None:
    a, b, c = new_party_key(), new_party_key(), new_party_key()
    assert a.agree(b.public) == b.agree(a.public)
    assert c.agree(b.public) != a.agree(b.public)


@pytest.mark.parametrize("other", ["00" * 32, "01" + "00" * 31, "00" * 5, "no key"])
def test_a_key_that_agrees_with_all_alike_is_refused(other: str) -> None:
    with pytest.raises(DamagedError, match="is no public key of a party"):
        new_party_key().agree(other)


def test_a_key_comes_back_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key, path = new_party_key(), tmp_path / "party.key"
    key.write(path)
    assert PartyKey.read(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_not_shown() -> None:
    key = new_party_key()
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    key, path = new_party_key(), tmp_path / "party.key"
    key.write(path)
    with pytest.raises(UsageError, match="cannot be written: File exists"):
        new_party_key().write(path)
    assert PartyKey.read(path) == key


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    new_party_key().write(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others") as raised:
        PartyKey.read(path)
    assert raised.value.hint == f"type: chmod 600 {path}"


def test_a_file_that_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    path.touch(mode=0o600)
    path.write_text("AB" * 31)
    with pytest.raises(DamagedError, match="holds no key of a party"):
        PartyKey.read(path)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be read: No such file"):
        PartyKey.read(tmp_path / "party.key")


def roster(*names: str) -> Roster:
    return Roster({name: new_party_key().public for name in names})


def test_a_roster_comes_back(tmp_path: Path) -> None:
    known = roster("市医院", "university")
    known.write(tmp_path / "roster.json")
    found = Roster.read(tmp_path / "roster.json")
    assert (found, found.fingerprint) == (known, known.fingerprint)


def test_the_fingerprint_knows_every_name_and_key_and_no_order() -> None:
    known = roster("a", "b")
    assert Roster(dict(reversed(known.keys.items()))).fingerprint == known.fingerprint
    swapped = Roster({"a": known.keys["b"], "b": known.keys["a"]})
    renamed = Roster({"a": known.keys["a"], "c": known.keys["b"]})
    prints = {known.fingerprint, swapped.fingerprint, renamed.fingerprint}
    assert len(prints) == 3


def test_a_roster_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    roster("a", "b").write(path)
    found = json.loads(path.read_text())
    found["keys"]["a"] = new_party_key().public
    path.write_text(json.dumps(found))
    with pytest.raises(DamagedError, match="is not what its fingerprint says"):
        Roster.read(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "keys": {}}', '{"format": 1, "keys": []}', "[" * 9999]
)
def test_a_file_that_is_no_roster(tmp_path: Path, text: str) -> None:
    path = tmp_path / "roster.json"
    path.write_text(text)
    with pytest.raises(DamagedError, match="is no roster"):
        Roster.read(path)


def test_a_roster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"the roster .* cannot be read"):
        Roster.read(tmp_path / "roster.json")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"a": "xyz"}, "the key of 'a' in the roster is no public key: 'xyz'"),
        ({"": "00" * 32}, "the key of '' in the roster"),
        ({"a": BOBS_PUBLIC, "b": BOBS_PUBLIC}, "'a' and 'b' have the same key"),
    ],
)
def test_rosters_that_make_no_sense(keys: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Roster(keys)


def test_a_claimed_key_is_compared_with_the_pinned_one() -> None:
    known = roster("a", "b")
    known.verify(known.keys)
    known.verify({"b": known.keys["b"]})
    with pytest.raises(FingerprintError, match=f"'a' is claimed to have the key '{BOBS_PUBLIC}'"):
        known.verify({"a": BOBS_PUBLIC})
    with pytest.raises(MissingError, match="does not name 'c', only a, b"):
        known.verify({"c": BOBS_PUBLIC})
