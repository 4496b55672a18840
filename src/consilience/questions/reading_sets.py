"""Reading comprehension sets: articles, their paragraphs, and questions on each.

SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016, 2018), DRCD (Shao et al., 2018) and the SQuAD-like form
of CMRC 2018 nest `data`, `paragraphs` and `qas`; the first form of CMRC 2018 (Cui et al., 2019) is
a list of paragraphs with names of its own.
"""

from collections.abc import Iterator

from consilience.questions.fields import Fields
from consilience.questions.question import Question
from consilience.questions.records import language


def squad_items(top: Fields) -> Iterator[Fields]:
    """Every question of a SQuAD file, with the context and the title it stands under."""
    for article in top.objects("data", must=True):
        for paragraph in article.objects("paragraphs", must=True):
            context, title = paragraph.text("context"), _title(article.text("title"))
            for qa in paragraph.objects("qas", must=True):
                yield _under(qa, context, title)


def cmrc_items(paragraph: Fields) -> Iterator[Fields]:
    """Every question of one paragraph of CMRC 2018."""
    context, title = paragraph.text("context_text"), paragraph.text("title")
    for qa in paragraph.objects("qas", must=True):
        yield _under(qa, context, title)


def squad_question(item: Fields) -> Question:
    """A question of SQuAD 1.1, SQuAD 2.0, DRCD or CMRC 2018."""
    question = item.required("question")
    unanswerable = item.flag("is_impossible")
    return Question(
        question=question,
        answers=() if unanswerable else _texts(item),
        id=item.name("id"),
        context=item.text("context"),
        title=item.text("title"),
        language=language(item, question),
        unanswerable=unanswerable,
    )


def cmrc_question(item: Fields) -> Question:
    """A question of the first form of CMRC 2018, whose answers are plain texts."""
    question = item.required("query_text")
    return Question(
        question=question,
        answers=item.texts("answers"),
        id=item.name("query_id"),
        context=item.text("context"),
        title=item.text("title"),
        language=language(item, question),
    )


def _texts(item: Fields) -> tuple[str, ...]:
    """The answers of several people, each wording once."""
    return tuple(dict.fromkeys(answer.required("text") for answer in item.objects("answers")))


def _title(written: str) -> str:
    """A title as people write it; SQuAD has underscores where Wikipedia's addresses do."""
    return written if " " in written else written.replace("_", " ")


def _under(qa: Fields, context: str, title: str) -> Fields:
    return Fields(qa.place, {"context": context, "title": title, **qa.values})
