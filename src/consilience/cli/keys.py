"""`consilience keys`: who may ask a server that other machines reach.

A server reads the file of keys again when it changes, so that a key made or revoked here counts at
once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from consilience.cli.flags import DEFAULT_STORE, Output, StoreFlag
from consilience.cli.screen import Screen, safe
from consilience.errors import UsageError
from consilience.serving.config import ServeConfig

if TYPE_CHECKING:
    from consilience.serving.keys import Key, KeyRing

EXAMPLES = (
    "consilience keys create reception",
    "consilience keys create 护士站 --label ward --days 90",
    "consilience keys list --json",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new key grants."""

    scope: Annotated[
        Literal["read", "write", "admin"] | None,
        Option(help="Read, also change documents, or everything.", show_default="read"),
    ] = None
    label: Annotated[
        list[str] | None,
        Option(
            metavar="LABEL",
            help="Read only what has no label or this one; may be repeated.",
            show_default="read everything",
        ),
    ] = None
    public: Annotated[bool, Option("--public", help="Read only what has no label at all.")] = False
    days: Annotated[
        float | None, Option(metavar="DAYS", help="The key ends after.", show_default="never")
    ] = None


def keys(
    action: Annotated[Literal["create", "list", "revoke"], Argument(metavar="create|list|revoke")],
    name: Annotated[str | None, Argument(metavar="[NAME|ID]", show_default=False)] = None,
    *,
    grant: Grant,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    keys: Annotated[
        Path | None,
        Option("--keys", metavar="FILE", help="The file.", show_default="STORE.keys.json"),
    ] = None,
) -> int:
    """Make, list and revoke the keys of a server.

    A key is shown once, when it is made; the file holds only a digest of it.
    `create NAME` makes one, `revoke ID` ends one.
    """
    from consilience.serving.keys import KeyRing

    screen = Screen(output)
    ring = KeyRing(ServeConfig(store=store, keys=keys).key_path)
    _check(action, name, grant)
    if action == "list":
        _list(ring, screen)
    elif action == "create":
        _create(ring, name or "", grant, screen)
    else:
        _revoke(ring, name or "", screen)
    return 0


def _check(action: str, name: str | None, grant: Grant) -> None:
    """What each action takes.

    Raises:
        UsageError: Something is missing, or does nothing.
    """
    if action == "list" and name is not None:
        raise UsageError(f"list takes no name, received {name!r}", hint="consilience keys list")
    if action == "create" and name is None:
        raise UsageError("create needs a name", hint="consilience keys create NAME")
    if action == "revoke" and name is None:
        raise UsageError("revoke needs an id", hint="consilience keys list shows the ids")
    if action != "create" and grant != Grant():
        raise UsageError(
            f"--scope, --label, --public and --days do nothing with {action}",
            hint="leave them out",
        )
    if grant.public and grant.label:
        raise UsageError("--public and --label contradict each other", hint="leave one out")


def _create(ring: "KeyRing", name: str, grant: Grant, screen: Screen) -> None:
    from consilience.serving.keys import lifetime

    made = ring.create(
        name,
        scopes=(grant.scope or "read",),
        labels=() if grant.public else grant.label,
        expires=lifetime(grant.days),
    )
    if screen.json:
        screen.document(made.key.to_dict() | {"secret": made.secret})
        return
    screen.line((made.secret, "bold"))
    screen.line((screen.words.key_made.format(name=safe(name), id=made.key.id), "dim"))


def _list(ring: "KeyRing", screen: Screen) -> None:
    found = ring.list()
    if screen.json:
        screen.document({"keys": [key.to_dict() for key in found]})
        return
    for key in found:
        screen.line((f"{key.id}  ", "dim"), safe(key.name), f"  {_told(key, screen)}")
    if not found:
        screen.line(screen.words.no_keys)


def _told(key: "Key", screen: Screen) -> str:
    """What a key grants, in a line."""
    words = screen.words
    labels = "" if key.labels is None else f" [{', '.join(key.labels)}]"
    until = "" if key.expires is None else f" · {words.until.format(time=key.expires[:16])}"
    return safe(f"{', '.join(key.scopes)}{labels}{until}")


def _revoke(ring: "KeyRing", id_: str, screen: Screen) -> None:
    key = ring.revoke(id_)
    if screen.json:
        screen.document(key.to_dict())
    else:
        screen.line(screen.words.key_revoked.format(name=safe(key.name), id=key.id))
