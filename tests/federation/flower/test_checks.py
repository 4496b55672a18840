"""What is looked at before anything starts, against a real TLS server on loopback."""

import http.server
import socket
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Thread

import pytest

from consilience.errors import BusyError, DependencyError, MissingError, RemoteError, UsageError
from consilience.federation import keys
from consilience.federation.flower import checks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "keys"
    keys.make(folder, hosts=["127.0.0.1"], parties=["north"])
    return folder


@contextmanager
def serving(folder, *, status=403, date=None):
    """A coordinator's outside: health, and so many refusals."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(200 if self.path == "/health" else status)
            self.send_header("Date", format_datetime(date or datetime.now(UTC), usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            """Be quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / keys.SERVER, folder / keys.SERVER_KEY)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield checks.Address("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def reissued(folder, tmp_path, **dates):
    """The same folder with a certificate of other dates."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    begin, end = (datetime.now(UTC) + timedelta(days=dates[n]) for n in ("begin", "end"))
    original = keys._dated
    keys._dated = lambda builder, days: (
        builder.serial_number(7).not_valid_before(begin).not_valid_after(end)
    )
    try:
        keys.renew(copy)
    finally:
        keys._dated = original
    return copy


def test_a_guarded_coordinator_passes(folder):
    with serving(folder) as place:
        checks.coordinator(place, folder / "parties" / "north")


def test_one_that_answers_strangers_does_not(folder):
    with serving(folder, status=401) as place, pytest.raises(RemoteError) as caught:
        checks.coordinator(place, folder)
    assert "answers a stranger who asks for /v1/control/list-runs with 401" in str(caught.value)
    assert caught.value.status == 401


@pytest.mark.parametrize(("minutes", "way"), [(-10, "ahead of"), (10, "behind")])
def test_clocks_that_differ_are_named(folder, minutes, way):
    date = datetime.now(UTC) + timedelta(minutes=minutes)
    with serving(folder, date=date) as place, pytest.raises(UsageError) as caught:
        checks.coordinator(place, folder)
    assert f"this machine's clock is 10 minutes {way} that of 127.0.0.1" in str(caught.value)
    assert "timedatectl" in caught.value.hint


def test_four_minutes_are_borne(folder):
    with serving(folder, date=datetime.now(UTC) - timedelta(minutes=4)) as place:
        checks.coordinator(place, folder)


def test_an_expired_certificate_is_named_at_both_ends(folder, tmp_path):
    old = reissued(folder, tmp_path, begin=-10, end=-1)
    with serving(old) as place, pytest.raises(RemoteError, match="has expired") as caught:
        checks.coordinator(place, folder)
    assert caught.value.hint == "at the coordinator: consilience federate keys renew"
    with pytest.raises(UsageError, match=r"server\.crt ended on") as caught:
        checks.server_keys(old, place, demo=False)
    assert caught.value.hint == "consilience federate keys renew"


def test_a_certificate_of_tomorrow_is_a_clock_that_is_behind(folder, tmp_path):
    early = reissued(folder, tmp_path, begin=1, end=10)
    with serving(early) as place, pytest.raises(UsageError, match="clock is behind"):
        checks.coordinator(place, folder)
    with pytest.raises(UsageError, match="clock is behind"):
        checks.server_keys(early, place, demo=False)


def test_somebody_elses_certificate_is_refused(folder, tmp_path):
    keys.make(tmp_path / "other", hosts=["127.0.0.1"])
    with serving(tmp_path / "other") as place, pytest.raises(RemoteError) as caught:
        checks.coordinator(place, folder)
    assert "shows the certificate of somebody else" in str(caught.value)


def test_a_certificate_for_another_name_is_refused(folder, tmp_path):
    copy = reissued(folder, tmp_path, begin=-1, end=10)
    keys.renew(copy, hosts=["rag.example.org"])
    with serving(copy) as place, pytest.raises(RemoteError, match="for another name") as caught:
        checks.coordinator(place, folder)
    assert "keys renew --host 127.0.0.1" in caught.value.hint
    with pytest.raises(UsageError, match=r"is for rag\.example\.org, not for 127\.0\.0\.1"):
        checks.server_keys(copy, place, demo=False)


def test_a_key_of_another_certificate_is_refused(folder, tmp_path):
    copy = reissued(folder, tmp_path, begin=-1, end=10)
    (copy / keys.SERVER_KEY).write_bytes((folder / keys.SERVER_KEY).read_bytes())
    with pytest.raises(UsageError, match="is not vouched for by"):
        checks.server_keys(copy, checks.Address("127.0.0.1", 1), demo=False)


def test_a_certificate_of_another_authority_is_refused(folder, tmp_path):
    keys.make(tmp_path / "other", hosts=["127.0.0.1"])
    copy = reissued(folder, tmp_path, begin=-1, end=10)
    for name in (keys.SERVER, keys.SERVER_KEY):
        (copy / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(UsageError, match="is not vouched for by"):
        checks.server_keys(copy, checks.Address("127.0.0.1", 1), demo=False)


def test_plain_http_is_no_coordinator(folder):
    with serving(None) as place, pytest.raises(RemoteError, match="does not speak as"):
        checks.coordinator(place, folder)


def test_nobody_there_is_not_the_same_as_somebody_else(folder):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(checks.UnreachableError, match="cannot be reached: Connection refused"):
        checks.coordinator(checks.Address("127.0.0.1", port), folder)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        place = checks.Address("127.0.0.1", probe.getsockname()[1])
        with pytest.raises(BusyError, match="cannot be listened on: Address already in use"):
            checks.free(place)
    checks.free(place)


def test_an_address_of_another_machine_is_named():
    with pytest.raises(UsageError, match="is no address of this machine"):
        checks.free(checks.Address("192.0.2.7", 8443))


@pytest.mark.parametrize(
    "told", ["http://127.0.0.1:8443", "https://a:1", "127.0.0.1", "a:0", "a:99999", ":8443", "a:b"]
)
def test_what_is_no_address_is_refused(told):
    with pytest.raises(UsageError, match="is no address of a coordinator") as caught:
        checks.address(told)
    assert "HOST:PORT" in caught.value.hint


def test_addresses_are_read():
    assert checks.address("rag.example.org:8443") == checks.Address("rag.example.org", 8443)
    assert str(checks.address("[::1]:9")) == "[::1]:9"
    assert checks.address("[::1]:9").loopback
    assert not checks.address("0.0.0.0:9").loopback


@pytest.mark.parametrize("look", [checks.server_keys, checks.party_keys])
def test_without_keys_only_a_demonstration_on_this_machine(look):
    near, far = checks.Address("127.0.0.1", 1), checks.Address("10.0.0.1", 1)
    look(None, near, demo=True)
    with pytest.raises(UsageError, match="no keys are given, so everybody could join"):
        look(None, near, demo=False)
    with pytest.raises(UsageError, match="a demonstration is not encrypted"):
        look(None, far, demo=True)


def test_keys_that_others_can_read_are_refused(folder, tmp_path):
    copy = reissued(folder, tmp_path, begin=-1, end=10)
    place, party = checks.Address("127.0.0.1", 1), copy / "parties" / "north"
    checks.server_keys(copy, place, demo=False)
    checks.party_keys(party, place, demo=False)
    (copy / keys.SERVER_KEY).chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        checks.server_keys(copy, place, demo=False)
    (party / keys.NODE_KEY).chmod(0o604)
    with pytest.raises(UsageError, match="can be read by others") as caught:
        checks.party_keys(party, place, demo=False)
    assert caught.value.hint.startswith("type: chmod 600")


def test_a_party_without_the_coordinators_files_is_told_to_ask_for_them(tmp_path):
    keys.make_party(tmp_path / "own", "north")
    with pytest.raises(MissingError, match=r"ca\.crt is missing") as caught:
        checks.party_keys(tmp_path / "own", checks.Address("127.0.0.1", 1), demo=False)
    assert caught.value.hint == "ask the coordinator for ca.crt and put it there"


def test_another_flower_is_named(monkeypatch):
    monkeypatch.setattr(checks, "version", lambda package: "1.43.0")
    with pytest.raises(DependencyError, match=r"flwr 1\.43\.0 is installed") as caught:
        checks.installed("flwr", "federation")
    assert caught.value.hint == "pip install 'flwr>=1.41,<1.43'"
