import pytest

from consilience.errors import UsageError
from consilience.questions import Question
from consilience.questions.tasks import TASKS, labels_of, put, task_named


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_task_puts_its_question_in_both_languages(name: str, language: str) -> None:
    task = task_named(name)
    asked = put(task, Question("who pays {them}", language=language)).question
    assert asked
    if "{question}" in task.prompt[language]:
        assert "who pays {them}" in asked


def test_an_example_is_shown_before_the_question() -> None:
    task = task_named("sentiment")
    example = Question("", ("negative",), context="The soup was cold.", language="en")
    asked = put(task, Question("", context="Lovely.", language="en"), example=example)
    assert asked.question == (
        "The soup was cold. Is the text positive or negative? → negative\n"
        "Is the text positive or negative?"
    )
    assert asked.context == "Lovely."
    with pytest.raises(UsageError, match="has no answer"):
        put(task, Question("a"), example=Question("b"))


def test_labels_are_those_of_the_language_or_of_the_data() -> None:
    assert labels_of(task_named("sentiment"), Question("", language="zh")) == ("正面", "负面")
    assert labels_of(task_named("sentiment"), Question("")) == ("positive", "negative")
    assert labels_of(task_named("classification"), Question(""), ("a", "b")) == ("a", "b")
    assert labels_of(task_named("qa"), Question(""), ("a", "b")) == ()


def test_an_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown task 'dance'") as caught:
        task_named("dance")
    assert "summarisation" in caught.value.hint
