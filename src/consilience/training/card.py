"""A card of a data set: what is in it, printed before anything is learned from it.

Most failures of a training run stand in its data: questions that are in both splits, answers that
are not in their contexts, one language where two were meant. The card counts these and judges
nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import mean, quantiles
from typing import Literal

from consilience.errors import UsageError
from consilience.questions import Question
from consilience.training.data import holds, question_key


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long some texts are.

    Attributes:
        count: How many there are.
        mean: Their mean length.
        median: Half are at most so long.
        p95: Of 100, 95 are at most so long.
        longest: The length of the longest.
    """

    count: int
    mean: float
    median: float
    p95: float
    longest: int


@dataclass(frozen=True, slots=True)
class SplitCard:
    """What is in one split.

    Attributes:
        questions: How many there are.
        languages: How many in each; the empty name stands for neither Chinese nor English.
        unanswerable: Questions known to have no answer.
        without_answers: Others without a reference answer.
        with_context: Questions that bring their context.
        answer_in_context: Of these, the ones of which an answer stands in the context.
        with_answer_and_context: Of how many that could be said.
        with_history: Questions that follow earlier turns.
        with_positives: Questions that name a passage that holds the answer.
        duplicates: Questions that came before in the same split with the same context.
        characters: Lengths of questions, answers and contexts in characters.
        tokens: The same in tokens; empty without a tokenizer.
    """

    questions: int
    languages: Mapping[str, int]
    unanswerable: int
    without_answers: int
    with_context: int
    answer_in_context: int
    with_answer_and_context: int
    with_history: int
    with_positives: int
    duplicates: int
    characters: Mapping[str, Lengths]
    tokens: Mapping[str, Lengths]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two splits, and how many questions of the second also stand in the first."""

    first: str
    second: str
    questions: int


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """The card of a data set.

    Attributes:
        splits: By name.
        overlaps: Of every two splits, by normalised question.
    """

    splits: Mapping[str, SplitCard]
    overlaps: tuple[Overlap, ...]

    def to_dict(self) -> dict[str, object]:
        """The card as JSON holds it."""
        return asdict(self)

    def text(self, language: Literal["en", "zh"] = "en") -> str:
        """The card as a person reads it."""
        words = _WORDS[language]
        lines = [line for name, split in self.splits.items() for line in _lines(name, split, words)]
        lines += [
            words["overlap"].format(second=each.second, first=each.first, n=each.questions)
            for each in self.overlaps
        ]
        return "\n".join(lines)


def card_of(
    splits: Mapping[str, Sequence[Question]], *, count_tokens: Callable[[str], int] | None = None
) -> DatasetCard:
    """Count what is in a data set.

    Args:
        splits: Questions by the name of their split, such as `train` and `dev`.
        count_tokens: How many tokens a text has; without it lengths are in characters only.

    Raises:
        UsageError: There is no split.

    Example:
        >>> card = card_of({"train": [Question("Who?", ("Ada",), context="Ada did.")]})
        >>> card.splits["train"].answer_in_context
        1
    """
    if not splits:
        raise UsageError("a card needs a split", hint='Give {"train": questions}.')
    keys = {name: {question_key(q.question) for q in split} for name, split in splits.items()}
    overlaps = (
        Overlap(first, second, _shared(splits[second], keys[first]))
        for first, second in combinations(splits, 2)
    )
    cards = {name: _split_card(split, count_tokens) for name, split in splits.items()}
    return DatasetCard(cards, tuple(overlaps))


def _shared(questions: Iterable[Question], keys: set[str]) -> int:
    return sum(question_key(each.question) in keys for each in questions)


def _split_card(
    questions: Sequence[Question], count_tokens: Callable[[str], int] | None
) -> SplitCard:
    reading = [each for each in questions if each.context and each.answers]
    distinct = {(question_key(each.question), each.context) for each in questions}
    return SplitCard(
        questions=len(questions),
        languages=dict(sorted(Counter(each.language for each in questions).items())),
        unanswerable=sum(each.unanswerable for each in questions),
        without_answers=sum(not each.answers and not each.unanswerable for each in questions),
        with_context=sum(bool(each.context) for each in questions),
        answer_in_context=sum(map(_is_in_context, reading)),
        with_answer_and_context=len(reading),
        with_history=sum(bool(each.history) for each in questions),
        with_positives=sum(bool(each.positive_ids) for each in questions),
        duplicates=len(questions) - len(distinct),
        characters=_lengths(questions, len),
        tokens=_lengths(questions, count_tokens) if count_tokens else {},
    )


def _is_in_context(question: Question) -> bool:
    return any(holds(question.context, answer) for answer in question.answers)


def _lengths(questions: Sequence[Question], measure: Callable[[str], int]) -> dict[str, Lengths]:
    """Lengths of each kind of text that is there; a context counts once however often it stands."""
    texts = {
        "questions": [each.question for each in questions],
        "answers": [answer for each in questions for answer in each.answers],
        "contexts": list(dict.fromkeys(each.context for each in questions if each.context)),
    }
    return {kind: lengths_of(list(map(measure, found))) for kind, found in texts.items() if found}


def lengths_of(lengths: Sequence[int]) -> Lengths:
    """Mean, median, 95th percentile and maximum of at least one length."""
    cuts = quantiles(lengths, n=20, method="inclusive") if len(lengths) > 1 else [lengths[0]] * 19
    return Lengths(
        count=len(lengths),
        mean=round(mean(lengths), 2),
        median=cuts[9],
        p95=round(cuts[18], 2),
        longest=max(lengths),
    )


def _lines(name: str, card: SplitCard, words: Mapping[str, str]) -> list[str]:
    named = words["between"].join(
        f"{words.get(f'language.{key}', key)} {n}" for key, n in _shown(card)
    )
    lines = [words["split"].format(name=name, n=card.questions, languages=named)]
    for key in ("unanswerable", "without_answers", "with_history", "with_positives", "duplicates"):
        if count := getattr(card, key):
            lines.append("  " + words[key].format(n=count))
    if total := card.with_answer_and_context:
        found = card.answer_in_context
        share = f"{found / total:.1%}"
        lines.append("  " + words["in_context"].format(n=found, total=total, share=share))
    for unit, kinds in (("characters", card.characters), ("tokens", card.tokens)):
        for kind, each in kinds.items():
            values = {**asdict(each), "kind": words[kind], "unit": words[unit]}
            lines.append("  " + words["lengths"].format(**values))
    return lines


def _shown(card: SplitCard) -> list[tuple[str, int]]:
    return sorted(card.languages.items(), key=lambda pair: -pair[1])


_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "split": "{name}: {n} questions ({languages})",
        "between": ", ",
        "language.zh": "Chinese",
        "language.en": "English",
        "language.": "other",
        "unanswerable": "unanswerable: {n}",
        "without_answers": "without a reference answer: {n}",
        "with_history": "after earlier turns: {n}",
        "with_positives": "with a named passage that holds the answer: {n}",
        "duplicates": "repeated on the same context: {n}",
        "in_context": "answer stands in the context: {n} of {total} ({share})",
        "questions": "questions",
        "answers": "answers",
        "contexts": "contexts",
        "characters": "characters",
        "tokens": "tokens",
        "lengths": "{kind} ({count}), in {unit}: mean {mean:g}, median {median:g}, 95 % up to "
        "{p95:g}, longest {longest}",
        "overlap": "questions of {second} that also stand in {first}: {n}",
    },
    "zh": {
        "split": "{name}：{n} 个问题（{languages}）",
        "between": "，",
        "language.zh": "中文",
        "language.en": "英文",
        "language.": "其他",
        "unanswerable": "{n} 个无法回答",
        "without_answers": "{n} 个没有参考答案",
        "with_history": "{n} 个接在前面的对话之后",
        "with_positives": "{n} 个注明了含答案的段落",
        "duplicates": "{n} 个与同一段文字下的前一问题重复",
        "in_context": "{total} 个中有 {n} 个（{share}）的答案出现在所附文字中",
        "questions": "问题",
        "answers": "答案",
        "contexts": "所附文字",
        "characters": "字符",
        "tokens": "词元",
        "lengths": "{kind}共 {count} 条，按{unit}计：平均 {mean:g}，中位数 {median:g}，"
        "95% 不超过 {p95:g}，最长 {longest}",
        "overlap": "{second} 中有 {n} 个问题也出现在 {first} 中",
    },
}
