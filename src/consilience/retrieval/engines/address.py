"""Addresses of engines: what is read out of a URL, and what of it may be shown.

A password never leaves this object but towards the server: it is in no message, no log and no
representation. It may come from the environment, where a list of processes does not show it.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from consilience.errors import UsageError

PASSWORD = "CONSILIENCE_ENGINE_PASSWORD"
"""The environment variable that holds the password or key where the URL has none."""

DEFAULT_COPY = "consilience"
_COPY = re.compile(r"[a-z][a-z0-9_]{0,39}")

OPTIONS: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset({"copy", "host", "sslmode", "sslrootcert"}),
    "elasticsearch+http": frozenset({"copy", "plain"}),
    "elasticsearch+https": frozenset({"copy", "ca"}),
    "opensearch+http": frozenset({"copy", "plain"}),
    "opensearch+https": frozenset({"copy", "ca"}),
    "qdrant+http": frozenset({"copy", "plain"}),
    "qdrant+https": frozenset({"copy"}),
    "qdrant+local": frozenset({"copy"}),
    "milvus+http": frozenset({"copy", "plain"}),
    "milvus+https": frozenset({"copy", "ca"}),
}
"""The closed table of schemes, each with the options that may follow the `?`."""

EXAMPLE = "for example postgresql://user@db.example/knowledge?copy=handbook"


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine is, and which of the copies in it is meant.

    Attributes:
        scheme: A key of `OPTIONS`.
        host: Empty where the engine has none.
        port: None for the engine's own.
        user: Empty where none is given.
        password: Or key; never shown.
        path: Behind the host, without the first `/`.
        copy: The name of the copy.
        options: The further options.
    """

    scheme: str
    host: str
    port: int | None
    user: str
    password: str = field(repr=False)
    path: str
    copy: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            UsageError: It is none of an engine; it is not quoted, as it may hold a password.
        """
        parts = _split(url)
        options = _options(parts)
        copy = options.pop("copy", DEFAULT_COPY)
        if not _COPY.fullmatch(copy):
            raise UsageError(
                f"{copy[:80]!r} cannot name a copy",
                hint="small letters, digits and _, a letter first, 40 at most: copy=handbook",
            )
        password = unquote(parts.password or "") or os.environ.get(PASSWORD, "")
        return cls(
            scheme=_scheme(parts),
            host=parts.hostname or "",
            port=parts.port,
            user=unquote(parts.username or ""),
            password=password,
            path=parts.path if parts.scheme == "qdrant+local" else parts.path.lstrip("/"),
            copy=copy,
            options=options,
        )

    @property
    def engine(self) -> str:
        """The name of the engine: what stands before the `+`."""
        return self.scheme.partition("+")[0]

    @property
    def secure(self) -> bool:
        """Whether HTTP is encrypted."""
        return self.scheme.endswith("+https")

    @property
    def shown(self) -> str:
        """The URL without password, which leads here again where the environment has it."""
        user = f"{quote(self.user)}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        named = {"copy": self.copy} if self.copy != DEFAULT_COPY else {}
        query = "&".join(f"{k}={quote(v, safe='/')}" for k, v in {**self.options, **named}.items())
        start = f"{self.scheme}:" if self.engine_is_local else f"{self.scheme}://{user}{host}{port}"
        path = self.path if self.engine_is_local or not self.path else f"/{self.path}"
        return f"{start}{path}{'?' if query else ''}{query}"

    @property
    def engine_is_local(self) -> bool:
        """Whether the engine is a folder of this machine."""
        return self.scheme == "qdrant+local"

    def concealed(self, text: object) -> str:
        """Text of a server or a client for a message: without password, and not endless."""
        plain = str(text)
        for secret in {self.password, quote(self.password, safe="")} - {""}:
            plain = plain.replace(secret, "[password]")
        return " ".join(plain.split())[:400]

    def require_private(self) -> None:
        """Refuse to send passages and a password over a network for all to read.

        Raises:
            UsageError: HTTP without encryption to another machine, and nobody said it may be.
        """
        if self.secure or _is_loopback(self.host) or self.options.get("plain") == "yes":
            return
        raise UsageError(
            f"plain http to {self.host} would send passages and the password unencrypted",
            hint=f"use {self.engine}+https, or end the URL with ?plain=yes if the network in "
            "between is yours",
        )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError("the URL of the engine cannot be read", hint=EXAMPLE) from None
    if _scheme(parts) not in OPTIONS or not url.isprintable() or parts.fragment:
        raise UsageError(
            f"the URL of an engine begins with one of {', '.join(OPTIONS)}", hint=EXAMPLE
        )
    if not (parts.hostname or parts.scheme == "qdrant+local" or "host=" in parts.query):
        raise UsageError("the URL of the engine names no host", hint=EXAMPLE)
    return parts


def _scheme(parts: SplitResult) -> str:
    return "postgresql" if parts.scheme == "postgres" else parts.scheme


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = OPTIONS[_scheme(parts)]
    if strange := sorted(options.keys() - allowed):
        raise UsageError(
            f"the URL of the engine has options that are not known: {', '.join(strange)[:80]}",
            hint=f"One of: {', '.join(sorted(allowed))}.",
        )
    return options


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
