"""What must not stand in the tree: paths of one machine, code that comes out of files, and more."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT, files, named, text_files

SOURCES = sorted((ROOT / "src").rglob("*.py"))

# Where machines keep what is their own; a page or a program that names one works on one machine.
PLACES = [r"(?<![\w.*/])/(?:home|root|Users|opt|mnt|srv|work)/\w"]
# Put together here, so that this file does not hold what it forbids.
HOSTS = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "download" + r"\.pytorch"]
ELSEWHERE = [r"\bissues? " + r"#?\d"]
FORBIDDEN = re.compile("|".join(PLACES + HOSTS + ELSEWHERE))

CARRIERS_OF_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNERS_OF_CODE = {"eval", "exec", "compile", "__import__"}


def test_no_file_names_a_place_of_one_machine_or_a_package_index() -> None:
    found = [
        f"{named(path)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


def test_the_pattern_of_forbidden_places_finds_them() -> None:
    for text in ("see /ho" + "me/ada/main", "'/op" + "t/wheels'", "https://pypi" + ".org/simple"):
        assert FORBIDDEN.search(text)
    assert not FORBIDDEN.search("benchmarks/work/")


def test_no_file_is_large_but_the_weights() -> None:
    weights = ROOT / "src/consilience/weights"
    large = [path for path in files() if path.stat().st_size > 1_000_000]
    assert [named(path) for path in large if not path.is_relative_to(weights)] == []
    total = sum(path.stat().st_size for path in files() if path.is_relative_to(weights))
    assert total <= 64_000_000


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_nothing_that_is_loaded_can_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert sorted(CARRIERS_OF_CODE & {name.split(".")[0] for name in _imported(tree)}) == []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        _require_harmless(call, tree, path)


def _require_harmless(call: ast.Call, tree: ast.Module, path: Path) -> None:
    name = ast.unparse(call.func)
    where = f"{named(path)}:{call.lineno}: {ast.unparse(call)[:80]}"
    assert name not in RUNNERS_OF_CODE, where
    assert name not in {"pickle.load", "pickle.loads"}, where
    assert name != "torch.load" or _reads_tensors_only(call), where
    assert not any(_may_unpickle(keyword) for keyword in call.keywords), where
    if name.split(".")[-1] in {"import_module", "spec_from_file_location"}:
        assert path.name == "__init__.py", where
        assert _is_literal(call.args[0], _tables(tree)), where


def _may_unpickle(keyword: ast.keyword) -> bool:
    """Whether a keyword lets numpy read or write objects; its refusal may be written out."""
    refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
    return keyword.arg == "allow_pickle" and not refused


def _reads_tensors_only(call: ast.Call) -> bool:
    """Whether a call of `torch.load` refuses everything but tensors."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    only = given.get("weights_only")
    return isinstance(only, ast.Constant) and only.value is True


@pytest.mark.parametrize(
    ("source", "safe"),
    [
        ("torch.load(path, weights_only=True)", True),
        ("torch.load(path, weights_only=False)", False),
        ("torch.load(path)", False),
        ("torch.load(path, **settings)", False),
    ],
)
def test_torch_reads_tensors_only(source: str, safe: bool) -> None:
    call = ast.parse(source).body[0].value  # type: ignore[attr-defined]
    assert _reads_tensors_only(call) is safe


def _tables(tree: ast.Module) -> set[str]:
    """Names of the module's tables of literals."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
        and all(isinstance(value, ast.Constant) for value in node.value.values)
    }


def _is_literal(node: ast.expr, tables: set[str]) -> bool:
    """Whether a name can only be one that is written in the source."""
    match node:
        case ast.Constant():
            return True
        case ast.Subscript(value=ast.Name(id=name)):
            return name in tables
        case ast.JoinedStr(values=parts):
            return all(_is_literal(part, tables) for part in parts)
        case ast.FormattedValue(value=inner):
            return _is_literal(inner, tables)
    return False


@pytest.mark.parametrize(
    ("source", "literal"),
    [
        ("import_module('a.b')", True),
        ("import_module(T['x'])", True),
        ("import_module(f'a.{T[name]}')", True),
        ("import_module(f'a.{name}')", False),
        ("import_module(settings['class'])", False),
    ],
)
def test_only_names_written_in_the_source_count_as_literal(source: str, literal: bool) -> None:
    call = ast.parse(source).body[0].value  # type: ignore[attr-defined]
    assert _is_literal(call.args[0], {"T"}) is literal


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    lines = [line for name, extra in extras.items() if name != "dev" for line in extra]
    declared = {
        canonicalize_name(Requirement(line).name)
        for line in project["project"]["dependencies"] + lines
    }
    modules = (
        {
            name.split(".")[0]
            for path in SOURCES
            for name in _imported(ast.parse(path.read_text("utf-8")))
        }
        - set(sys.stdlib_module_names)
        - {"consilience"}
    )
    distributions = packages_distributions()
    undeclared = {
        module
        for module in modules
        if not declared & {canonicalize_name(name) for name in distributions.get(module, [module])}
    }
    assert undeclared == set()
