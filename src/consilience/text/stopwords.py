"""Words that carry a question and say nothing about its subject.

Both lists are short because that measured best: rare function words still tell passages apart, and
BM25 gives the common ones little weight by itself. Question words are different, since they stand
in nearly every question and reward passages for containing "which" or 什么 by accident.
"""

_FUNCTION_WORDS = "a an the of and do does did"
_QUESTION_WORDS = "what which who whom whose when where why how"

ENGLISH = frozenset(f"{_FUNCTION_WORDS} {_QUESTION_WORDS}".split())
"""English stop words, in lower case and not stemmed; left out of questions and of passages."""

CHINESE_QUESTION = (
    "是?(?:为什么|什么样|什么|多少|哪一|哪[些个里]|哪|谁|何[时地处人种]|为何|如何|怎么样|怎么|怎样)"
    "|几[个年次月号位种家人名]|请问|是否|吗|呢|的"
)
"""A regular expression of what to leave out of a Chinese question, in simplified characters.

Passages keep these words: cutting them out of running text would tear apart words that merely
contain them.
"""
