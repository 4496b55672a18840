"""Sets for open-domain questions: DPR's with passages to tell apart, and KILT's with provenance.

Dense Passage Retrieval (Karpukhin et al., 2020): `positive_ctxs`, `negative_ctxs` and
`hard_negative_ctxs` are passages with their text. A passage that has no id gets `context_id` of its
title and text, the same that `contexts_with` gives it. KILT (Petroni et al., 2021): `input`, and
under `output` answers and the pages that they were read on.
"""

from consilience.questions.context import Context, context_id
from consilience.questions.fields import Fields
from consilience.questions.question import Question
from consilience.questions.records import language

POSITIVE = "positive_ctxs"
NEGATIVE = ("hard_negative_ctxs", "negative_ctxs")


def dpr_question(record: Fields) -> Question:
    """A question of DPR: its first positive passage is its context."""
    question = record.required("question")
    positives = contexts_of(record, POSITIVE)
    negatives = [found for key in NEGATIVE for found in contexts_of(record, key)]
    return Question(
        question=question,
        answers=record.texts("answers"),
        id=record.name("id"),
        context=positives[0].text if positives else "",
        title=positives[0].title if positives else "",
        positive_ids=_ids(positives),
        negative_ids=_ids(negatives),
        language=language(record, question),
    )


def contexts_of(record: Fields, key: str) -> list[Context]:
    """The passages under a key of a DPR record."""
    return [_context(found) for found in record.objects(key)]


def contexts_with(record: Fields) -> list[Context]:
    """Every passage that comes with a question: those of DPR, else its context."""
    found = [each for key in (POSITIVE, *NEGATIVE) for each in contexts_of(record, key)]
    text, title = record.text("context"), record.text("title")
    return [*found, Context(context_id(text, title=title), title, text)] if text else found


def _context(found: Fields) -> Context:
    title, text = found.text("title"), found.required("text")
    given = found.name("passage_id") or found.name("psg_id") or found.name("id")
    return Context(given or context_id(text, title=title), title, text)


def _ids(contexts: list[Context]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(context.id for context in contexts))


def kilt_question(record: Fields) -> Question:
    """A question of KILT; its positives are the pages of the provenance."""
    question = record.required("input")
    outputs = record.objects("output")
    answers = (output.text("answer") for output in outputs)
    pages = (page for output in outputs for page in output.objects("provenance"))
    found = [(page.name("wikipedia_id"), page.text("title")) for page in pages]
    return Question(
        question=question,
        answers=tuple(dict.fromkeys(answer for answer in answers if answer.strip())),
        id=record.name("id"),
        title=next((title for _, title in found if title), ""),
        positive_ids=tuple(dict.fromkeys(name for name, _ in found if name)),
        language=language(record, question),
    )
