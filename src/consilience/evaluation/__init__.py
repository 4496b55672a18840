"""Evaluation: measures of answers, rankings and citations, with intervals, tests and a report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.evaluation.answers import exact_match, f1

if TYPE_CHECKING:
    from consilience.evaluation.comparison import Comparison, compare
    from consilience.evaluation.records import Record
    from consilience.evaluation.report import write_report
    from consilience.evaluation.resampling import Difference, Interval, Resampling
    from consilience.evaluation.running import (
        Evaluation,
        EvaluationOptions,
        evaluate,
        summed_up,
    )
    from consilience.evaluation.runs import Run, read_run
    from consilience.evaluation.scoring import Scoring
    from consilience.evaluation.summary import METRICS
    from consilience.evaluation.support import Judge

__all__ = [
    "METRICS",
    "Comparison",
    "Difference",
    "Evaluation",
    "EvaluationOptions",
    "Interval",
    "Judge",
    "Record",
    "Resampling",
    "Run",
    "Scoring",
    "compare",
    "evaluate",
    "exact_match",
    "f1",
    "read_run",
    "summed_up",
    "write_report",
]

_FILES = {
    "METRICS": "summary",
    "Comparison": "comparison",
    "Difference": "resampling",
    "Evaluation": "running",
    "EvaluationOptions": "running",
    "Interval": "resampling",
    "Judge": "support",
    "Record": "records",
    "Resampling": "resampling",
    "Run": "runs",
    "Scoring": "scoring",
    "compare": "comparison",
    "evaluate": "running",
    "read_run": "runs",
    "summed_up": "running",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.evaluation.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.evaluation' has no attribute {name!r}")
