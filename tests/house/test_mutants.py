"""The mutants name code and tests that exist, and the tool that tries them keeps its word."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from tools.mutants import Copy, Mutant, MutantError, failed, main, mutants, noticing

from tests.house.tree import ROOT

ALL = mutants(ROOT)


def known_tests(names: Sequence[str]) -> bool:
    """Whether the files exist and hold the functions."""
    for name in names:
        file, *inside = name.partition("[")[0].split("::")
        text = (ROOT / file).read_text("utf-8")
        if not all(
            re.search(rf"^\s*(async def|def|class) {part}\b", text, re.M) for part in inside
        ):
            return False
    return True


@pytest.mark.parametrize("mutant", ALL, ids=[f"{one.file}: {one.promise}" for one in ALL])
def test_a_mutant_changes_code_that_is_there_and_names_tests_that_are(mutant: Mutant) -> None:
    assert mutant.broken(ROOT) != mutant.place(ROOT).read_text("utf-8")
    assert mutant.tests
    assert known_tests(mutant.tests)


def test_every_promise_stands_once() -> None:
    promises = [one.promise for one in ALL]
    assert len(set(promises)) == len(promises)


OUTPUT = """
.F.F
FAILED tests/a/test_b.py::test_c[x - y] - AssertionError: no
FAILED tests/a/test_b.py::TestD::test_e
2 failed, 2 passed in 0.1s
"""


def test_failures_are_read_from_what_pytest_prints() -> None:
    found = failed(OUTPUT)
    assert found == ("tests/a/test_b.py::test_c[x - y]", "tests/a/test_b.py::TestD::test_e")
    assert noticing("tests/a/test_b.py::test_c", found)
    assert noticing("tests/a/test_b.py::test_c[x - y]", found)
    assert noticing("tests/a/test_b.py::TestD", found)
    assert not noticing("tests/a/test_b.py::test_", found)
    assert not noticing("tests/a/test_b.py::test_c[z]", found)


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("never written", "x", "stands there 0 times and must once"),
        ("def ", "x", r"stands there \d+ times and must once"),
        ("class UsageError", "class UsageError", "is changed into itself"),
    ],
)
def test_a_mutant_that_changes_nothing_is_refused(was: str, becomes: str, told: str) -> None:
    with pytest.raises(MutantError, match=told):
        Mutant("p", "errors.py", was, becomes, ()).broken(ROOT)


def test_what_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "No table 'nothing'; there are: " in capsys.readouterr().err
    assert main(["--like", "no promise says this"]) == 2
    assert "No mutant is like" in capsys.readouterr().err


def test_a_copy_says_who_noticed_and_is_whole_again(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    place = copy.root / "src/consilience/text/language.py"
    whole = place.read_text("utf-8")
    seen = "tests/text/test_language.py::test_language_of"
    silent = "tests/text/test_language.py::test_language_of[123 + 456?-]"
    verdict = copy.tried(
        Mutant("p", "text/language.py", "_SHARE = 0.3", "_SHARE = 3", (seen, silent))
    )
    assert (verdict.noticed, verdict.missed, verdict.caught) == ((seen,), (silent,), False)
    assert place.read_text("utf-8") == whole
