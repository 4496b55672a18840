"""Break the code on purpose, one place at a time, and see the tests fail that promise it works.

A test that cannot fail says nothing. `tests/mutants/*.toml` names for each promise one place of the
code, what to write there instead, and the tests that must notice:

    [[mutant]]
    promise = "The probabilities of all answers add up to one"
    file = "model/fusion.py"
    was = "expanded.log_softmax(-1)"
    becomes = "expanded"
    tests = ["tests/model/test_fusion.py::test_all_answers_together_are_certain"]

Each mutant lives in a copy of the tree, so the code itself is never touched. All tests that are
named must first pass on the code as it is; then, on each mutant, every one of them must fail: as a
failed test, not because nothing could be imported or nothing was run.

    python tools/mutants.py                    all of them
    python tools/mutants.py model serving      those of these files
    python tools/mutants.py --like posterior   those whose promise or file holds this text
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
TABLES = Path("tests") / "mutants"
SOURCE = Path("src") / "consilience"
COPIED = ("src", "tests", "tools", "examples", "recipes", "benchmarks", "deploy", "docs")
SECONDS = 1200
"""After so long the tests of a mutant count as hung, which is not the same as failed."""

_HOW = (
    "-n",
    "0",
    "-q",
    "--tb=no",
    "-rfE",
    "--timeout=120",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore",
)
_FAILED = re.compile(r"^FAILED (\S+?\.py::[^\[\s]+(?:\[.*?\])?)(?= - |$)", re.MULTILINE)


class MutantError(Exception):
    """A table that cannot be used, and what to change in it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One place of the code broken, and who must notice.

    Attributes:
        promise: What the tests promise, in a sentence.
        file: Below `src/consilience`; one of a recipe begins with `recipes/`.
        was: Text that stands in the file exactly once.
        becomes: What stands there in the mutant.
        tests: Node ids of pytest, from the root of the tree; one without `[...]` means all cases,
            of which one must fail.
    """

    promise: str
    file: str
    was: str
    becomes: str
    tests: tuple[str, ...]

    def place(self, root: Path) -> Path:
        """Where the file is in a tree."""
        return root / ("" if self.file.startswith("recipes/") else SOURCE) / self.file

    def broken(self, root: Path) -> str:
        """The text of the file with the place broken.

        Raises:
            MutantError: The text that it changes does not stand there exactly once.
        """
        text = self.place(root).read_text("utf-8")
        found = text.count(self.was)
        if found != 1:
            raise MutantError(
                f"{self.file}: {self.was!r} stands there {found} times and must once"
                f" (promise: {self.promise})"
            )
        if self.was == self.becomes:
            raise MutantError(f"{self.file}: {self.was!r} is changed into itself")
        return text.replace(self.was, self.becomes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a mutant: who noticed, who did not, and what else went wrong."""

    mutant: Mutant
    noticed: tuple[str, ...]
    missed: tuple[str, ...]
    trouble: str = ""

    @property
    def caught(self) -> bool:
        """Whether every test that it names failed."""
        return not self.missed and not self.trouble


def mutants(root: Path, names: Sequence[str] = ()) -> list[Mutant]:
    """The mutants of all tables, or of those named.

    Raises:
        MutantError: A table that is named does not exist, or an entry is not complete.
    """
    tables = {path.stem: path for path in sorted((root / TABLES).glob("*.toml"))}
    unknown = [name for name in names if name not in tables]
    if unknown:
        raise MutantError(f"No table {unknown[0]!r}; there are: {', '.join(tables)}")
    found = []
    for name in names or tables:
        for entry in tomllib.loads(tables[name].read_text("utf-8"))["mutant"]:
            try:
                found.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
            except (KeyError, TypeError) as error:
                raise MutantError(f"{tables[name].name}: {entry}: {error}") from None
    return found


def failed(output: str) -> tuple[str, ...]:
    """Node ids of the tests that a run of `pytest -rf` reports as failed."""
    return tuple(_FAILED.findall(output))


def noticing(test: str, failures: Iterable[str]) -> bool:
    """Whether a test, or one of its cases, is among the failures."""
    return any(one == test or one.startswith((f"{test}[", f"{test}::")) for one in failures)


class Copy:
    """A copy of the tree in which one file at a time is broken."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in COPIED:
            shutil.copytree(
                ROOT / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "work"),
            )
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy2(path, folder / path.name)

    def tried(self, mutant: Mutant) -> Verdict:
        """Break the place, run its tests, put it right again."""
        path = mutant.place(self.root)
        whole = path.read_text("utf-8")
        try:
            path.write_text(mutant.broken(self.root), "utf-8")
            code, output = self.tests(mutant.tests)
        except subprocess.TimeoutExpired:
            return Verdict(mutant, (), mutant.tests, f"hung for {SECONDS} seconds")
        finally:
            path.write_text(whole, "utf-8")
        failures = failed(output)
        noticed = tuple(test for test in mutant.tests if noticing(test, failures))
        missed = tuple(test for test in mutant.tests if test not in noticed)
        # 0: all passed, 1: some failed; anything else means that tests did not run.
        trouble = "" if code in (0, 1) and "ERROR " not in output else output.strip()[-2000:]
        return Verdict(mutant, noticed, missed, trouble)

    def tests(self, names: Sequence[str], *more: str) -> tuple[int, str]:
        """Run tests in this copy, on this copy's code: exit status and what was printed."""
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *_HOW, *more, *names],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(self.root / "src"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                # Colour would stand between the start of a line and its first word.
                "PY_COLORS": "0",
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return ran.returncode, ran.stdout + ran.stderr


def judged(chosen: Sequence[Mutant], jobs: int) -> Iterable[Verdict]:
    """Try every mutant, a few at a time; the order of the list is kept.

    Raises:
        MutantError: A test that is named does not pass on the code as it is.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number)))

        def in_a_copy(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return copy.tried(mutant)
            finally:
                copies.put(copy)

        whole = copies.get()
        named = sorted({test for one in chosen for test in one.tests})
        code, output = whole.tests(named, "--tb=short", "-n", str(jobs))
        copies.put(whole)
        if code != 0:
            raise MutantError(f"Not all tests pass on the code as it is:\n{output[-4000:]}")
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(in_a_copy, chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants that are asked for; 1 when one of them went unnoticed."""
    parser = argparse.ArgumentParser(description="Break the code and see the tests fail.")
    parser.add_argument("tables", nargs="*", help="names in tests/mutants; all when none is given")
    parser.add_argument("--like", default="", help="only those whose promise or file holds this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args(arguments)
    try:
        chosen = [
            one
            for one in mutants(ROOT, options.tables)
            if options.like in one.promise or options.like in one.file
        ]
        if not chosen:
            raise MutantError(f"No mutant is like {options.like!r}")
        for one in chosen:
            one.broken(ROOT)
        caught = 0
        for verdict in judged(chosen, options.jobs):
            caught += verdict.caught
            _tell(verdict)
    except MutantError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    _say(f"{caught} of {len(chosen)} mutants were noticed by every test that they name.")
    return 0 if caught == len(chosen) else 1


def _tell(verdict: Verdict) -> None:
    mark = "noticed " if verdict.caught else "SURVIVED"
    _say(f"{mark} {verdict.mutant.file}: {verdict.mutant.promise}")
    for test in verdict.missed:
        _say(f"         did not fail: {test}")
    if verdict.trouble:
        _say(verdict.trouble)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
