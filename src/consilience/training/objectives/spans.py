"""Questions that a text asks about itself: a stretch worth asking for is blanked in its sentence.

Two ways to find such stretches without a model: what an author says more than once, and what looks
like a fact (dates, numbers, names, titles). Both work on Chinese and English. All places are
offsets into the text that was given.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import regex

from consilience.text import Span, fold_han, split_sentences

Kind = Literal["date", "quoted", "name", "number"]

BLANK = "___"
"""What stands in a question for what is asked."""


@dataclass(frozen=True, slots=True)
class Cloze:
    """A sentence with a blank, and a text that says what belongs there.

    Attributes:
        question: The sentence, with `BLANK` or whatever was given for it.
        answer: What was blanked.
        context: The text to read it from; `context[start : start + len(answer)]` is the answer.
        start: Its place in the context.
    """

    question: str
    answer: str
    context: str
    start: int


@dataclass(frozen=True, slots=True)
class SalientSpan:
    """A stretch that looks like a fact.

    Attributes:
        span: Where it stands.
        kind: What it looks like.
    """

    span: Span
    kind: Kind


@dataclass(frozen=True, slots=True)
class RecurringSpan:
    """A stretch that comes more than once.

    Attributes:
        text: As it is written the first time.
        spans: All its places, in order.
    """

    text: str
    spans: tuple[Span, ...]


_MONTH = (
    "(?:January|February|March|April|May|June|July|August|September|October|November|December"
    "|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_CAPITALISED = r"\p{Lu}(?:[\p{L}\p{M}]|-(?=\p{L})|['’](?!s\b)(?=\p{L}))*"
_HAN_DIGITS = "[〇零一二三四五六七八九十]"
_MEASURE = (
    "(?:[千百万亿]*(?:个月|个|人民币|元|人|名|次|米|公里|千米|岁|年|天|小时|分钟|秒|吨|公斤|克|升|度"
    "|册|本|页|条|项|家|所|座|层|张|枚|位|届|倍|平方公里|平方米|欧元|美元)|[千百万亿]+)"
)
_FACTS: tuple[tuple[Kind, str], ...] = (
    (
        "date",
        rf"\d{{1,2}}(?:st|nd|rd|th)?\s{_MONTH}(?:\s\d{{4}})?\b|\b{_MONTH}\s\d{{1,2}},\s\d{{4}}\b"
        rf"|\b{_MONTH}\s\d{{1,4}}\b|\b\d{{4}}-\d\d-\d\d\b|\b(?:1\d|20)\d\d\b(?![,.]?\d|年)"
        rf"|(?:\d{{4}}|{_HAN_DIGITS}{{4}})\s?年(?:\s?(?:\d{{1,2}}|{_HAN_DIGITS}{{1,3}})\s?月"
        rf"(?:\s?(?:\d{{1,2}}|{_HAN_DIGITS}{{1,3}})\s?[日号])?)?"
        rf"|(?:\d{{1,2}}|{_HAN_DIGITS}{{1,3}})月(?:\d{{1,2}}|{_HAN_DIGITS}{{1,3}})[日号]",
    ),
    (
        "quoted",
        r"(?<=“)[^“”\n]{2,40}(?=”)|(?<=「)[^「」\n]{2,40}(?=」)|(?<=『)[^『』\n]{2,40}(?=』)"
        r"|(?<=《)[^《》\n]{1,40}(?=》)|(?<=(?<![\w\"])\")[^\"\n]{2,40}(?=\"(?![\w\"]))",
    ),
    (
        "name",
        rf"\b{_CAPITALISED}(?:\s(?:(?:of|the|de|von|van)\s){{0,2}}{_CAPITALISED})*",
    ),
    (
        "number",
        rf"\d+(?:[,.]\d+)*(?:\s?(?:%|％|per\scent|percent|million|billion|thousand)|{_MEASURE})?"
        rf"|(?:[一二两三四五六七八九十百千万亿]{{2,}}|[二两三四五六七八九十]){_MEASURE}",
    ),
)
_SALIENT = regex.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _FACTS))
_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}"
_UNIT = regex.compile(rf"[{_CJK}]|[\p{{L}}\p{{M}}\p{{N}}]+(?:['’.,-][\p{{L}}\p{{M}}\p{{N}}]+)*")
_WITH_SPACE = regex.compile(rf"\s*(?:[{_CJK}]|[^\s{_CJK}]+)")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_FUNCTION_WORDS = _words(
    """a an the of and or but nor so if then than that this these those it its he she they them his
    her their we our you your i my me in on at by for from to with as is are was were be been being
    am do does did has have had not no which who whom whose what when where why how there here also
    can could may might must shall should will would into over under after before about between
    such some any all each both more most other only very"""
)
_FUNCTION_CHARACTERS = frozenset("的了是在和与及或而也都就但又着吗呢吧把被这那")


def salient_spans(text: str) -> list[SalientSpan]:
    """Dates, numbers with their units, names and quoted titles, in order and without overlaps.

    English names are runs of capitalised words; one word alone counts only where it does not begin
    a sentence. Chinese names have no such sign and are found only inside quotation marks.

    Source: Guu et al., 2020, "REALM: Retrieval-Augmented Language Model Pre-Training", section 3.4
    (salient span masking), with patterns in place of a tagger.

    Example:
        >>> text = "In 1912 Ada Hill wrote 《山》, 300 pages."
        >>> [(text[s.span.start : s.span.end], s.kind) for s in salient_spans(text)]
        [('1912', 'date'), ('Ada Hill', 'name'), ('山', 'quoted'), ('300', 'number')]
    """
    beginnings = {span.start for span in split_sentences(text)}
    found = []
    for match in _SALIENT.finditer(text):
        start, end = match.span()
        kind: Kind = match.lastgroup
        if kind == "name" and start in beginnings:
            start = _after_first_word(match[0], start)
        if start < end and _UNIT.search(text, start, end):  # quotation marks may hold no word
            found.append(SalientSpan(Span(start, end), kind))
    return found


def _after_first_word(name: str, start: int) -> int:
    """Where a name begins that opens a sentence: there, unless a mere word stands first."""
    words = name.split()
    if len(words) == 1:
        return start + len(name)
    return start + len(words[0]) + 1 if words[0].lower() in _FUNCTION_WORDS else start


def salient_question(
    text: str, rng: random.Random, *, blank: str = BLANK, dropped: float = 0.25
) -> Cloze | None:
    """A cloze question about a fact of the text, to be answered from the text itself.

    A quarter of the sentence's other words are left out, so that the place is found by meaning
    rather than by matching the whole sentence.

    Use it to teach reading and retrieval on texts without questions. The context holds the sentence
    itself, so it is easier than a question by a person.

    Source: Guu et al., 2020 (REALM) for what is asked; Lewis et al., 2019, "Unsupervised Question
    Answering by Cloze Translation" for the words left out.

    Args:
        text: A passage.
        rng: Where to.
        blank: What stands for the answer.
        dropped: Share of the other words that is left out.

    Returns:
        None when the text holds nothing that looks like a fact.
    """
    spans = salient_spans(text)
    if not spans:
        return None
    span = rng.choice(spans).span
    sentence = _sentence_around(text, span)
    question = _blanked(text, sentence, span, blank, lambda: rng.random() >= dropped)
    return Cloze(question, text[span.start : span.end], text, span.start)


def recurring_spans(text: str, *, longest: int = 10) -> list[RecurringSpan]:
    """Stretches of words that the text says more than once, the longest that do.

    A stretch that only ever comes inside a longer recurring one is not listed, nor is one that
    begins or ends with a function word or is longer than `longest`. Words are compared without
    case, Chinese characters one by one and without regard to traditional or simplified form;
    stretches do not cross marks or sentences.

    Source: Ram et al., 2021, "Few-Shot Question Answering by Pretraining Span Selection"
    (Splinter), section 3.1.

    Args:
        text: A passage or a document.
        longest: Words, or characters of Chinese, in a stretch.

    Example:
        >>> text = "The Red Ferry sails at dawn. At noon the red ferry rests."
        >>> [span.text for span in recurring_spans(text)]
        ['Red Ferry']
    """
    places = _stretches(text, longest + 1)
    inner = _always_inside(places)
    found = [
        RecurringSpan(text[spans[0].start : spans[0].end], tuple(spans))
        for key, spans in places.items()
        if key not in inner and len(key) <= longest and _says_something(key)
    ]
    return sorted(found, key=lambda each: (each.spans[0], each.spans))


def recurring_question(
    text: str, rng: random.Random, *, blank: str = BLANK, longest: int = 10
) -> Cloze | None:
    """A sentence with a recurring stretch blanked, over the rest of the text, which says it again.

    The sentence is taken out of the context, so the answer cannot be found by matching it.

    Use it to teach reading, and, with context and question as a pair, retrieval (Ram et al., 2022,
    "Learning to Retrieve Passages without Supervision"). It needs texts that repeat themselves:
    articles rather than single paragraphs.

    Args:
        text: A passage or a document.
        rng: Where to.
        blank: What stands for the answer.
        longest: Words in a stretch.

    Returns:
        None when nothing recurs in two sentences.
    """
    options = [
        (asked, sentence, answering)
        for recurring in recurring_spans(text, longest=longest)
        for asked in recurring.spans
        for sentence in [_sentence_around(text, asked)]
        if (answering := [each for each in recurring.spans if not _within(each, sentence)])
    ]
    if not options:
        return None
    asked, sentence, answering = rng.choice(options)
    question = _blanked(text, sentence, asked, blank, lambda: True)
    return _over_the_rest(text, question, sentence, rng.choice(answering))


def _over_the_rest(text: str, question: str, sentence: Span, answer: Span) -> Cloze:
    context = text[: sentence.start] + text[sentence.end :]
    gone = sentence.end - sentence.start if answer.start >= sentence.end else 0
    return Cloze(question, text[answer.start : answer.end], context, answer.start - gone)


def _within(span: Span, sentence: Span) -> bool:
    return sentence.start <= span.start < sentence.end


def _sentence_around(text: str, span: Span) -> Span:
    """From the beginning of the sentence in which a stretch begins to where it ends."""
    around = [each for each in split_sentences(text) if each.start < span.end]
    around = [each for each in around if span.start < each.end]
    return Span(around[0].start, around[-1].end)


def _blanked(text: str, sentence: Span, span: Span, blank: str, keeps: Callable[[], bool]) -> str:
    left, right = text[sentence.start : span.start], text[span.end : sentence.end]
    kept = ["".join(p for p in _WITH_SPACE.findall(part) if keeps()) for part in (left, right)]
    gap = " " if left.endswith((" ", "\n")) else ""
    return f"{kept[0]}{gap}{blank}{kept[1]}".strip()


_Key = tuple[str, ...]


def _stretches(text: str, longest: int) -> dict[_Key, list[Span]]:
    """Every stretch of at most so many units that comes at least twice, and where."""
    places: dict[_Key, list[Span]] = defaultdict(list)
    for run in _runs(text):
        words = [fold_han(text[unit.start : unit.end].casefold()) for unit in run]
        for first in range(len(run)):
            for last in range(first + 1, min(first + longest, len(run)) + 1):
                span = Span(run[first].start, run[last - 1].end)
                spans = places[tuple(words[first:last])]
                if not spans or spans[-1].end <= span.start:
                    spans.append(span)
    return {key: spans for key, spans in places.items() if len(spans) > 1}


def _runs(text: str) -> Iterator[Sequence[Span]]:
    """Units that nothing but blanks divides, sentence by sentence."""
    for sentence in split_sentences(text):
        found = _UNIT.finditer(text, sentence.start, sentence.end)
        units = [Span(*match.span()) for match in found]
        cuts = [i for i, (a, b) in enumerate(pairwise(units), 1) if text[a.end : b.start].strip()]
        for first, last in pairwise([0, *cuts, len(units)]):
            yield units[first:last]


def _always_inside(places: dict[_Key, list[Span]]) -> set[_Key]:
    """Stretches that come only as part of one longer stretch that says something."""
    inner: set[_Key] = set()
    for key in sorted(places, key=len, reverse=True):
        if key in inner or _says_something(key):
            parts = [part for part in (key[1:], key[:-1]) if part]
            inner.update(part for part in parts if len(places[part]) == len(places[key]))
    return inner


def _says_something(key: _Key) -> bool:
    ends = (key[0], key[-1])
    if any(end in _FUNCTION_WORDS or end in _FUNCTION_CHARACTERS for end in ends):
        return False
    return len(key) > 1 or (len(key[0]) > 2 and not key[0].isdecimal())
