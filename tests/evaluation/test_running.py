"""Whole evaluations of a tiny model; its answers are nonsense, and every number must still hold."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import consilience as cs
from consilience.errors import UsageError
from consilience.evaluation import EvaluationOptions, Resampling, Scoring, exact_match, read_run
from consilience.model import AskOptions
from consilience.questions import Question, Turn
from consilience.questions.tasks import task_named

SHORT = AskOptions(k=2, beams=1, max_new_tokens=3)
OPTIONS = EvaluationOptions(
    ask=SHORT, scoring=Scoring(overlap=False), resampling=Resampling(resamples=20)
)
QUESTIONS = (
    Question("When may visitors come?", ("14:30",), id="q1", language="en"),
    Question("年假几天？", ("五天",), id="q2", positive_ids=("leave",), language="zh"),
    Question("Is there a fee?", label="yes", language="en"),
    Question("Who is king?", id="q1", unanswerable=True, language="en"),
)


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> cs.Rag:
    return cs.Rag.load(tiny_model_folder)


@pytest.fixture
def store(rag: cs.Rag, tmp_path: Path) -> Iterator[cs.Store]:
    with cs.Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(
            cs.Document("Visitors may come from 14:30. The fee is 19 yuan.", source="visits"),
            cs.Document("员工每年有五天年假。", source="leave"),
        )
        yield opened


def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, AskOptions]]:
    """What the model is asked from now on."""
    heard: list[tuple[str, AskOptions]] = []
    real = cs.Rag.ask

    def ask(self: cs.Rag, question: str, store: cs.Store, options: AskOptions) -> cs.Answer:
        heard.append((question, options))
        return real(self, question, store, options)

    monkeypatch.setattr(cs.Rag, "ask", ask)
    return heard


def test_every_question_is_answered_as_anyones(rag: cs.Rag, store: cs.Store) -> None:
    found = cs.evaluate(rag, store, QUESTIONS, OPTIONS)
    assert [one.id for one in found.records] == ["q1", "q2", "3", "q1#2"]
    for one, question in zip(found.records, QUESTIONS, strict=True):
        answer = rag.ask(question.question, store, SHORT)
        assert (one.answer, one.confidence) == (answer.text, answer.confidence)
        assert {r.id for r in one.readings} == set(answer.posterior)
        assert one.values["exact_match"] == exact_match(
            answer.text, one.answers, language=question.language
        )
    mean = sum(one.values["exact_match"] for one in found.records) / 4
    assert found.metrics["exact_match"] == mean
    assert found.records[1].gold_total == 1
    assert (found.n, found.resumed) == (4, 0)


def test_the_ranking_is_looked_up_deeper_than_is_read(rag: cs.Rag, store: cs.Store) -> None:
    options = replace(OPTIONS, ask=replace(SHORT, k=1, mode="bm25"))
    found = cs.evaluate(rag, store, [replace(QUESTIONS[0], question="年假 visitors")], options)
    (one,) = found.records
    assert len(one.readings) == 1
    assert one.values["recall@20"] == 1.0


def test_a_run_is_written_as_it_goes(rag: cs.Rag, store: cs.Store, tmp_path: Path) -> None:
    path, told = tmp_path / "run.jsonl", []

    def progress(done: int, total: int) -> None:
        told.append((done, total, len(read_run(path).records)))

    found = cs.evaluate(rag, store, QUESTIONS, OPTIONS, run=path, progress=progress)
    assert told == [(1, 4, 1), (2, 4, 2), (3, 4, 3), (4, 4, 4)]
    assert read_run(path).records == found.records


def test_an_interrupted_run_goes_on_to_the_same_end(
    rag: cs.Rag, store: cs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.evaluate(rag, store, QUESTIONS, OPTIONS, run=path, progress=stop)
    heard = asked(monkeypatch)
    found = cs.evaluate(rag, store, QUESTIONS, OPTIONS, run=path)
    assert [question for question, _ in heard] == ["Is there a fee?", "Who is king?"]
    whole = cs.evaluate(rag, store, QUESTIONS, OPTIONS)
    assert found.resumed == 2
    assert (found.metrics, found.intervals) == (whole.metrics, whole.intervals)


def test_a_complete_run_is_summed_up_again(
    rag: cs.Rag, store: cs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    first = cs.evaluate(rag, store, QUESTIONS, OPTIONS, run=path)
    before, heard = path.read_bytes(), asked(monkeypatch)
    other = replace(OPTIONS, resampling=Resampling(resamples=20, seed=5))
    again = cs.evaluate(rag, store, QUESTIONS, other, run=path)
    assert (heard, path.read_bytes()) == ([], before)
    assert again.metrics == first.metrics


def changed_model(rag: cs.Rag, tiny_model_folder: Path) -> cs.Rag:
    other = cs.Rag.load(tiny_model_folder)
    with torch.no_grad():
        next(other.model.parameters()).add_(1.0)
    return other


@pytest.mark.parametrize(
    ("questions", "options", "what"),
    [
        (QUESTIONS[:3], OPTIONS, "data"),
        (QUESTIONS, replace(OPTIONS, ask=replace(SHORT, k=1)), "ask"),
        (QUESTIONS, replace(OPTIONS, scoring=Scoring(overlap=False, depth=5)), "scoring"),
    ],
)
def test_a_run_of_other_things_is_refused(
    rag: cs.Rag,
    store: cs.Store,
    tmp_path: Path,
    questions: Sequence[Question],
    options: EvaluationOptions,
    what: str,
) -> None:
    path = tmp_path / "run.jsonl"
    cs.evaluate(rag, store, QUESTIONS, OPTIONS, run=path)
    with pytest.raises(UsageError, match=f"is a run of something else: {what} was "):
        cs.evaluate(rag, store, questions, options, run=path)


def test_a_changed_model_or_store_is_noticed(
    rag: cs.Rag, store: cs.Store, tmp_path: Path, tiny_model_folder: Path
) -> None:
    path = tmp_path / "run.jsonl"
    cs.evaluate(rag, store, QUESTIONS[:1], OPTIONS, run=path)
    other = changed_model(rag, tiny_model_folder)
    with pytest.raises(UsageError, match="something else: model was "):
        cs.evaluate(other, store, QUESTIONS[:1], OPTIONS, run=path)
    store.add(cs.Document("More.", source="more"))
    with pytest.raises(UsageError, match="something else: store was "):
        cs.evaluate(rag, store, QUESTIONS[:1], OPTIONS, run=path)


def test_history_goes_with_its_question(
    rag: cs.Rag, store: cs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = asked(monkeypatch)
    question = replace(QUESTIONS[0], history=(Turn("Who may come?", "visitors"),))
    (one,) = cs.evaluate(rag, store, [question], OPTIONS).records
    assert [(t.question, t.answer) for t in heard[0][1].history] == [("Who may come?", "visitors")]
    assert one.question == "When may visitors come?"


CONTEXTS = (
    Question("When?", ("14:30",), context="Visitors may come from 14:30.", title="Visits"),
    Question("How much?", ("19 yuan",), context="The fee is 19 yuan.", title="Fees"),
    Question("What fee?", ("19 yuan",), context="The fee is 19 yuan.", title="Fees"),
)


def test_without_a_store_each_question_reads_its_own_context(rag: cs.Rag) -> None:
    found = cs.evaluate(rag, None, CONTEXTS, OPTIONS)
    texts = [[reading.text for reading in one.readings] for one in found.records]
    assert texts == [[one.context] for one in CONTEXTS]
    assert found.metrics["answer_in_passages"] == 1.0
    assert found.setup["store"] is None


def test_a_question_without_a_context_cannot_be_read(rag: cs.Rag) -> None:
    with pytest.raises(UsageError) as caught:
        cs.evaluate(rag, None, [*CONTEXTS, QUESTIONS[0]], OPTIONS)
    assert caught.value.message == (
        "1 of 4 questions have no context; the first is number 4: 'When may visitors come?'"
    )
    assert "--store DIR" in caught.value.hint


def test_no_questions(rag: cs.Rag, store: cs.Store) -> None:
    with pytest.raises(UsageError, match="there are no questions to evaluate"):
        cs.evaluate(rag, store, [], OPTIONS)


def test_a_question_that_cannot_be_asked_is_named(rag: cs.Rag, store: cs.Store) -> None:
    long = Question("x" * 4001, ("a",), id="long")
    with pytest.raises(UsageError, match="question long: the question has 4001 characters"):
        cs.evaluate(rag, store, [long], OPTIONS)


def test_the_json_form_is_json(rag: cs.Rag, store: cs.Store) -> None:
    found = cs.evaluate(rag, store, QUESTIONS, EvaluationOptions(ask=SHORT)).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"bleu", "rouge_l", "accuracy", "recall@5"} <= found["metrics"].keys()


class TestTasks:
    def test_questions_are_put_as_the_task_does(
        self, rag: cs.Rag, store: cs.Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard = asked(monkeypatch)
        questions = [
            Question("Fees are charged.", label="supported", language="en"),
            Question("It is late.", label="refuted", language="en"),
        ]
        how = replace(OPTIONS, task=task_named("fact_checking"))
        found = cs.evaluate(rag, store, questions, how)
        assert [text for text, _ in heard] == [
            "Is this supported or refuted? Fees are charged.",
            "Is this supported or refuted? It is late.",
        ]
        assert [how.among for _, how in heard] == [("supported", "refuted")] * 2
        given = [one.answer for one in found.records if not one.abstained]
        assert given
        assert set(given) <= {"supported", "refuted"}
        assert 0 <= found.metrics["accuracy"] <= 1
        assert found.setup["task"] == "fact_checking"

    def test_labels_are_those_of_the_data_where_the_task_has_none(
        self, rag: cs.Rag, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard = asked(monkeypatch)
        questions = [
            Question("?", label=label, context="Visitors may come.", language="en")
            for label in ("ward", "bank", "ward")
        ]
        cs.evaluate(rag, None, questions, replace(OPTIONS, task=task_named("classification")))
        assert [how.among for _, how in heard] == [("bank", "ward")] * 3

    def test_an_example_is_shown_before_each_question(
        self, rag: cs.Rag, store: cs.Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard = asked(monkeypatch)
        example = Question("Is it late?", ("yes",), context="It is ten.", language="en")
        how = replace(OPTIONS, task=task_named("qa"), example=example)
        cs.evaluate(rag, store, QUESTIONS[:1], how)
        assert [text for text, _ in heard] == [
            "It is ten. Is it late? → yes\nWhen may visitors come?"
        ]

    def test_an_example_without_a_task_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"^an example is shown for a task only$"):
            EvaluationOptions(example=QUESTIONS[0])
