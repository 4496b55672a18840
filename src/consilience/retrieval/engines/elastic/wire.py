"""Requests to a search server: told as ours when they fail, asked again where that does no harm."""

import json
from typing import Any

from consilience.errors import RemoteError
from consilience.retrieval.engines.address import PASSWORD, Address
from consilience.retrieval.engines.base import Limits
from consilience.retrieval.engines.elastic.clients import (
    Client,
    Json,
    RefusedError,
    UnreachedError,
)
from consilience.retrieval.engines.failing import late, nonsense, refused, unreached
from consilience.retrieval.engines.persistence import persistently


class Wire:
    """Requests with their errors told as ours, asked again where that does no harm.

    Args:
        address: Whose server it is.
        client: What sends.
        limits: How long, and how often.
    """

    def __init__(self, address: Address, client: Client, limits: Limits) -> None:
        self._address = address
        self._client = client
        self._limits = limits

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Json | None = None,
        *,
        slow: bool = False,
        **instead: Json,
    ) -> Json:
        """The answer to a request that may be sent twice; see `once`."""
        return persistently(
            lambda: self.once(method, path, body, params, slow=slow, **instead), self._limits
        )

    def once(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Json | None = None,
        *,
        slow: bool = False,
        **instead: Json,
    ) -> Json:
        """The answer to a request.

        Args:
            method: Of HTTP.
            path: On the server.
            body: A JSON object, or a list of them for a bulk request.
            params: Behind the `?`.
            slow: Whether it may take as long as publishing.
            **instead: What is answered when it is `missing`, there `existing` or in `conflict`.

        Raises:
            RemoteError: The server fails or refuses; `UnavailableError` where it may pass.
        """
        seconds = self._limits.publish if slow else self._limits.search
        try:
            found = self._client.send(method, path, body, params or {}, seconds)
        except RefusedError as error:
            answer = instead.get(_reason(error))
            if answer is not None:
                return answer
            told = self._refused(error)
        except UnreachedError as error:
            told = self._unreached(error)
        else:
            return self._understood(found)
        raise told from None

    def bulk(self, index: str, lines: list[Json]) -> None:
        """Send actions to an index; every one of them must succeed.

        One on what is gone counts as done: someone else has published since, and what this is part
        of will not be seen.
        """
        if lines:
            persistently(lambda: self._bulk(index, lines), self._limits)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _bulk(self, index: str, lines: list[Json]) -> None:
        answer = self.once("POST", f"/{index}/_bulk", lines, slow=True)
        for item in answer.get("items", ()) if answer.get("errors") else ():
            for done in item.values():
                if done.get("status", 200) >= 300 and done["status"] != 404:
                    raise self._refused(RefusedError(done["status"], {"error": done["error"]}))

    def _understood(self, found: Any) -> Json:
        if not isinstance(found, dict):
            raise nonsense(self._address.shown, repr(self._address.concealed(found)))
        return found

    def _refused(self, error: RefusedError) -> RemoteError:
        told = self._address.concealed(_told(error.told))
        shown, status = self._address.shown, error.status
        if status in (401, 403) and "block" not in told:
            return RemoteError(
                f"{shown} does not accept the user, the password or the key: {told}",
                hint=f"put the password into the environment, as {PASSWORD}",
                status=status,
            )
        return refused(shown, told, status=status)

    def _unreached(self, error: UnreachedError) -> RemoteError:
        told, shown = self._address.concealed(error.told), self._address.shown
        return late(shown, told) if error.late else unreached(shown, told)


def _reason(error: RefusedError) -> str:
    if error.status == 404:
        return "missing"
    if error.status == 409:
        return "conflict"
    there = "already_exists" in json.dumps(error.told, default=str)
    return "existing" if error.status == 400 and there else ""


def _told(told: Any) -> str:
    """The reason out of an error document, or all of it."""
    match told:
        case {"error": {"type": str(kind), "reason": str(reason)}}:
            return f"{kind}: {reason}"
        case {"error": str(reason)}:
            return reason
    return str(told)
