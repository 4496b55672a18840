"""What is asked and answered about one question, as it travels, and what is wrong with it.

    "look"      the question, the model, k        → "seen"      scores of the k best passages
    "propose"   how many of them count            → "proposed"  answers to them, as ids of words
    "weigh"     everybody's answers               → "weighed"   how likely each is; the support
    "show"      the answer that was chosen        → "shown"     shares, and what may be shown

Both ends read what comes by the same rules and take nothing for granted: sizes, types, numbers that
no honest party could say. No text of an error here holds anything of a question, an answer or a
passage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from consilience.errors import DamagedError, UsageError, VersionError
from consilience.federation.contracts import PROTOCOL
from consilience.model.answer import Quote

STEPS: Mapping[str, str] = MappingProxyType(
    {"look": "seen", "propose": "proposed", "weigh": "weighed", "show": "shown"}
)
"""What may be asked of a question, and the kind of the reply."""

MOST_K, MOST_BEAMS, MOST_TOKENS, MOST_ANSWERS = 100, 32, 512, 1000
"""More than that is asked of nobody."""

_LONGEST_NAME = 100
_LONGEST_QUESTION = 4000  # as `model.asking` has it
_LONGEST_TEXT = 20_000  # characters of anything that is shown
_MOST_QUOTES = 1000
_ROUNDING = 1e-3  # by which float32 may miss a bound


@dataclass(frozen=True, slots=True)
class Question:
    """A question as a party is asked it.

    Attributes:
        text: Of it.
        asker: Who asks, in their own words; a party's book has it.
        model: Fingerprint of the asker's model.
        k: How many passages of all parties are summed over.
        beams: Answers that each passage proposes.
        tokens: The longest answer, in sub-words.
        mode: How passages are found.
        protocol: `PROTOCOL`.
    """

    text: str
    asker: str
    model: str
    k: int
    beams: int
    tokens: int
    mode: str = "dense"
    protocol: int = PROTOCOL

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made.

        Raises:
            VersionError: The asker speaks another protocol.
            UsageError: Something is missing or beyond its bounds; the message says what.
            DamagedError: It is no question at all.
        """
        if found.get("protocol") != PROTOCOL:
            raise VersionError(
                f"the asker speaks protocol {found.get('protocol')!r}, this party {PROTOCOL}"[:200],
                hint="run the same version everywhere",
            )
        try:
            question = cls(**found)
        except TypeError as error:
            raise DamagedError(
                "a question without what belongs to one", hint="run the same version everywhere"
            ) from error
        question.check()
        return question

    def check(self) -> None:
        """Whether everything is within its bounds.

        Raises:
            UsageError: It is not.
        """
        mistakes = list(_mistakes(self))
        if mistakes:
            raise UsageError("; ".join(mistakes), hint="ask for less")


def _mistakes(question: Question) -> Iterator[str]:
    for name, least, most in (("text", 1, _LONGEST_QUESTION), ("asker", 1, _LONGEST_NAME)):
        value = getattr(question, name)
        if not isinstance(value, str) or not least <= len(value) <= most:
            yield f"the {name} must have {least} to {most} characters"
    limits = (("k", MOST_K), ("beams", MOST_BEAMS), ("tokens", MOST_TOKENS))
    wrong = {name: most for name, most in limits if not _counts(getattr(question, name), most)}
    yield from (f"{name} must be a number from 1 to {most}" for name, most in wrong.items())
    if wrong.keys().isdisjoint(("k", "beams")) and question.k * question.beams > MOST_ANSWERS:
        yield f"k times beams may be {MOST_ANSWERS} at most"
    if question.mode != "dense":
        yield (
            "the mode must be dense: scores of words depend on the words of the whole store, so "
            "those of two stores cannot be compared"
        )


def _counts(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


@dataclass(frozen=True, slots=True)
class Bounds:
    """What answers may be.

    Attributes:
        most: How many.
        longest: Ids of one, its end counted.
        vocabulary: How many ids there are.
    """

    most: int
    longest: int
    vocabulary: int


def packed(answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Answers as a tensor `[answers, ids]`, padded with -1."""
    longest = max(map(len, answers), default=0)
    rows = [[*one, *[-1] * (longest - len(one))] for one in answers]
    return {"answers": torch.tensor(rows, dtype=torch.int64).reshape(len(rows), longest)}


def unpacked(tensors: Mapping[str, Tensor], bounds: Bounds) -> list[tuple[int, ...]]:
    """What `packed` made.

    Raises:
        DamagedError: It is something else, or more or longer than was asked for.
    """
    rows = tensors.get("answers")
    if rows is None or len(tensors) != 1 or rows.dim() != 2 or rows.dtype != torch.int64:
        raise _damaged("answers must be one table of whole numbers")
    if rows.shape[0] > bounds.most:
        raise _damaged(f"{rows.shape[0]} answers came, {bounds.most} may at most")
    if rows.shape[1] > bounds.longest:
        raise _damaged(f"an answer of {rows.shape[1]} ids came, {bounds.longest} may at most")
    if bool(((rows < -1) | (rows >= bounds.vocabulary)).any()):
        raise _damaged("an answer has ids that the model has not")
    return _whole(rows)


def _whole(rows: Tensor) -> list[tuple[int, ...]]:
    there = rows >= 0
    if bool((there[:, 1:] & ~there[:, :-1]).any()):
        raise _damaged("an answer has a gap")
    found = [
        tuple(row[:length].tolist())
        for row, length in zip(rows, there.sum(-1).tolist(), strict=True)
    ]
    if not all(found) or len(set(found)) < len(found):
        raise _damaged("an answer is empty or came twice")
    return found


def scores_of(tensors: Mapping[str, Tensor], k: int) -> Tensor:
    """The scores that a party saw, float32, `[k or fewer]`, best first.

    Raises:
        DamagedError: They are something else; no two vectors of length one have such a product.
    """
    found = tensors.get("scores")
    if found is None or len(tensors) != 1 or found.dim() != 1 or found.dtype != torch.float32:
        raise _damaged("scores must be one row of float32")
    if len(found) > k:
        raise _damaged(f"{len(found)} scores came, {k} may at most")
    if not bool((found.abs() <= 1 + _ROUNDING).all()):
        raise _damaged("a score is no number from -1 to 1")
    if bool((found[1:] > found[:-1]).any()):
        raise _damaged("scores are not in their order")
    return found


@dataclass(frozen=True, slots=True)
class Weighed:
    """A party's own part of the sum, over its own passages alone.

    Attributes:
        log_likelihoods: log p(y | x) of every answer given that there is one, `[answers]`.
        support: p(there is an answer | x).
    """

    log_likelihoods: Tensor
    support: float

    def tensors(self) -> dict[str, Tensor]:
        """What `of` reads."""
        support = torch.tensor(self.support, dtype=torch.float64)
        return {"log_likelihoods": self.log_likelihoods.double(), "support": support}

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], answers: Sequence[Sequence[int]], *, end: int
    ) -> Self:
        """What `tensors` made.

        Args:
            tensors: As they came.
            answers: That were asked about.
            end: The id that ends an answer. No two whole answers can be true at once, so their
                probabilities come to one at most.

        Raises:
            DamagedError: These are no probabilities.
        """
        found, support = tensors.get("log_likelihoods"), tensors.get("support")
        if found is None or support is None or found.dtype != torch.float64:
            raise _damaged("likelihoods must be numbers of float64")
        if found.shape != (len(answers),) or support.shape != () or not support.is_floating_point():
            raise _damaged(f"likelihoods of other answers than the {len(answers)} asked about")
        if not bool(found.isfinite().all()) or not bool((found <= _ROUNDING).all()):
            raise _damaged("a likelihood is no number, or above one")
        whole = torch.tensor([one[-1] == end for one in answers], dtype=torch.bool)
        if float(found[whole].exp().sum()) > 1 + _ROUNDING:
            raise _damaged("likelihoods come to more than one")
        if not 0 <= float(support) <= 1 + _ROUNDING:
            raise _damaged("the support is no share")
        return cls(found, min(1.0, float(support)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a party shows of a passage; what it does not show is None or empty.

    Attributes:
        source: Where it comes from.
        title: Of its document.
        page: In its source, where there are pages.
        text: The sentences that hold the answer.
        quotes: The answer's own words in the source.
    """

    source: str | None = None
    title: str | None = None
    page: int | None = None
    text: str | None = None
    quotes: tuple[Quote, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {**asdict(self), "quotes": [quote.to_dict() for quote in self.quotes]}

    @classmethod
    def parse(cls, found: Any) -> Self:
        """What `to_dict` made; raises KeyError, TypeError or ValueError where it is not."""
        quotes = tuple(_quote(one) for one in found["quotes"][:_MOST_QUOTES])
        texts = {name: _text(found[name]) for name in ("source", "title", "text")}
        page = found["page"]
        return cls(**texts, page=None if page is None else _count(page), quotes=quotes)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a party shows of the answer that was chosen.

    Attributes:
        shares: Of its passages in its own part of the answer, `[passages]`, float64.
        spelled: The passage whose spelling it is, and the answer as that one spells it; None where
            none has its words.
        evidence: Of each passage.
    """

    shares: Tensor
    spelled: tuple[int, str] | None
    evidence: tuple[Evidence, ...]

    def content(self) -> dict[str, Any]:
        """Fit for JSON; the shares travel as a tensor."""
        spelled = None if self.spelled is None else list(self.spelled)
        return {"spelled": spelled, "evidence": [one.to_dict() for one in self.evidence]}

    @classmethod
    def of(
        cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], *, passages: int
    ) -> Self:
        """What `content` and the shares were.

        Raises:
            DamagedError: Something else.
        """
        shares = tensors.get("shares")
        if shares is None or shares.shape != (passages,) or shares.dtype != torch.float64:
            raise _damaged(f"shares of other passages than the {passages} asked about")
        if not bool((shares >= 0).all()) or not abs(float(shares.sum()) - 1) <= _ROUNDING:
            raise _damaged("shares do not come to one")
        try:
            evidence = tuple(Evidence.parse(one) for one in content["evidence"])
            spelled = _spelled(content["spelled"], passages)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged("evidence that cannot be understood") from error
        if len(evidence) != passages:
            raise _damaged(f"evidence of other passages than the {passages} asked about")
        return cls(shares, spelled, evidence)


def _spelled(found: Any, passages: int) -> tuple[int, str] | None:
    if found is None:
        return None
    place, text = found
    if _count(place) >= passages or not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise ValueError("no spelling")
    return place, text


def _quote(found: Any) -> Quote:
    text = _text(found["text"])
    if text is None:
        raise TypeError("a quote without words")
    return Quote(_count(found["start"]), _count(found["end"]), text)


def _text(found: Any) -> str | None:
    if found is not None and (not isinstance(found, str) or len(found) > _LONGEST_TEXT):
        raise TypeError("no text")
    return found


def _count(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise TypeError("no number")
    return found


def _damaged(message: str) -> DamagedError:
    return DamagedError(message, hint="do all parties run the same version?")
