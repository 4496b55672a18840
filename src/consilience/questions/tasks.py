"""The table of tasks: what each asks of a text or a store, how its answer looks, how it is scored.

Every task is a question over passages, so one model does them all and none needs a head of its own:
a summary is the answer to "Summarise the text.", a sentiment the likelier of two answers. A task is
asked without an example (zero-shot) or with one before the question (one-shot).

The table is closed: names in files are looked up here and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from consilience.errors import UsageError
from consilience.questions.question import Question

TaskName = Literal[
    "qa",
    "dialogue",
    "summarisation",
    "generation",
    "translation",
    "classification",
    "sentiment",
    "fact_checking",
    "recommendation",
]
MetricName = Literal["f1", "rouge_l", "bleu", "accuracy"]
Texts = Mapping[str, str]
"""A text in each language, by `zh` and `en`."""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        name: Its name in files and on the command line.
        prompt: How the question is put, by language; `{question}` is the user's own words.
        metric: What it is scored by.
        retrieves: Whether passages come from the store; otherwise the question's context is read.
        labels: The answers that there are, by language; empty where any text may be one.
    """

    name: TaskName
    prompt: Texts
    metric: MetricName
    retrieves: bool = False
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _texts(en: str, zh: str) -> Texts:
    return MappingProxyType({"en": en, "zh": zh})


_AS_ASKED = _texts("{question}", "{question}")

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("qa", _AS_ASKED, "f1", retrieves=True),
            Task("dialogue", _AS_ASKED, "f1", retrieves=True),
            Task("summarisation", _texts("Summarise the text.", "概括这段文字。"), "rouge_l"),
            Task(
                "generation",
                _texts("Write about: {question}", "请写一段关于以下内容的文字：{question}"),
                "rouge_l",
                retrieves=True,
            ),
            Task(
                "translation",
                _texts("Translate the text into English.", "把这段文字译成中文。"),
                "bleu",
            ),
            Task(
                "classification",
                _texts("Which kind of text is this? {question}", "这段文字属于哪一类？{question}"),
                "accuracy",
            ),
            Task(
                "sentiment",
                _texts("Is the text positive or negative?", "这段文字的态度是正面还是负面？"),
                "accuracy",
                labels={"en": ("positive", "negative"), "zh": ("正面", "负面")},
            ),
            Task(
                "fact_checking",
                _texts(
                    "Is this supported or refuted? {question}", "以下说法是支持还是反对？{question}"
                ),
                "accuracy",
                retrieves=True,
                labels={"en": ("supported", "refuted"), "zh": ("支持", "反对")},
            ),
            Task(
                "recommendation",
                _texts("What fits this wish? {question}", "什么适合以下需求？{question}"),
                "accuracy",
                retrieves=True,
            ),
        )
    }
)
"""Every task, by name."""


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}", hint=f"choose one of: {', '.join(TASKS)}")
    return TASKS[name]


def put(task: Task, question: Question, *, example: Question | None = None) -> Question:
    """The question as the task puts it.

    Args:
        task: Which.
        question: The user's question; its language chooses the prompt's, `en` where it has none.
        example: A question with an answer to show first (one-shot); None for zero-shot.

    Returns:
        The same question in the task's words.

    Raises:
        UsageError: The example has no answer.
    """
    asked = _prompt(task, question)
    if example is not None:
        if not example.answers:
            raise UsageError(
                f"the example {example.question!r} has no answer", hint="show one that has"
            )
        shown = " ".join(filter(None, [example.context, _prompt(task, example)]))
        asked = f"{shown} → {example.answers[0]}\n{asked}"
    return replace(question, question=asked)


def labels_of(task: Task, question: Question, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The answers that the question may have, in its language; empty where any text may be one.

    Args:
        task: Which.
        question: Whose language counts.
        known: Labels of the data at hand, for tasks whose labels are the data's own.
    """
    if task.labels:
        return task.labels.get(question.language, task.labels["en"])
    return known if task.metric == "accuracy" else ()


def _prompt(task: Task, question: Question) -> str:
    text = task.prompt.get(question.language, task.prompt["en"])
    return text.format(question=question.question).strip()
