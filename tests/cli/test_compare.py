from pathlib import Path

import pytest

from tests.cli.terminal import consilience
from tests.evaluation.made import record


def write(path: str, *shares: float, answer: str = "an answer", first: int = 0) -> None:
    from consilience.evaluation.runs import RunFile

    file = RunFile(Path(path), {"data": "d"})
    for place, share in enumerate(shares, start=first):
        file.append(record(f"q{place}", {"f1": share}, answer=answer, bleu=None))
    file.close()


@pytest.fixture
def runs(bare: Path) -> tuple[str, str]:
    write("a.jsonl", 0.0, 0.5, 1.0)
    write("b.jsonl", 1.0, 0.5, 0.5, 1.0, answer="\x1b[31mred")
    return "a.jsonl", "b.jsonl"


def test_scripts_get_differences(runs: tuple[str, str]) -> None:
    done = consilience("compare", *runs, "--json")
    assert (done.code, done.err) == (0, "")
    found = done.document
    assert (found["run_a"], found["run_b"]) == runs
    assert (found["n"], found["only_a"], found["only_b"]) == (3, 0, 1)
    gap = found["differences"]["f1"]
    assert gap.keys() == {"a", "b", "difference", "interval", "p_bootstrap", "p_randomisation"}
    assert gap["difference"] == pytest.approx(1 / 6)
    assert [one["id"] for one in found["changed"]] == ["q0", "q2"]


def test_people_get_a_table_and_what_changed(runs: tuple[str, str]) -> None:
    done = consilience("compare", *runs)
    assert done.code == 0
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[:3] == [
        "3 questions of both runs",
        "Left out: 0 questions that only A has, 1 that only B has.",
        lines[2],
    ]
    assert lines[2].split() == ["Metric", "A", "B", "B", "−", "A", "95%", "interval", "p"]
    assert lines[3].split()[:4] == ["f1", "0.500", "0.667", "+0.167"]
    changed = lines.index("Changed questions: 2 (1 better, 1 worse)")
    assert lines[changed + 1 : changed + 5] == [
        "0.00 → 1.00  What is q0?",
        "      right: right",
        "      A: an answer",
        r"      B: \x1b[31mred",
    ]


def test_nothing_changed(runs: tuple[str, str]) -> None:
    done = consilience("compare", "a.jsonl", "a.jsonl", "--lang", "zh")
    assert done.out.splitlines()[-1] == "没有哪个回答变好或变差。"


def test_only_the_greatest_changes_are_shown(bare: Path) -> None:
    write("a.jsonl", *[0.0] * 15)
    write("b.jsonl", *[1.0] * 15)
    assert consilience("compare", "a.jsonl", "b.jsonl").out.count("0.00 → 1.00") == 10


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("a.jsonl", "none.jsonl"), 3, "there is no run at none.jsonl"),
        (("a.jsonl", "text.txt"), 4, "text.txt line 1 is not of a run: not JSON"),
        (("a.jsonl", "other.jsonl"), 2, "the runs have no question in common"),
        (("a.jsonl",), 2, "Missing argument 'RUN_B'."),
    ],
)
def test_what_cannot_be_compared(
    runs: tuple[str, str], words: tuple[str, ...], code: int, message: str
) -> None:
    Path("text.txt").write_text("text\n")
    write("other.jsonl", 1.0, first=7)
    done = consilience("compare", *words, "--json")
    assert (done.code, done.document["error"]["message"]) == (code, message)
