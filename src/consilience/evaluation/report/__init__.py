"""The report of an evaluation: one HTML file that reads without a network and without scripts."""

from consilience.evaluation.report.page import write_report

__all__ = ["write_report"]
