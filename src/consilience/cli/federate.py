"""`consilience federate`: one model trained by several organisations that keep their documents.

`simulate` runs all parties here, `coordinate` and `join` run them at their own places, `ask` puts a
question to them (see `inquire`), `keys` makes what lets them trust one another, `status` shows how
a run stands. Every key of a federation's file is also a flag, which wins.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from consilience.cli.flags import Output
from consilience.cli.inquire import SETTINGS, Inquiring, ask_parties
from consilience.cli.screen import Screen, safe
from consilience.errors import UsageError
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.training.settings import read_settings

if TYPE_CHECKING:
    from rich.table import Table

    from consilience.federation.journal import Line, Standing
    from consilience.federation.keys import Held
    from consilience.federation.rounds import Federated, Watch

Action = Literal["simulate", "coordinate", "join", "ask", "keys", "status"]

EXAMPLES = (
    "consilience federate simulate federation.yaml --rounds 5",
    'consilience federate ask federation.yaml "Until when may visitors stay?"',
    "consilience federate join 医院.yaml --lang zh",
)

_KEYS = Path("keys")
_LOOK = 1.0  # seconds
_METRICS = ("loss", "eval_loss", "eval_exact_match", "eval_f1", "eval_recall@5")


@dataclass(frozen=True, slots=True)
class Manner:
    """What is not a setting."""

    demo: Annotated[
        bool,
        Option("--demo", help="Of coordinate, join, ask: without keys, on this machine only."),
    ] = False
    follow: Annotated[
        bool, Option("--follow", help="Of status: go on showing rounds until the run is over.")
    ] = False
    host: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Of keys make and renew: where parties reach the coordinator; may be repeated.",
            show_default=False,
        ),
    ] = None
    days: Annotated[
        int, Option(min=1, help="Of keys make and renew: how long the certificate is good for.")
    ] = 365


def federate(
    action: Annotated[Action, Argument(metavar="simulate|coordinate|join|ask|keys|status")],
    what: Annotated[list[str] | None, Argument(metavar="FILE|FOLDER|…", show_default=False)] = None,
    *,
    manner: Manner,
    how: Inquiring,
    output: Output,
    overrides: dict[str, str],
) -> int:
    """Train one model with other organisations; documents stay where they are.

    `simulate CONFIG` runs all parties on this machine, `coordinate CONFIG` waits for them,
    `join PARTY` takes part with a party's own file, `ask CONFIG QUESTION` has one answer out of the
    parties' documents, as far as each lets itself be asked, `status OUTPUT` shows a run,
    `keys make [PARTY…]`, `keys party NAME`, `keys accept FILE…`, `keys remove NAME`, `keys renew`
    and `keys list` manage the folder that --keys names.
    """
    screen, named = Screen(output), what or []
    _check(action, named, [*_useless(action, manner, overrides), *_only_asking(action, how)])
    acts: dict[str, Callable[[], None]] = {
        "simulate": lambda: _simulate(Path(named[0]), overrides, screen),
        "coordinate": lambda: _coordinate(Path(named[0]), overrides, manner, screen),
        "join": lambda: _join(Path(named[0]), manner, screen),
        "ask": lambda: ask_parties(
            Path(named[0]), named[1], overrides, how=how, demo=manner.demo, screen=screen
        ),
        "keys": lambda: _keys(named, manner, Path(overrides.get("keys", _KEYS)), screen),
        "status": lambda: _status(Path(named[0]), manner, screen),
    }
    acts[action]()
    return 0


_WANTED: Mapping[str, str] = {
    "simulate": "CONFIG",
    "coordinate": "CONFIG",
    "join": "PARTY",
    "status": "OUTPUT",
}


def _check(action: Action, named: Sequence[str], useless: Sequence[str]) -> None:
    """What each action takes.

    Raises:
        UsageError: Something is missing, or does nothing.
    """
    if action in _WANTED and len(named) != 1:
        raise UsageError(
            f"{action} takes one {_WANTED[action]}, received {len(named)}",
            hint=f"consilience federate {action} {_WANTED[action]}",
        )
    if action == "ask" and len(named) != 2:
        raise UsageError(
            f"ask takes CONFIG and QUESTION, received {len(named)} words",
            hint='consilience federate ask CONFIG "…"',
        )
    if action == "keys" and not named:
        raise UsageError(
            "keys needs to be told what to do",
            hint="make, party, accept, remove, renew or list",
        )
    if useless:
        raise UsageError(f"{', '.join(useless)} does nothing with {action}", hint="leave it out")


def _useless(action: Action, manner: Manner, overrides: Mapping[str, str]) -> list[str]:
    found = [f"--{name}" for name in overrides if action == "keys" and name != "keys"]
    if action in ("join", "status"):
        found += [f"--{name}" for name in overrides]
    if action == "ask":
        found += [f"--{name}" for name in overrides if name not in SETTINGS]
    if manner.demo and action not in ("coordinate", "join", "ask"):
        found.append("--demo")
    if manner.follow and action != "status":
        found.append("--follow")
    if manner.host and action != "keys":
        found.append("--host")
    return found


def _only_asking(action: Action, how: Inquiring) -> list[str]:
    return [] if action == "ask" else list(how.given())


def _simulate(path: Path, overrides: Mapping[str, str], screen: Screen) -> None:
    config = read_settings(FederationConfig, path, overrides, verb="federate")
    with screen.working(screen.words.loading):
        from consilience.federation.assembling import simulate
    _done(simulate(config, watch=_watch(config, screen), say=screen.tell), screen)


def _coordinate(path: Path, overrides: Mapping[str, str], manner: Manner, screen: Screen) -> None:
    config = read_settings(FederationConfig, path, overrides, verb="federate")
    with screen.working(screen.words.loading):
        from consilience.federation.assembling import federate as run
        from consilience.federation.flower import coordinate
    watch = _watch(config, screen)
    _done(coordinate(config, lambda way: run(config, way, watch=watch), demo=manner.demo), screen)


def _join(path: Path, manner: Manner, screen: Screen) -> None:
    party = read_settings(PartyConfig, path, verb="federate")
    with screen.working(screen.words.loading):
        from consilience.federation.assembling import resident
        from consilience.federation.flower import join
    agent = resident(party, say=screen.tell)
    try:
        join(party, agent, demo=manner.demo, tell=screen.tell)
    finally:
        agent.close()


def _watch(config: FederationConfig, screen: Screen) -> "Watch":
    from consilience.federation.rounds import Watch

    def line(done: "Line") -> None:
        if not screen.json:
            screen.line(_told(done, config.rounds, screen))
            screen.flush()

    return Watch(say=screen.tell, line=line)


def _told(line: "Line", of: int, screen: Screen) -> str:
    """A round in a line."""
    words = screen.words
    parts = [words.round_of.format(round=line.round, of=of)]
    parts += [f"{name.removeprefix('eval_')} {line.metrics[name]:.4g}" for name in _shown(line)]
    parts.append(words.sent.format(up=_size(line.bytes_up), down=_size(line.bytes_down)))
    if line.epsilon is not None:
        parts.append(f"ε {line.epsilon:.3g}")
    if line.party_epsilon is not None:
        parts.append(f"ε∑ {line.party_epsilon:.3g}")
    parts += [f"{words.lost} {name}: {why}" for name, why in line.lost.items()]
    return safe(" · ".join(parts))


def _shown(line: "Line") -> list[str]:
    """The metrics that a table has room for; training loss gives way to what was measured."""
    known = [name for name in _METRICS if name in line.metrics]
    return [name for name in known if name != "loss" or len(known) == 1]


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count} B"


def _done(found: "Federated", screen: Screen) -> None:
    if screen.json:
        screen.document(found.to_dict())
        return
    words = screen.words
    screen.line((words.federated.format(n=len(found.rounds), path=safe(found.model)), "bold"))
    if found.reason:
        screen.line(safe(found.reason))
    for name, why in found.without_model.items():
        screen.note(safe(words.without_model.format(name=name, why=why)))
    screen.next("evaluate", "DATA", "--model", found.model)


def _status(output: Path, manner: Manner, screen: Screen) -> None:
    from consilience.federation.journal import read_standing

    standing = read_standing(output)
    if screen.json:
        screen.document(standing.to_dict())
        return
    screen.out.print(_table(standing, screen))
    while manner.follow and not standing.ended:
        time.sleep(_LOOK)
        before, standing = standing, read_standing(output)
        for line in standing.rounds[len(before.rounds) :]:
            screen.line(_told(line, standing.of, screen))
            screen.flush()
    end = standing.reason or screen.words.federation_over
    screen.line(safe(end) if standing.ended else screen.words.federation_runs)


def _table(standing: "Standing", screen: Screen) -> "Table":
    """Every round, with who took part, what it cost, and who was lost and why."""
    from rich.table import Table

    words = screen.words
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [n for n in _METRICS if any(n in _shown(line) for line in standing.rounds)]
    table.add_column(words.round, justify="right")
    for name in columns:
        table.add_column(name.removeprefix("eval_"), justify="right")
    for heading in (words.parties, "↑", "↓", *_epsilons(standing)):
        table.add_column(heading, justify="right")
    table.add_column(words.lost)
    for line in standing.rounds:
        table.add_row(*_row(line, columns, standing))
    return table


def _epsilons(standing: "Standing") -> list[str]:
    """What privacy is told of: of records, with the budget of the run, and of whole parties."""
    budget = "ε" if standing.budget is None else f"ε ≤ {standing.budget:g}"
    parties = any(line.party_epsilon is not None for line in standing.rounds)
    return [budget, *(["ε∑"] if parties else [])]


def _row(line: "Line", columns: Sequence[str], standing: "Standing") -> list[str]:
    values = [f"{line.metrics[name]:.4g}" if name in line.metrics else "" for name in columns]
    lost = "; ".join(f"{name}: {why}" for name, why in line.lost.items())
    spent = [line.epsilon, line.party_epsilon][: len(_epsilons(standing))]
    epsilons = ["" if one is None else f"{one:.3g}" for one in spent]
    took_part = len(line.parties.keys() - line.lost.keys())
    sent = (_size(line.bytes_up), _size(line.bytes_down))
    return [f"{line.round}/{standing.of}", *values, str(took_part), *sent, *epsilons, safe(lost)]


def _keys(named: Sequence[str], manner: Manner, folder: Path, screen: Screen) -> None:
    from consilience.federation import keys

    action, *rest = named
    hosts, days = manner.host or [], manner.days
    acts: dict[str, Callable[[], Held]] = {
        "make": lambda: keys.make(folder, hosts=hosts, parties=rest, days=days),
        "accept": lambda: keys.accept(folder, [Path(one) for one in rest]),
        "remove": lambda: keys.remove(folder, _one(rest, action)),
        "renew": lambda: keys.renew(folder, hosts=hosts, days=days),
        "list": lambda: keys.held(folder),
    }
    if action == "party":
        _made(keys.make_party(folder, _one(rest, action)), folder, screen)
    elif action in acts:
        _held(acts[action](), screen)
    else:
        raise UsageError(
            f"keys cannot {action!r}", hint="make, party, accept, remove, renew or list"
        )


def _one(named: Sequence[str], action: str) -> str:
    if len(named) != 1:
        raise UsageError(
            f"keys {action} takes one name, received {len(named)}",
            hint=f"consilience federate keys {action} NAME",
        )
    return named[0]


def _made(public: Path, folder: Path, screen: Screen) -> None:
    if screen.json:
        screen.document({"public": str(public), "folder": str(folder)})
        return
    screen.line(safe(screen.words.party_keys_made.format(path=public)))


def _held(found: "Held", screen: Screen) -> None:
    told: dict[str, Any] = {
        "folder": str(found.folder),
        "parties": list(found.parties),
        "hosts": list(found.hosts),
        "expires": None if found.expires is None else found.expires.isoformat(),
        "authority": None if found.authority is None else found.authority.isoformat(),
        "fingerprint": found.fingerprint,
    }
    if screen.json:
        screen.document(told)
        return
    words = screen.words
    screen.line(f"{words.parties}: {safe(', '.join(found.parties)) or '-'}")
    if found.expires is not None:
        until = words.until.format(time=found.expires.isoformat()[:16])
        screen.line(safe(f"{', '.join(found.hosts)} · {until}"))
    if found.fingerprint:
        screen.line(safe(f"{words.fingerprint}: {found.fingerprint}"))
