import math

import pytest

from consilience.evaluation.scoring import Outcome, Scoring, scored
from consilience.questions import Question
from tests.evaluation.made import answer, passage

FEE = passage("p1", "The fee is 19 yuan.", "fees.md")
HOURS = passage("p2", "Visits begin at 14:30.", "visits.md")
MORE = passage("p3", "The fee falls in May.", "fees.md")
RANKING = (HOURS, FEE, MORE)
PLAIN = Scoring(overlap=False)


def test_a_question_with_answers() -> None:
    question = Question("What is the fee?", ("19 yuan",), language="en")
    outcome = Outcome(answer("19 yuan", FEE, HOURS, read=RANKING, confidence=0.8), RANKING)
    found = scored("q", question, outcome, PLAIN)
    assert found.values == {
        "exact_match": 1.0,
        "f1": 1.0,
        "recall@1": 0.0,
        "recall@5": 1.0,
        "recall@20": 1.0,
        "mrr@10": 0.5,
        "ndcg@10": pytest.approx(1 / math.log2(3)),
        "answer_in_passages": 1.0,
        "citation_precision": 0.5,
        "citation_recall": 1.0,
        "attribution_recall": 1.0,
        "attribution_precision": 0.5,
        "answered": 1.0,
        "abstention_accuracy": 1.0,
    }
    assert (found.gold_ranks, found.gold_total) == ((2,), 1)
    assert [(one.id, one.gold, one.cited) for one in found.readings] == [
        ("p2", "", True),
        ("p1", "answer", True),
        ("p3", "", False),
    ]
    assert found.bleu is None
    assert found.correct


def test_named_passages_are_gold_and_a_source_counts_once() -> None:
    question = Question("?", ("19 yuan",), positive_ids=("fees.md", "p9"), language="en")
    outcome = Outcome(answer("19 yuan", FEE, MORE, read=RANKING), RANKING)
    values = scored("q", question, outcome, PLAIN).values
    assert values["recall@5"] == 0.5  # one of two things, though two passages are of it
    assert values["mrr@10"] == 0.5
    assert values["citation_precision"] == 1.0
    assert values["citation_recall"] == 0.5


def test_the_id_of_a_passage_is_a_name_too() -> None:
    question = Question("?", (), positive_ids=("p3",), language="en")
    found = scored("q", question, Outcome(answer("x", MORE), RANKING), PLAIN)
    assert found.gold_ranks == (3,)
    assert "exact_match" not in found.values


def test_what_only_the_answer_cites_is_read_too() -> None:
    found = scored("q", Question("?", ("a",)), Outcome(answer("x", FEE), (HOURS,)), PLAIN)
    assert [one.id for one in found.readings] == ["p1"]


def test_an_unanswerable_question() -> None:
    question = Question("Who is king?", unanswerable=True, language="en")
    wise = scored("q", question, Outcome(answer("", read=RANKING), RANKING), PLAIN)
    assert wise.values == {
        "exact_match": 1.0,
        "f1": 1.0,
        "answered": 0.0,
        "abstention_accuracy": 1.0,
    }
    rash = scored("q", question, Outcome(answer("Ada", FEE), RANKING), PLAIN)
    assert (rash.values["exact_match"], rash.values["abstention_accuracy"]) == (0.0, 0.0)


def test_where_there_is_no_answer_nothing_is_to_be_found() -> None:
    question = Question("Who is king?", label="none", unanswerable=True, language="en")
    found = scored("q", question, Outcome(answer("", read=RANKING), RANKING), PLAIN)
    assert found.gold_total == 0
    assert "recall@5" not in found.values


def test_a_withheld_answer_cites_nothing() -> None:
    question = Question("What is the fee?", ("19 yuan",), language="en")
    values = scored("q", question, Outcome(answer("", read=RANKING), RANKING), PLAIN).values
    assert (values["f1"], values["answered"], values["abstention_accuracy"]) == (0.0, 0.0, 0.0)
    assert values["answer_in_passages"] == 1.0
    assert not {"citation_precision", "citation_recall", "attribution_recall"} & values.keys()


def test_a_label_is_right_or_wrong() -> None:
    question = Question("Is there a fee?", label="yes", language="en")
    found = scored("q", question, Outcome(answer("Yes.", FEE), RANKING), PLAIN)
    assert (found.values["accuracy"], found.answers) == (1.0, ("yes",))


def test_nothing_is_known_of_the_answer() -> None:
    found = scored("q", Question("Why?", language="en"), Outcome(answer("x", FEE), RANKING), PLAIN)
    assert found.values.keys() == {"attribution_recall", "attribution_precision", "answered"}


def test_overlap_is_measured_on_demand_and_in_the_language_of_the_question() -> None:
    question = Question("年假几天？", ("五天",), language="zh")
    found = scored("q", question, Outcome(answer("五天年假", FEE), ()), Scoring())
    assert found.values["rouge_1"] == pytest.approx(2 / 3)
    assert found.bleu is not None
    assert found.bleu.length == 4


def test_the_language_is_told_by_the_question_where_it_is_not_given() -> None:
    found = scored("q", Question("年假几天？", ("五天",)), Outcome(answer("五天"), ()), PLAIN)
    assert found.language == "zh"


def test_a_shallow_ranking_has_no_deep_measures() -> None:
    question = Question("What is the fee?", ("19 yuan",), language="en")
    outcome = Outcome(answer("19 yuan", FEE), RANKING)
    values = scored("q", question, outcome, Scoring(overlap=False, depth=5)).values
    assert {"recall@1", "recall@5"} <= values.keys()
    assert not {"recall@20", "mrr@10", "ndcg@10"} & values.keys()


def test_another_judge() -> None:
    how = Scoring(overlap=False, judge=lambda text, statement: False)
    values = scored("q", Question("?", ("a",)), Outcome(answer("19", FEE), RANKING), how).values
    assert values["attribution_recall"] == 0.0
