"""A stand-in for Elasticsearch and OpenSearch, for tests.

The lexical half, filters, bulk requests and compare-and-set are osmem-server's, a real program that
speaks OpenSearch; this proxy in front of it adds what it lacks, after the two servers' documented
behaviour: the banner of Elasticsearch, fields of vectors, and kNN by comparing all vectors that the
filter lets through. It shows that the adapter keeps its contract, not that a real server agrees.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

VECTORS = {"dense_vector", "knn_vector"}


class Handler(BaseHTTPRequestHandler):
    """Forwards to `upstream`, and does what that does not do."""

    upstream: ClassVar[str]
    elastic: ClassVar[bool]
    hook: ClassVar[Callable[["Handler"], bool] | None]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body go out together

    def do_GET(self) -> None:
        self._serve()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if type(self).hook is not None and type(self).hook(self):
            return
        path = self.path.partition("?")[0]
        if path.endswith("/_search") and b'"knn"' in raw:
            self._answer(*self._nearest(json.loads(raw)))
        elif self.command == "PUT" and path.count("/") == 1:
            self._answer(*self._forward(json.dumps(_without_vectors(json.loads(raw))).encode()))
        else:
            status, answer = self._forward(raw)
            self._answer(status, self._banner(answer) if path == "/" else answer)

    def _forward(self, body: bytes, path: str | None = None) -> tuple[int, bytes]:
        told = self.headers.get("Content-Type") or ""
        kind = "application/x-ndjson" if "ndjson" in told else "application/json"
        request = Request(
            self.upstream + (path or self.path),
            data=body or None,
            method=self.command,
            headers={"Content-Type": kind},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if self.elastic:
            self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _banner(self, body: bytes) -> bytes:
        told = json.loads(body)
        if self.elastic:
            told["version"] = {"number": "9.5.1"}
        return json.dumps(told).encode()

    def _nearest(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        if self.elastic:
            knn = asked.pop("knn")
            vector, k, filters = knn["query_vector"], knn["k"], knn["filter"]
        else:
            knn = asked.pop("query")["knn"]["vector"]
            vector, k, filters = knn["vector"], knn["k"], knn["filter"]
        query = {"query": filters, "size": 10_000, "_source": ["number", "vector"]}
        status, body = self._forward(json.dumps(query).encode(), self.path.partition("?")[0])
        if status != 200:
            return status, body
        found = json.loads(body)
        hits = found["hits"]["hits"]
        for hit in hits:
            product = float(np.dot(hit["_source"].pop("vector"), vector))
            hit["_score"] = 1 + product if product >= 0 else 1 / (1 - product)
        hits.sort(key=lambda hit: (-hit["_score"], hit["_source"]["number"]))
        found["hits"]["hits"] = hits[: min(k, asked["size"])]
        return 200, json.dumps(found).encode()


def _without_vectors(index: dict[str, Any]) -> dict[str, Any]:
    for field in index["mappings"]["properties"].values():
        if field["type"] in VECTORS:
            field.clear()
            field.update({"type": "object", "enabled": False})
    return index


@contextmanager
def serving(
    upstream: str, *, elastic: bool, hook: Callable[[Handler], bool] | None = None
) -> Iterator[int]:
    """The port of a stand-in in front of an osmem-server.

    Args:
        upstream: The address of that.
        elastic: Whether to speak as Elasticsearch; else as OpenSearch.
        hook: Called first with every request; true means that it has answered.
    """
    own = {"upstream": upstream, "elastic": elastic, "hook": staticmethod(hook) if hook else None}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), own))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()
