"""The lock files cover what the project declares, and the tool that writes them keeps its word."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tools.lock import EXTRAS, Installed, LockError, closure, locks, pins, rendered

from tests.house.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.!]*")


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [line for line in pinned if not PIN.fullmatch(line)] == []
    return dict(line.split("==") for line in pinned)


RUNTIME = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
TOOLS = PROJECT["project"]["optional-dependencies"]["dev"]


@pytest.mark.parametrize("line", RUNTIME)
def test_the_runtime_lock_satisfies_the_project(line: str) -> None:
    wanted = Requirement(line)
    assert wanted.specifier.contains(locked("requirements.lock")[canonicalize_name(wanted.name)])


@pytest.mark.parametrize("line", TOOLS)
def test_the_development_lock_satisfies_the_project(line: str) -> None:
    wanted = Requirement(line)
    both = locked("requirements.lock") | locked("requirements-dev.lock")
    assert wanted.specifier.contains(both[canonicalize_name(wanted.name)])


FURTHER = [
    (lock, line)
    for lock in ("requirements-serve.lock", "requirements-learn.lock")
    for extra in EXTRAS[lock]
    for line in PROJECT["project"]["optional-dependencies"][extra]
]


@pytest.mark.parametrize(("lock", "line"), FURTHER)
def test_a_further_lock_satisfies_the_project_and_repeats_no_version(lock: str, line: str) -> None:
    wanted = Requirement(line)
    further, tools = locked(lock), locked("requirements-dev.lock")
    both = locked("requirements.lock") | further
    assert wanted.specifier.contains(both[canonicalize_name(wanted.name)])
    assert all(tools[name] == version for name, version in further.items())


def test_torch_is_pinned_without_a_build() -> None:
    assert locked("requirements.lock")["torch"] == "2.13.0"


def test_what_only_training_needs_is_in_neither_lock() -> None:
    names = set(locked("requirements.lock")) | set(locked("requirements-dev.lock"))
    assert names & set(locked("requirements-train.lock")) == set()


def test_the_development_lock_repeats_nothing() -> None:
    assert set(locked("requirements.lock")) & set(locked("requirements-dev.lock")) == set()


PACKAGES = {
    "a": Installed("A", "1.0", ("b>=2", "never; python_version < '3'", "x; extra == 'fast'")),
    "b": Installed("B", "2.5+cpu", ("a", "c[fast]")),
    "c": Installed("C", "3", ("x; extra == 'fast'", "y; extra == 'slow'")),
    "x": Installed("X_x", "4", ()),
    "lone": Installed("lone", "5", ()),
}


def look_up(name: str) -> Installed:
    if name not in PACKAGES:
        raise LockError(f"{name} is needed but not installed: pip install {name}")
    return PACKAGES[name]


def test_the_closure_follows_requirements_markers_extras_and_circles() -> None:
    assert set(closure(["a"], look_up)) == {"a", "b", "c", "x"}


def test_an_extra_of_a_root_is_followed_and_others_are_not() -> None:
    assert set(closure(["c"], look_up)) == {"c"}
    assert set(closure(["c[fast]"], look_up)) == {"c", "x"}


def test_builds_are_left_out_and_lines_are_sorted() -> None:
    assert pins(closure(["a"], look_up)) == ["a==1.0", "b==2.5", "c==3", "x==4"]


def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(LockError, match=r"^z is needed but not installed: pip install z$"):
        closure(["z"], look_up)


def test_a_version_outside_the_bounds_is_refused() -> None:
    with pytest.raises(LockError, match=r"pyproject\.toml needs b<2, but 2\.5\+cpu is installed"):
        closure(["b<2"], look_up)


def test_tools_that_the_runtime_has_already_are_not_locked_twice() -> None:
    project = {
        "build-system": {"requires": ["lone"]},
        "project": {"dependencies": ["b"], "optional-dependencies": {"dev": ["a"]}},
    }
    wanted = locks(project, look_up)
    assert wanted["requirements-serve.lock"] == []
    assert wanted["requirements.lock"] == ["a==1.0", "b==2.5", "c==3", "lone==5", "x==4"]
    assert wanted["requirements-dev.lock"] == []


def test_a_lock_says_what_it_is_for_and_where_it_was_written() -> None:
    text = rendered("requirements.lock", ["a==1.0"])
    assert text.startswith("# What consilience needs to run")
    origin = r"^# Written by `make lock` for Python 3\.\d+ on \w+ \w+\. Do not edit"
    assert re.search(origin, text, re.MULTILINE)
    assert text.endswith("\na==1.0\n")
