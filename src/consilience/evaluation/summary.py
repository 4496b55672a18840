"""The figures of a run: every metric, over records, as a statistic of weights.

The one place that knows which metrics there are and over which questions each is taken: those that
define it. Calibration and risk are taken over the questions that were answered, since a withheld
answer is neither right nor wrong.
"""

from collections.abc import Sequence

import numpy as np

from consilience.evaluation.answers import normalised
from consilience.evaluation.calibration import (
    aurc_statistic,
    auroc_statistic,
    calibration_error_statistic,
)
from consilience.evaluation.labels import macro_f1_statistic
from consilience.evaluation.overlap import bleu_statistic
from consilience.evaluation.records import Record
from consilience.evaluation.statistic import Statistic, Values, Weights, mean

RECALL_PLACES = (1, 5, 20)
RANK_DEPTH = 10

MEANS = (
    *("exact_match", "f1", "accuracy", "rouge_1", "rouge_2", "rouge_l"),
    *(f"recall@{k}" for k in RECALL_PLACES),
    *(f"mrr@{RANK_DEPTH}", f"ndcg@{RANK_DEPTH}", "answer_in_passages"),
    *("citation_precision", "citation_recall", "attribution_precision", "attribution_recall"),
    *("answered", "abstention_accuracy"),
)
"""Metrics that are means of what each record says."""

POOLED = ("bleu", "macro_f1", "calibration_error", "brier", "auroc", "aurc")
"""Metrics that only many questions have."""

METRICS = (*MEANS, *POOLED)
LOWER_IS_BETTER = frozenset({"calibration_error", "brier", "aurc"})


def statistics_of(records: Sequence[Record]) -> dict[str, Statistic]:
    """Every metric that some question defines, in the order of `METRICS`."""
    found = {name: mean([r.values.get(name, np.nan) for r in records]) for name in MEANS}
    defined = {name for record in records for name in record.values}
    kept = {name: statistic for name, statistic in found.items() if name in defined}
    return kept | _bleu(records) | _labels(records) | _confidence(records)


def _bleu(records: Sequence[Record]) -> dict[str, Statistic]:
    counts = {place: r.bleu for place, r in enumerate(records) if r.bleu is not None}
    if not counts:
        return {}
    return {"bleu": _over(list(counts), bleu_statistic(list(counts.values())))}


def _labels(records: Sequence[Record]) -> dict[str, Statistic]:
    labelled = [place for place, record in enumerate(records) if record.label]
    if not labelled:
        return {}
    answers = [normalised(records[i].answer, language=records[i].language) for i in labelled]
    labels = [normalised(records[i].label, language=records[i].language) for i in labelled]
    return {"macro_f1": _over(labelled, macro_f1_statistic(answers, labels))}


def _confidence(records: Sequence[Record]) -> dict[str, Statistic]:
    answered = answered_places(records)
    if not answered:
        return {}
    sure = [records[place].confidence for place in answered]
    right = [records[place].correct for place in answered]
    errors = [(p - q) ** 2 for p, q in zip(sure, right, strict=True)]
    found = {
        "calibration_error": calibration_error_statistic(sure, right),
        "brier": mean(errors),
        "auroc": auroc_statistic(sure, right),
        "aurc": aurc_statistic(sure, right),
    }
    return {name: _over(answered, statistic) for name, statistic in found.items()}


def answered_places(records: Sequence[Record]) -> list[int]:
    """Where the questions stand that were answered and whose answer can be right or wrong."""
    return [
        place
        for place, record in enumerate(records)
        if not record.abstained and "exact_match" in record.values
    ]


def _over(places: Sequence[int], statistic: Statistic) -> Statistic:
    """A statistic of some of the questions as one of all."""
    chosen = np.asarray(places)

    def of_all(weights: Weights) -> Values:
        return statistic(weights[:, chosen])

    return of_all
