"""What a question is: words, answers, and what is known of where the answer stands.

One shape for every source; a format that says less leaves fields empty. It knows nothing of files,
tokens or stores: `positive_ids` are names that mean something to whoever made them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier question of a conversation and the answer it got."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what is known about its answer.

    Attributes:
        question: What is asked, as it was typed.
        answers: Every wording that counts as right; empty where none is known or there is none.
        id: Its name in the set it came from.
        context: The text that the answer should be read in; empty where it must be retrieved.
        title: Of the context.
        positive_ids: Passages that hold the answer.
        negative_ids: Passages that look as if they did and do not.
        history: Earlier turns of the conversation, the oldest first.
        user: Who asked, for personal data.
        label: The class, for classification.
        language: `zh`, `en`, or empty when it is neither.
        unanswerable: Whether the context, or the store, is known not to hold an answer.
    """

    question: str
    answers: tuple[str, ...] = ()
    id: str = ""
    context: str = ""
    title: str = ""
    positive_ids: tuple[str, ...] = ()
    negative_ids: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    user: str = ""
    label: str = ""
    language: str = ""
    unanswerable: bool = False
