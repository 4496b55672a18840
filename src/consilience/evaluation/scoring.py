"""One answer against what is known of its question: every measure that this question defines.

A ranking has gold things in it. Where the question names passages, these are gold, by id or by
source, and a source counts once however many of its passages are found. Where it does not, there is
one gold thing: the answer, found at the first passage that holds it, as in open-domain retrieval
(Karpukhin et al., 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consilience.evaluation.answers import exact_match, f1
from consilience.evaluation.overlap import bleu_counts, rouge
from consilience.evaluation.ranking import ndcg_at, recall_at, reciprocal_rank_at
from consilience.evaluation.records import Reading, Record
from consilience.evaluation.summary import RANK_DEPTH, RECALL_PLACES
from consilience.evaluation.support import Judge, attribution, holds_answer, words_contained
from consilience.text import language_of

if TYPE_CHECKING:
    from consilience.documents import Passage
    from consilience.model import Answer
    from consilience.questions import Question

ANSWER = "answer"
"""The name of the one gold thing of a question that names no passages."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How an answer is measured.

    Attributes:
        overlap: Whether ROUGE and BLEU are measured, which need packages of their own.
        judge: Who says whether what is cited supports the answer.
        depth: How many places of the ranking there are, at most.
    """

    overlap: bool = True
    judge: Judge = words_contained
    depth: int = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question.

    Attributes:
        answer: What was answered.
        ranking: The passages proposed, the best first.
    """

    answer: "Answer"
    ranking: Sequence["Passage"]


@dataclass(frozen=True, slots=True)
class _Gold:
    """What would be gold in a ranking.

    Attributes:
        wanted: Names of passages or sources; if empty, the answer is what is looked for.
        right: Answers that a passage may hold; empty where none is known or there is none.
    """

    wanted: frozenset[str]
    right: Sequence[str]

    @property
    def total(self) -> int:
        """How many gold things there are; 0 if none is known."""
        return len(self.wanted) or int(bool(self.right))

    def name(self, passage: "Passage") -> str:
        """The gold thing that a passage is or holds; empty for none."""
        if self.wanted:
            return next((n for n in (passage.id, passage.source) if n in self.wanted), "")
        return ANSWER if self.right and holds_answer(passage.text, self.right) else ""


def scored(name: str, question: "Question", outcome: Outcome, how: Scoring) -> Record:
    """The record of a question.

    Args:
        name: Its id in the run.
        question: What was asked and what is right.
        outcome: What became of it.
        how: How it is measured.

    Raises:
        DependencyError: A package that `how` needs is not installed.
    """
    answer = outcome.answer
    right = question.answers or ((question.label,) if question.label else ())
    language = question.language or language_of(question.question)
    gold = _Gold(frozenset(question.positive_ids), () if question.unanswerable else right)
    names = [gold.name(passage) for passage in outcome.ranking]
    found = tuple(bool(one) and one not in names[:place] for place, one in enumerate(names))
    readings = _readings(outcome, gold)
    measured = bool(right) or question.unanswerable
    values = _answer_values(answer, right, language) if measured else {}
    if right and how.overlap:
        values |= _rouge_values(answer.text, right)
    if question.label:
        values["accuracy"] = exact_match(answer.text, [question.label], language=language)
    values |= _ranking_values(found, gold.total, how.depth)
    values |= _citation_values(readings, gold.total)
    values |= _attribution_values(answer, how.judge) | _abstention_values(answer, question, right)
    return Record(
        id=name,
        question=question.question,
        answers=tuple(right),
        label=question.label,
        language=language,
        unanswerable=question.unanswerable,
        answer=answer.text,
        abstained=answer.abstained,
        confidence=answer.confidence,
        readings=readings,
        gold_ranks=tuple(rank for rank, one in enumerate(found, start=1) if one),
        gold_total=gold.total,
        values=values,
        bleu=bleu_counts(answer.text, right, language=language) if right and how.overlap else None,
        timings_ms=answer.timings_ms,
    )


def _readings(outcome: Outcome, gold: _Gold) -> tuple[Reading, ...]:
    """The passages that carry a share of the answer or are cited, in the order of the ranking."""
    answer = outcome.answer
    cited = {citation.passage.id: citation.passage for citation in answer.citations}
    passages = {passage.id: passage for passage in outcome.ranking} | cited
    return tuple(
        Reading(
            id=name,
            source=passage.source,
            title=passage.title,
            text=passage.text,
            posterior=answer.posterior.get(name),
            cited=name in cited,
            gold=gold.name(passage),
        )
        for name, passage in passages.items()
        if name in answer.posterior or name in cited
    )


def _answer_values(answer: "Answer", right: Sequence[str], language: str) -> dict[str, float]:
    return {
        "exact_match": exact_match(answer.text, right, language=language),
        "f1": f1(answer.text, right, language=language),
    }


def _rouge_values(text: str, right: Sequence[str]) -> dict[str, float]:
    found = rouge(text, right)
    return {"rouge_1": found.rouge_1, "rouge_2": found.rouge_2, "rouge_l": found.rouge_l}


def _ranking_values(found: Sequence[bool], total: int, depth: int) -> dict[str, float]:
    if not total:
        return {}
    values = {
        f"recall@{k}": recall_at(k, found, relevant=total) for k in RECALL_PLACES if k <= depth
    }
    if depth >= RANK_DEPTH:
        values[f"mrr@{RANK_DEPTH}"] = reciprocal_rank_at(RANK_DEPTH, found)
        values[f"ndcg@{RANK_DEPTH}"] = ndcg_at(RANK_DEPTH, found, relevant=total)
    return values


def _citation_values(readings: Sequence[Reading], total: int) -> dict[str, float]:
    """Whether gold was read, and how what is cited agrees with it."""
    if not total:
        return {}
    values = {"answer_in_passages": float(any(one.gold for one in readings))}
    cited = [one.gold for one in readings if one.cited]
    if cited:
        values["citation_precision"] = sum(map(bool, cited)) / len(cited)
        values["citation_recall"] = len(set(cited) - {""}) / total
    return values


def _attribution_values(answer: "Answer", judge: Judge) -> dict[str, float]:
    found = attribution(answer.text, [c.passage.text for c in answer.citations], judge=judge)
    if found is None:
        return {}
    values = {"attribution_recall": found.recall}
    return (
        values if found.precision is None else values | {"attribution_precision": found.precision}
    )


def _abstention_values(
    answer: "Answer", question: "Question", right: Sequence[str]
) -> dict[str, float]:
    """Whether something was answered, and whether that was wise."""
    values = {"answered": float(not answer.abstained)}
    if right or question.unanswerable:
        values["abstention_accuracy"] = float(answer.abstained == question.unanswerable)
    return values
