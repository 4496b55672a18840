"""Text as tokens, sentences and passages, in Chinese and English, always by offsets."""

from consilience.text.analyzer import TOKENS, analyze, analyze_question
from consilience.text.language import language_of
from consilience.text.normalise import fold_han
from consilience.text.passages import PassageSize, split_passages
from consilience.text.sentences import split_sentences
from consilience.text.span import Span

__all__ = [
    "TOKENS",
    "PassageSize",
    "Span",
    "analyze",
    "analyze_question",
    "fold_han",
    "language_of",
    "split_passages",
    "split_sentences",
]
