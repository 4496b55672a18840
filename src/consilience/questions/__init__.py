"""Questions with their answers: what training learns from and evaluation asks."""

from consilience.questions.context import Context, context_id
from consilience.questions.frames import questions_of_frame
from consilience.questions.question import Question, Turn
from consilience.questions.read import read_contexts, read_questions
from consilience.questions.write import write_questions

__all__ = [
    "Context",
    "Question",
    "Turn",
    "context_id",
    "questions_of_frame",
    "read_contexts",
    "read_questions",
    "write_questions",
]
