"""The settings of the finished weights, chosen on questions of the train sets that were kept back.

Support: by language, that below which an answer is withheld. Confidence: made of support and
likelihood, so that it is the share of answers that are right. For both see
`consilience.evaluation.fitting`. Hybrid search: the share of the dense half and the temperature of
the prior are those with which the right passages stand highest, see
`consilience.evaluation.tuning`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from measure import SETS
from mixture import Row, kept_rows
from passages import kept_questions, restored

from consilience.evaluation import exact_match
from consilience.evaluation.fitting import Judged, fit_confidence, fit_threshold
from consilience.evaluation.tuning import LEAST, TuneOptions, tune
from consilience.model import AskOptions, Rag
from consilience.model.answering import Clock
from consilience.model.decoding.opening import open_answers
from consilience.retrieval import HybridWeights
from consilience.store import Store

FEWEST = 5
"""Questions of a kind below which a language gets no threshold."""


NOT_OTHERS = 1.0
"""The least support of questions in scripts that the weights were not taught: none are answered."""


def thresholds(rag: Rag, store: Store, data: Path, *, most: int) -> dict[str, float]:
    """The least support by language; a language with too few questions withholds nothing.

    Measured as questions are asked later: of what a search finds. What a question has no answer in
    is the same with its own paragraph taken away, where none of the others holds the answer.

    Args:
        rag: The model, with the settings of its search.
        store: The knowledge base, with the paragraphs that were kept back, in this model's vectors.
        data: The data sets.
        most: Questions of each set.
    """
    found = {}
    for language in ("zh", "en"):
        names = [name for name, spoken in SETS.items() if spoken == language]
        rows = [restored(row, name) for name in names for row in kept_rows(data, name)[:most]]
        right, wrong = _known(support(rag, store, row) for row in rows), _misled(rag, store, rows)
        if language == "en":
            rows = kept_rows(data, "squad_v2_unanswerable")[:most]
            wrong += _known(support(rag, store, row) for row in rows)
        if min(len(right), len(wrong)) >= FEWEST:
            found[language] = fit_threshold(right, wrong)
    return found | {"other": NOT_OTHERS}


def support(
    rag: Rag, store: Store, row: Row, *, without: Callable[[str], bool] = lambda _: False
) -> float | None:
    """p(there is an answer | x) over the passages found, but for some; None where none is left."""
    options, clock = AskOptions(), Clock()
    asked = rag.look_up(row["question"], store, options, clock)
    hits = [hit for hit in asked.hits if not without(hit.passage.text)]
    if not hits:
        return None
    reading = rag.read(replace(asked, hits=hits), options, clock)
    opened = open_answers(reading.generator, reading.memory, reading.log_weights)
    return float(opened.support[0])


def _misled(rag: Rag, store: Store, rows: Sequence[Row]) -> list[float]:
    """Supports of questions whose answers are in no passage that is left."""

    def answering(row: Row, text: str) -> bool:
        return text in row["context"] or any(answer in text for answer in row["answers"])

    return _known(support(rag, store, row, without=partial(answering, row)) for row in rows)


def _known(supports: Iterable[float | None]) -> list[float]:
    return [one for one in supports if one is not None]


def confidence(rag: Rag, store: Store, data: Path, *, most: int) -> dict[str, float]:
    """What the confidence is made of; nothing, so the support alone, where too little is known.

    Args:
        rag: The model, with the settings of its search.
        store: As for `thresholds`.
        data: The data sets.
        most: Questions of each set.
    """
    options, told = AskOptions(abstain=False), []
    for name in (*SETS, "squad_v2_unanswerable"):
        language = SETS.get(name, "en")
        for row in [restored(row, name) for row in kept_rows(data, name)[:most]]:
            answer = rag.ask(row["question"], store, options)
            answers = row["answers"] if name in SETS else []
            right = bool(answers) and exact_match(answer.text, answers, language=language) == 1.0
            told.append(Judged.of(answer, right=right))
    hits = sum(one.right for one in told)
    enough = min(hits, len(told) - hits) >= FEWEST
    return fit_confidence(told).to_settings() if enough else {}


def searching(rag: Rag, store: Store, data: Path, *, most: int) -> dict[str, Any]:
    """Weights of the hybrid and the temperature of the prior; nothing where too little is known."""
    questions = kept_questions(data)
    if len(questions) < LEAST or rag.encoder is None:
        return {}
    usual = asdict(HybridWeights())
    options = TuneOptions(most=most)
    tuning = tune(store, questions, encoder=rag.encoder, options=options).tuning
    shares = {name: getattr(tuning, name) for name in usual}
    weights = {name: usual[name] if share is None else share for name, share in shares.items()}
    heat = {} if tuning.temperature is None else {"prior_temperature": tuning.temperature}
    return {"hybrid_weights": weights, **heat}
