import json
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest

from consilience.errors import DamagedError, MissingError, UsageError
from consilience.federation import keys
from consilience.federation.secure.keys import PartyKey, Roster


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path):
    keys.make(tmp_path / "keys", hosts=["rag.example.org", "192.0.2.7"], parties=["north", "东院"])
    return tmp_path / "keys"


def test_what_is_made_is_told(folder):
    found = keys.held(folder)
    assert found.parties == ("north", "东院")
    assert found.hosts == ("rag.example.org", "192.0.2.7")
    assert found.expires - datetime.now(UTC) < timedelta(days=365)
    assert found.expires - datetime.now(UTC) > timedelta(days=364)
    assert found.authority > found.expires + timedelta(days=3000)
    assert found.fingerprint == Roster.read(folder / keys.ROSTER).fingerprint


def test_private_halves_are_their_owners_alone(folder):
    private = [*folder.rglob("*.key")]
    assert len(private) == 2 + 2 * 2
    assert {mode(path) for path in private} == {0o600}
    assert mode(folder) == mode(folder / "parties" / "north") == 0o700


def test_the_certificate_is_the_authoritys_and_fits_its_key(folder):
    authority, server = (keys.certificate(folder / n) for n in (keys.CA, keys.SERVER))
    server.verify_directly_issued_by(authority)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        folder / keys.SERVER, folder / keys.SERVER_KEY
    )


def test_each_party_gets_what_it_needs_and_no_more(folder):
    place = folder / "parties" / "north"
    assert {path.name for path in place.iterdir()} == {
        "node.key",
        "party.key",
        "north.public.json",
        "ca.crt",
        "roster.json",
    }
    assert (place / "roster.json").read_bytes() == (folder / "roster.json").read_bytes()
    roster = Roster.read(place / "roster.json")
    assert roster.key("north") == PartyKey.read(place / "party.key").public


def test_a_public_file_holds_no_private_half(folder):
    place = folder / "parties" / "north"
    public = (place / "north.public.json").read_text()
    assert (place / "party.key").read_text().strip() not in public
    assert "PRIVATE" not in public
    assert set(json.loads(public)) == {"format", "party", "node", "key"}


def test_a_party_makes_its_own_keys_and_sends_the_public_file(folder, tmp_path):
    public = keys.make_party(tmp_path / "own", "west")
    assert public == tmp_path / "own" / "west.public.json"
    assert "west" not in keys.nodes(folder)
    found = keys.accept(folder, [public])
    assert found.parties == ("north", "west", "东院")
    assert "west" in keys.nodes(folder)
    other = folder / "parties" / "north" / "roster.json"
    assert Roster.read(other).fingerprint == found.fingerprint
    assert keys.accept(folder, [public]) == found


def test_nobody_takes_anothers_name(folder, tmp_path):
    public = keys.make_party(tmp_path / "thief", "north")
    before = (folder / keys.NODES).read_bytes(), (folder / keys.ROSTER).read_bytes()
    with pytest.raises(UsageError, match="'north' takes part with other keys") as caught:
        keys.accept(folder, [public])
    assert caught.value.hint.endswith("consilience federate keys remove north")
    assert ((folder / keys.NODES).read_bytes(), (folder / keys.ROSTER).read_bytes()) == before


@pytest.mark.parametrize("half", ["node", "key"])
def test_not_even_one_key_of_a_party_is_exchanged(folder, tmp_path, half):
    public = keys.make_party(tmp_path / "thief", "north")
    own = json.loads((folder / "parties" / "north" / "north.public.json").read_text())
    other = json.loads(public.read_text())
    public.write_text(json.dumps(own | {half: other[half]}))
    with pytest.raises(UsageError, match="takes part with other keys"):
        keys.accept(folder, [public])


def test_a_party_that_is_removed_is_in_no_list(folder):
    found = keys.remove(folder, "north")
    assert found.parties == ("东院",)
    assert set(keys.nodes(folder)) == {"东院"}
    with pytest.raises(MissingError, match="no party 'north' takes part, only 东院"):
        keys.remove(folder, "north")


def test_nothing_is_written_over(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="keys are never written over"):
        keys.make(folder, hosts=["other.example.org"])
    with pytest.raises(UsageError, match="keys are never written over"):
        keys.make_party(folder / "parties" / "north", "north")
    with pytest.raises(UsageError, match="keys are never written over"):
        keys.make_party(folder / "parties" / "north", "south")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_renewing_changes_the_certificate_and_nothing_else(folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found = keys.renew(folder, days=30)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed == {keys.SERVER, keys.SERVER_KEY}
    assert found.hosts == ("rag.example.org", "192.0.2.7")
    assert found.expires - datetime.now(UTC) < timedelta(days=31)
    assert mode(folder / keys.SERVER_KEY) == 0o600
    assert keys.renew(folder, hosts=["new.example.org"]).hosts == ("new.example.org",)


def test_a_certificate_does_not_outlive_its_authority(folder):
    found = keys.renew(folder, days=100_000)
    assert found.expires <= found.authority


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_is_no_path(tmp_path, name):
    with pytest.raises(UsageError, match="is no name of a party"):
        keys.make_party(tmp_path / "own", name)
    assert not (tmp_path / "own").exists()


def test_without_a_host_nothing_is_made(tmp_path):
    with pytest.raises(UsageError, match="no host is named") as caught:
        keys.make(tmp_path / "keys", hosts=[])
    assert "--host" in caught.value.hint
    assert not (tmp_path / "keys").exists()


def test_a_folder_without_keys_says_how_to_make_them(tmp_path):
    with pytest.raises(MissingError, match="holds no keys") as caught:
        keys.held(tmp_path)
    assert caught.value.hint.startswith("consilience federate keys make")
    with pytest.raises(MissingError, match="cannot be read"):
        keys.accept(tmp_path, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told | {"format": 2},
        lambda told: told | {"key": "00"},
        lambda told: told | {"node": "ssh-ed25519 AAAA"},
        lambda told: told | {"party": "../up"},
        lambda told: {name: told[name] for name in ("format", "party")},
        lambda told: [told],
    ],
)
def test_a_public_file_that_no_party_made_is_refused(folder, tmp_path, change):
    public = keys.make_party(tmp_path / "own", "west")
    public.write_text(json.dumps(change(json.loads(public.read_text()))))
    with pytest.raises(DamagedError, match="is not what consilience federate keys writes"):
        keys.accept(folder, [public])
    assert "west" not in keys.nodes(folder)
