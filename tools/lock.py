"""Write the lock files: exact versions of everything that this project needs, and of nothing else.

What is needed is read from `pyproject.toml` and followed through the metadata of the packages that
are installed beside the running interpreter; their versions are what gets pinned. So a lock always
is a set that ran together. It knows no index and asks none, and it refuses to pin what is not
installed, from a folder or from an address.

    python tools/lock.py            write requirements.lock and its companions
    python tools/lock.py --check    change nothing; exit code 1 when they would change
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# {purpose}
# Written by `make lock` for Python {python} on {platform}. Do not edit; change pyproject.toml.
"""


class LockError(Exception):
    """Something that cannot be pinned, and what to type about it."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed package: its name as its authors write it, its version, what it requires."""

    name: str
    version: str
    requires: tuple[str, ...]


Lookup = Callable[[str], Installed]


def installed(name: str) -> Installed:
    """The package of that name beside the running interpreter.

    Raises:
        LockError: It is not installed.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise LockError(f"{name} is needed but not installed: pip install {name}") from None
    return Installed(found.metadata["Name"], found.version, tuple(found.requires or ()))


def closure(roots: Iterable[str], look_up: Lookup = installed) -> dict[str, Installed]:
    """Everything that `roots` need, themselves included, by canonical name.

    Args:
        roots: Requirements as `pyproject.toml` writes them.
        look_up: Where packages are found.

    Raises:
        LockError: One is not installed, or its version is not the one that is asked for.
    """
    found: dict[str, Installed] = {}
    waiting = [(Requirement(root), "pyproject.toml") for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted, by = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        package = found.setdefault(name, look_up(wanted.name))
        _require_version(wanted, package, by)
        if (name, extras) not in seen:
            seen.add((name, extras))
            waiting += [(each, package.name) for each in _needs(package, extras)]
    return found


def _needs(package: Installed, extras: frozenset[str]) -> list[Requirement]:
    """What a package requires here, on this Python and platform, with these extras."""
    wanted = [Requirement(line) for line in package.requires]
    return [each for each in wanted if _applies(each, extras)]


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})


def _require_version(wanted: Requirement, package: Installed, by: str) -> None:
    if not wanted.specifier.contains(package.version, prereleases=True):
        raise LockError(
            f"{by} needs {wanted}, but {package.version} is installed: pip install '{wanted}'"
        )


def pins(packages: Mapping[str, Installed]) -> list[str]:
    """`name==version` of each package, sorted; builds (`+cpu`) are left to who installs."""
    return [f"{name}=={Version(each.version).public}" for name, each in sorted(packages.items())]


def locks(project: Mapping[str, object], look_up: Lookup = installed) -> dict[str, list[str]]:
    """The pins of each lock file, by file name.

    What builds the package belongs to the runtime lock, so that installing from a clone asks for
    nothing beyond it. The other locks hold only what comes on top.

    Args:
        project: `pyproject.toml`, parsed.
        look_up: Where packages are found.
    """
    runtime = closure([*_strings(project, "project", "dependencies"), *_build(project)], look_up)
    found = {"requirements.lock": pins(runtime)}
    for file, extras in EXTRAS.items():
        wanted = [
            line
            for extra in extras
            for line in _strings(project, "project", "optional-dependencies", extra)
        ]
        packages = closure(wanted, look_up)
        found[file] = pins({name: each for name, each in packages.items() if name not in runtime})
    return found


def _build(project: Mapping[str, object]) -> list[str]:
    return _strings(project, "build-system", "requires")


def _strings(table: object, *path: str) -> list[str]:
    for key in path:
        table = table[key] if isinstance(table, Mapping) and key in table else []
    return [str(item) for item in table] if isinstance(table, list) else []


EXTRAS = {
    "requirements-serve.lock": ("serve", "mcp", "postgres", "elasticsearch", "opensearch"),
    "requirements-learn.lock": ("train", "evaluation"),
    "requirements-dev.lock": ("dev",),
}
"""The extras that each further lock holds, by file name."""

PURPOSES = {
    "requirements.lock": "What consilience needs to run, and to be installed from a clone.",
    "requirements-serve.lock": "What `consilience serve` needs beyond requirements.lock.",
    "requirements-learn.lock": "What training and evaluation need beyond requirements.lock.",
    "requirements-dev.lock": "What `make test` needs beyond requirements.lock.",
}


def rendered(name: str, lines: Iterable[str]) -> str:
    """The text of a lock file."""
    here = default_environment()
    platform = f"{here['platform_system']} {here['platform_machine']}"
    head = HEADER.format(purpose=PURPOSES[name], python=here["python_version"], platform=platform)
    return head + "".join(f"{line}\n" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Write the locks, or with `--check` say whether they are up to date."""
    parser = argparse.ArgumentParser(description="Write the lock files from this environment.")
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    only_check = parser.parse_args(arguments).check
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        wanted = {ROOT / name: rendered(name, lines) for name, lines in locks(project).items()}
    except LockError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    stale = [path for path, text in wanted.items() if _text(path) != text]
    for path in stale:
        sys.stderr.write(f"{path.name}: {'is out of date' if only_check else 'written'}\n")
        if not only_check:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if only_check and stale else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
