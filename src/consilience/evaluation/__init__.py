"""Measures of answers: exact match and F1 after the scorers that the field uses."""

from consilience.evaluation.answers import exact_match, f1

__all__ = ["exact_match", "f1"]
