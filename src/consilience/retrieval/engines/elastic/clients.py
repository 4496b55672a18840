"""The official clients of Elasticsearch and OpenSearch, reduced to sending one request.

What they do beyond that, asking again and choosing among nodes, is left to the code above, which
knows what is safe. Their errors become two: a status that is an error, and no answer at all.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from consilience.errors import DependencyError
from consilience.retrieval.engines.address import Address

Json = dict[str, Any]


class Client(Protocol):
    """One of the two official clients, reduced to what is asked of it."""

    def send(self, method: str, path: str, body: Any, params: Json, seconds: float) -> Any:
        """The answer to a request, parsed; raises RefusedError or UnreachedError."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


class RefusedError(Exception):
    """A status that is an error, with what the server says."""

    def __init__(self, status: int, told: Any) -> None:
        super().__init__(status)
        self.status, self.told = status, told


class UnreachedError(Exception):
    """No answer at all; `late` when it was waited for in vain."""

    def __init__(self, told: Any, *, late: bool) -> None:
        super().__init__(told)
        self.told, self.late = told, late


class _ElasticsearchClient:
    """The client of Elasticsearch."""

    def __init__(self, address: Address) -> None:
        try:
            import elasticsearch
        except ImportError as error:
            raise _missing("elasticsearch") from error
        named: Json = _credentials(address)
        if address.secure and "ca" in address.options:
            named["ca_certs"] = address.options["ca"]
        self._client = elasticsearch.Elasticsearch(
            _place(address), max_retries=0, retry_on_timeout=False, **named
        )

    def send(self, method: str, path: str, body: Any, params: Json, seconds: float) -> Any:
        import elastic_transport
        import elasticsearch

        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        headers = {"accept": "application/json", "content-type": kind}
        client = self._client.options(request_timeout=seconds)
        try:
            answer = client.perform_request(method, path, params=params, body=body, headers=headers)
        except elasticsearch.ApiError as error:
            raise RefusedError(error.status_code, error.body) from None
        except elastic_transport.ConnectionTimeout as error:
            raise UnreachedError(error, late=True) from None
        except (elastic_transport.TransportError, elasticsearch.UnsupportedProductError) as error:
            raise UnreachedError(error, late=False) from None
        return answer.body

    def close(self) -> None:
        self._client.close()


class _OpenSearchClient:
    """The client of OpenSearch."""

    def __init__(self, address: Address) -> None:
        try:
            import opensearchpy
        except ImportError as error:
            raise _missing("opensearch") from error
        named: Json = _credentials(address)
        if "basic_auth" in named:
            named["http_auth"] = named.pop("basic_auth")
        if "api_key" in named:
            named["headers"] = {"authorization": f"ApiKey {named.pop('api_key')}"}
        if address.secure and "ca" in address.options:
            named["ca_certs"] = address.options["ca"]
        self._client = opensearchpy.OpenSearch(
            hosts=[_place(address)], max_retries=0, retry_on_timeout=False, **named
        )

    def send(self, method: str, path: str, body: Any, params: Json, seconds: float) -> Any:
        from opensearchpy import exceptions

        named = {**params, "request_timeout": seconds}
        if isinstance(body, list):
            body = "".join(f"{json.dumps(line)}\n" for line in body)
        try:
            return self._client.transport.perform_request(method, path, params=named, body=body)
        except exceptions.ConnectionTimeout as error:
            raise UnreachedError(error.error, late=True) from None
        except exceptions.ConnectionError as error:
            raise UnreachedError(error.error, late=False) from None
        except exceptions.TransportError as error:
            raise RefusedError(int(error.status_code), error.info) from None
        except exceptions.SerializationError as error:
            raise UnreachedError(error, late=False) from None

    def close(self) -> None:
        self._client.close()


CLIENTS: Mapping[str, Callable[[Address], Client]] = {
    "elasticsearch": _ElasticsearchClient,
    "opensearch": _OpenSearchClient,
}


def _place(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    scheme = "https" if address.secure else "http"
    path = f"/{address.path}" if address.path else ""
    return f"{scheme}://{host}:{address.port or 9200}{path}"


def _credentials(address: Address) -> Json:
    """A user with a password, or a key where there is no user."""
    if address.user:
        return {"basic_auth": (address.user, address.password)}
    return {"api_key": address.password} if address.password else {}


def _missing(package: str) -> DependencyError:
    return DependencyError(
        f"the client of {package} is not installed", hint=f"pip install 'consilience[{package}]'"
    )
