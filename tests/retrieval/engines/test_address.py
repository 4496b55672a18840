import pytest

from consilience.errors import UsageError
from consilience.retrieval.engines.address import EXAMPLE, Address

CANARY = "c4n4ry"


def test_every_part_of_a_url_is_read() -> None:
    url = "postgresql://a%40b:p%2Fw@db.example:5433/knowledge?copy=handbook&sslmode=require"
    address = Address.parse(url)
    assert (address.engine, address.host, address.port) == ("postgresql", "db.example", 5433)
    assert (address.user, address.password) == ("a@b", "p/w")
    assert (address.path, address.copy) == ("knowledge", "handbook")
    assert address.options == {"sslmode": "require"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.example/knowledge?sslmode=require&copy=handbook",
        "postgresql://a%40b@db.example:5433/knowledge",
        "postgresql://u@/d?host=/run/postgresql",
        "elasticsearch+https://es.example:9200",
        "opensearch+http://[::1]:9200?plain=yes",
        "qdrant+local:/var/lib/vectors?copy=a",
        "milvus+https://u@vectors.example:19530/knowledge?ca=/etc/ca.pem&copy=a",
    ],
)
def test_what_is_shown_leads_to_the_same_place(url: str) -> None:
    assert Address.parse(url).shown == url
    assert Address.parse(Address.parse(url).shown) == Address.parse(url)


@pytest.mark.parametrize("password", [CANARY, "p%2Fw%40", "%C3%A9"])
def test_a_password_is_never_shown(password: str) -> None:
    address = Address.parse(f"postgresql://u:{password}@h/d")
    for text in (repr(address), str(address), address.shown):
        assert password not in text
        assert address.password not in text
    told = address.concealed(f"FATAL: {address.password} and {password}\n is wrong " + "x" * 999)
    assert address.password not in told
    assert told.startswith("FATAL: [password] and [password] is wrong xxx")
    assert len(told) == 400


def test_a_password_comes_from_the_environment_where_the_url_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSILIENCE_ENGINE_PASSWORD", "from outside")
    assert Address.parse("postgresql://u@h/d").password == "from outside"
    assert Address.parse("postgresql://u:own@h/d").password == "own"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"mysql://u:{CANARY}@h/d", "the URL of an engine begins with one of postgresql, "),
        (f"u:{CANARY}@h/d", "the URL of an engine begins with one of postgresql, "),
        ("", "the URL of an engine begins with one of postgresql, "),
        (f"postgresql://u:{CANARY}@h/d#x", "the URL of an engine begins with one of postgresql, "),
        (f"postgresql://u:{CANARY}@h:99999/d", "the URL of the engine cannot be read"),
        (f"postgresql://u:{CANARY}@[::bad/d", "the URL of the engine cannot be read"),
        (f"postgresql://u:{CANARY}@/d", "the URL of the engine names no host"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_quoted(url: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Address.parse(url)
    assert error.value.message.startswith(message)
    assert error.value.hint == EXAMPLE
    assert CANARY not in error.value.message + error.value.hint


@pytest.mark.parametrize("copy", ["", "Handbook", "1a", "a-b", "a" * 41, "a;drop", "年"])
def test_names_of_copies_are_those_that_every_engine_takes(copy: str) -> None:
    with pytest.raises(UsageError) as error:
        Address.parse(f"postgresql://h/d?copy={copy}")
    assert error.value.message == f"{copy[:80]!r} cannot name a copy"


def test_options_that_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError) as error:
        Address.parse(f"postgresql://h/d?password={CANARY}&x=1")
    assert (
        error.value.message == "the URL of the engine has options that are not known: password, x"
    )
    assert error.value.hint == "One of: copy, host, sslmode, sslrootcert."


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("elasticsearch+https://es.example", True),
        ("elasticsearch+http://localhost:9200", True),
        ("opensearch+http://127.0.0.1", True),
        ("qdrant+http://[::1]:6333", True),
        ("opensearch+http://es.internal?plain=yes", True),
        ("elasticsearch+http://es.internal", False),
        ("milvus+http://10.0.0.1", False),
        ("elasticsearch+http://10.0.0.1?plain=no", False),
    ],
)
def test_plain_http_to_another_machine_must_be_asked_for(url: str, private: bool) -> None:
    address = Address.parse(url)
    if private:
        address.require_private()
        return
    with pytest.raises(UsageError, match=r"^plain http to .* would send passages and the password"):
        address.require_private()
