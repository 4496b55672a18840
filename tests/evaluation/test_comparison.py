from pathlib import Path

import pytest

from consilience.errors import UsageError
from consilience.evaluation import Run, compare, summed_up
from consilience.evaluation.runs import RunFile
from tests.evaluation.made import record


def run(*shares: float, prefix: str = "q", **rest: object) -> Run:
    return Run({}, tuple(record(f"{prefix}{i}", {"f1": s}, **rest) for i, s in enumerate(shares)))


def test_differences_are_second_less_first() -> None:
    found = compare(run(0.0, 0.5, 1.0), run(1.0, 0.5, 0.5))
    assert found.n == 3
    gap = found.differences["f1"]
    assert (gap.a, gap.b, gap.difference) == pytest.approx((0.5, 2 / 3, 1 / 6))
    assert gap.interval is not None
    assert gap.interval.low < gap.difference < gap.interval.high
    assert gap.p_randomisation > 0.2


def test_what_always_gets_better_is_no_chance() -> None:
    gap = compare(run(*[0.2] * 20), run(*[0.4] * 20)).differences["f1"]
    assert gap.p_randomisation < 0.01
    assert gap.p_bootstrap < 0.01
    assert gap.interval is not None
    assert gap.interval.low == pytest.approx(0.2)


def test_changed_questions_the_greatest_change_first() -> None:
    found = compare(run(0.0, 0.5, 1.0), run(0.2, 0.5, 0.0, answer="other"))
    assert [(one.id, one.f1_a, one.f1_b) for one in found.changed] == [
        ("q2", 1.0, 0.0),
        ("q0", 0.0, 0.2),
    ]
    assert (found.changed[0].a, found.changed[0].b) == ("an answer", "other")


def test_only_shared_questions_count() -> None:
    found = compare(run(0.0, 1.0, 1.0), run(0.5))
    assert (found.n, found.only_a, found.only_b) == (1, 2, 0)
    assert (found.differences["f1"].a, found.differences["f1"].b) == (0.0, 0.5)


def test_metrics_over_many_questions_are_compared_too() -> None:
    sure = Run({}, (record("a", {"exact_match": 1.0}, confidence=1.0),))
    unsure = Run({}, (record("a", {"exact_match": 1.0}, confidence=0.5),))
    assert compare(sure, unsure).differences["brier"].difference == 0.25


def test_files_and_evaluations_are_runs(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run.jsonl", {})
    for one in run(0.0, 1.0).records:
        file.append(one)
    file.close()
    found = compare(tmp_path / "run.jsonl", summed_up(run(1.0, 1.0)))
    assert found.differences["f1"].difference == 0.5


def test_the_json_form() -> None:
    found = compare(run(0.0), run(1.0)).to_dict()
    assert found["differences"]["f1"]["interval"] == [1.0, 1.0]
    assert found["changed"][0]["id"] == "q0"
    assert (found["n"], found["only_a"], found["only_b"], found["level"]) == (1, 0, 0, 0.95)


def test_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="the runs have no question in common"):
        compare(run(1.0), run(1.0, prefix="other"))


def test_one_name_for_two_questions() -> None:
    with pytest.raises(UsageError) as caught:
        compare(run(1.0), run(1.0, question="Who?"))
    assert caught.value.message == (
        "question q0 is not the same in both runs: 'What is q0?' and 'Who?'"
    )
