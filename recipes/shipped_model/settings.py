"""The settings of the finished weights, chosen on questions of the train sets that were kept back.

Confidence: by language, the support below which an answer is withheld is the one that tells
questions with an answer from those without best (the largest sum of the two shares told rightly;
Youden, 1950). Hybrid search: the share of the dense half and the temperature of the prior are those
with which the right passages stand highest, see `consilience.evaluation.tuning`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import SETS, gold
from mixture import Row, kept_rows
from passages import kept_questions

from consilience.evaluation.tuning import LEAST, TuneOptions, tune
from consilience.model import Rag
from consilience.model.decoding import DecodingOptions
from consilience.retrieval import HybridWeights
from consilience.store import Store

FEWEST = 5
"""Questions of a kind below which a language gets no threshold."""


def best_threshold(answerable: Sequence[float], others: Sequence[float]) -> float:
    """The support from which on an answer is given, see the head of this file.

    Args:
        answerable: Supports of questions that the passage answers, at least one.
        others: Supports of questions that it does not answer, at least one.
    """

    def told_rightly(threshold: float) -> float:
        given = sum(one >= threshold for one in answerable) / len(answerable)
        withheld = sum(one < threshold for one in others) / len(others)
        return given + withheld

    return max(sorted({*answerable, *others}), key=told_rightly)


def swapped(rows: Sequence[Row]) -> list[Row]:
    """Questions over passages of other subjects, which do not hold their answers."""
    shifted = [*rows[len(rows) // 2 :], *rows[: len(rows) // 2]]
    pairs = zip(rows, shifted, strict=True)
    return [
        row | {"context": other["context"], "title": other["title"]}
        for row, other in pairs
        if not any(answer in other["context"] for answer in row["answers"])
    ]


def thresholds(rag: Rag, data: Path, *, most: int, beams: int) -> dict[str, float]:
    """The least support by language; a language with too few questions withholds nothing."""
    options, found = DecodingOptions(beams=beams), {}
    for language in ("zh", "en"):
        right: list[float] = []
        wrong: list[float] = []
        for name in (name for name, spoken in SETS.items() if spoken == language):
            rows = kept_rows(data, name)[:most]
            right += gold(rag, name, rows, options)["support"]
            wrong += gold(rag, name, swapped(rows), options)["support"]
        if language == "en":
            rows = kept_rows(data, "squad_v2_unanswerable")[:most]
            wrong += gold(rag, "squad_v2_unanswerable", rows, options)["support"]
        if min(len(right), len(wrong)) >= FEWEST:
            # Rounded down: an answer that stood at the threshold is still given.
            found[language] = math.floor(100 * best_threshold(right, wrong)) / 100
    return found | ({"other": found["en"]} if "en" in found else {})


def searching(rag: Rag, data: Path, knowledge: Path, *, most: int) -> dict[str, Any]:
    """Weights of the hybrid and the temperature of the prior; nothing where too little is known."""
    questions = kept_questions(data)
    if len(questions) < LEAST or rag.encoder is None:
        return {}
    usual = asdict(HybridWeights())
    with Store.open(knowledge, create=False) as store:
        store.re_embed(rag.encoder)
        options = TuneOptions(most=most)
        tuning = tune(store, questions, encoder=rag.encoder, options=options).tuning
    shares = {name: getattr(tuning, name) for name in usual}
    weights = {name: usual[name] if share is None else share for name, share in shares.items()}
    heat = {} if tuning.temperature is None else {"prior_temperature": tuning.temperature}
    return {"hybrid_weights": weights, **heat}
