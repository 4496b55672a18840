import math

import pytest

from consilience.errors import UsageError
from consilience.evaluation import METRICS, Run, summed_up
from consilience.evaluation.summary import statistics_of
from tests.evaluation.made import record

RECORDS = (
    record("a", {"exact_match": 1.0, "f1": 1.0, "recall@1": 1.0}, confidence=0.9),
    record("b", {"exact_match": 0.0, "f1": 0.5}, confidence=0.4),
    record("c", {"exact_match": 0.0, "f1": 0.0}, confidence=0.1, abstained=True, answer=""),
)


def test_figures_by_hand() -> None:
    found = summed_up(Run({}, RECORDS))
    assert found.n == 3
    assert found.metrics["exact_match"] == pytest.approx(1 / 3)
    assert found.metrics["f1"] == pytest.approx(0.5)
    assert found.metrics["recall@1"] == 1.0
    # the withheld answer is in none of these
    assert found.metrics["brier"] == pytest.approx((0.01 + 0.16) / 2)
    assert found.metrics["auroc"] == 1.0
    assert found.metrics["aurc"] == pytest.approx((0 + 1 / 2) / 2)
    assert found.metrics["calibration_error"] == pytest.approx((0.1 + 0.4) / 2)
    # three answers with 2/3 single tokens, 1/2 pairs, no triple of one and no quadruple at all
    assert found.metrics["bleu"] == 0.0
    assert found.counts() == {"exact_match": 3, "f1": 3, "recall@1": 1}
    assert found.timings_ms() == {"read": 2.0}


def test_metrics_stand_in_one_order_and_have_intervals() -> None:
    found = summed_up(Run({}, RECORDS))
    assert list(found.metrics) == [name for name in METRICS if name in found.metrics]
    assert list(found.intervals) == list(found.metrics)
    for name, span in found.intervals.items():
        assert span.low <= found.metrics[name] <= span.high, name


def test_what_is_not_defined_is_left_out() -> None:
    found = summed_up(Run({}, (record("a", {"f1": 1.0}, bleu=None),)))
    assert found.metrics == {"f1": 1.0}
    assert not any(math.isnan(value) for value in found.metrics.values())


def test_labels_are_compared_as_answers_are() -> None:
    records = (
        record("a", {"accuracy": 1.0}, label="Yes", answer="yes."),
        record("b", {"accuracy": 0.0}, label="no", answer="perhaps"),
    )
    assert summed_up(Run({}, records)).metrics["macro_f1"] == pytest.approx(0.5)


def test_only_questions_that_can_be_right_are_calibrated() -> None:
    assert "brier" not in statistics_of([record("a", {"answered": 1.0})])


def test_an_empty_run_has_no_figures() -> None:
    with pytest.raises(UsageError, match="the run has no questions yet"):
        summed_up(Run({}, ()))


def test_the_json_form() -> None:
    found = summed_up(Run({"data": "d"}, RECORDS), resumed=2).to_dict()
    assert found.keys() == {
        *("metrics", "n", "intervals", "level", "counts", "timings_ms", "resumed", "setup")
    }
    assert found["intervals"]["f1"] == [0.0, 1.0]
    assert (found["resumed"], found["setup"], found["level"]) == (2, {"data": "d"}, 0.95)
