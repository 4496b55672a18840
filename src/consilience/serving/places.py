"""The routes as one table: what a request may be before anything of it is read.

Method and path decide who may come in, through which gate and how large the body may be. The table
is made out of the routes themselves; one that states no scope and is not in the closed list of
public ones is a mistake of this package and stops the server from starting.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from consilience.serving.access import admin, reader, writer
from consilience.serving.gates import Kind, kind_of
from consilience.serving.subjects import Action

PUBLIC = frozenset({("GET", "/v1/health"), ("GET", "/v1/reports/{link}")})
"""What is told to everyone, the latter to whoever knows an address that nobody can guess."""

_NEEDED: dict[object, Action] = {reader: "read", writer: "write", admin: "admin"}


@dataclass(frozen=True, slots=True)
class Place:
    """One route of one method.

    Attributes:
        method: Of HTTP.
        path: As the route states it, with names in braces.
        action: What it is for; None for everyone.
        kind: Which gate it has.
    """

    method: str
    path: str
    action: Action | None
    kind: Kind


class Places:
    """All routes.

    Args:
        routes: Of every router.

    Raises:
        TypeError: One states no scope, or its path is not below `/v1`.
    """

    def __init__(self, routes: Iterable[APIRoute]) -> None:
        self._plain: dict[str, dict[str, Place]] = {}
        self._named: list[tuple[re.Pattern[str], dict[str, Place]]] = []
        for route in routes:
            self._add(route)

    def at(self, path: str) -> dict[str, Place]:
        """What is at a path, by method; empty where there is nothing."""
        if path in self._plain:
            return self._plain[path]
        for pattern, places in self._named:
            if pattern.fullmatch(path):
                return places
        return {}

    def __iter__(self) -> Iterator[Place]:
        """Every place."""
        for places in (*self._plain.values(), *(places for _, places in self._named)):
            yield from places.values()

    def _add(self, route: APIRoute) -> None:
        for method in route.methods or ():
            self._at(route)[method] = Place(
                method, route.path, _action(route, method), kind_of(method, route.path)
            )

    def _at(self, route: APIRoute) -> dict[str, Place]:
        if "{" not in route.path:
            return self._plain.setdefault(route.path, {})
        for pattern, places in self._named:
            if pattern == route.path_regex:
                return places
        self._named.append((route.path_regex, {}))
        return self._named[-1][1]


def _action(route: APIRoute, method: str) -> Action | None:
    needed = [_NEEDED[call] for call in _calls(route.dependant) if call in _NEEDED]
    if not needed and (method, route.path) not in PUBLIC:
        raise TypeError(f"{method} {route.path} states no scope")
    if not route.path.startswith("/v1/") and route.path != "/metrics":
        raise TypeError(f"{method} {route.path} is not below /v1")
    return max(needed, key=("read", "write", "admin").index) if needed else None


def _calls(dependant: Dependant) -> Iterator[object]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)
