"""The numbers that a search of one store has, found by measurement and kept with the store.

Every number has a default that measured well on the data sets of `docs/benchmarks/retrieval.md`;
what was measured on a store's own questions is better there and stands in its settings. What is
`None` was not measured, and is then the model's affair. Knows no engine; how numbers are found is
`measuring`'s business.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol, Self, get_args

from consilience.errors import UsageError
from consilience.retrieval.hybrid import HybridWeights

IndexName = Literal["auto", "exact", "codes", "ivf", "hnsw"]
"""How vectors are searched: exactly, by codes of one bit, by lists, by a graph; `auto` goes by
their number."""

SETTING = "retrieval"
"""The key under which a store keeps these numbers."""

DEFAULT_K = 5
"""How many passages are proposed where neither the caller nor the store says."""


class Settled(Protocol):
    """What has settings: a store, or a published copy of one."""

    @property
    def settings(self) -> dict[str, Any]:
        """Names with values that JSON can carry."""
        ...


class Settable(Settled, Protocol):
    """What keeps settings: a store."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Keep settings in the place of those there are."""
        ...


@dataclass(frozen=True, slots=True)
class Tuning:
    """How one store is searched.

    Attributes:
        k1: How soon repetitions of a word stop counting in BM25.
        b: How far BM25 takes the length of a passage into account, 0 to 1.
        title: How many times a word of the title counts as one of the text.
        zh: The dense half's share in hybrid scores of Chinese questions; None for the model's.
        en: Of English questions.
        other: Of all others.
        temperature: Scores are divided by it before p(d | x) = softmax(scores); None for the
            model's.
        k: How many passages are proposed where the caller does not say; None for `DEFAULT_K`.
        index: How vectors are searched.
        candidates: How many vectors an approximate index brings to the exact comparison.
    """

    k1: float = 0.6
    b: float = 0.5
    title: float = 1.0
    zh: float | None = None
    en: float | None = None
    other: float | None = None
    temperature: float | None = None
    k: int | None = None
    index: IndexName = "auto"
    candidates: int = 1000

    def __post_init__(self) -> None:
        mistakes = [fault for f in fields(self) if (fault := _fault(f.name, getattr(self, f.name)))]
        if mistakes:
            raise _wrong(mistakes)

    @classmethod
    def of(cls, store: Settled) -> Self:
        """The numbers that a store keeps; those that it does not keep have their defaults.

        Raises:
            UsageError: There are names or values among them that this version does not know; the
                message has all of them.
        """
        return cls.parse(store.settings.get(SETTING, {}))

    @classmethod
    def parse(cls, values: Any) -> Self:
        """A tuning out of names and values, as `to_dict` gives them. Raises as `of`."""
        if not isinstance(values, Mapping):
            raise _wrong([f"they must be names with values, received {values!r}"])
        known = [field.name for field in fields(cls)]
        strange = [f"{n} is unknown, allowed: {', '.join(known)}" for n in values if n not in known]
        wrong = [fault for n in known if n in values and (fault := _fault(n, values[n]))]
        if strange:  # wrong values alone are told when it is made
            raise _wrong([*strange, *wrong])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every number that is not left to the model, by its name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def keep(self, store: Settable) -> None:
        """Write these numbers into a store, in the place of those that it has.

        Retrievers that are open keep theirs; those opened afterwards have these.
        """
        store.configure({**store.settings, SETTING: self.to_dict()})

    def proposed(self, k: int | None) -> int:
        """How many passages are proposed: what the caller says, else what was measured, else 5."""
        return (self.k or DEFAULT_K) if k is None else k

    def weights(self, model: HybridWeights) -> HybridWeights:
        """The dense half's shares: those measured, and where there are none the model's."""
        return HybridWeights(
            zh=model.zh if self.zh is None else self.zh,
            en=model.en if self.en is None else self.en,
            other=model.other if self.other is None else self.other,
        )


_SPANS: Mapping[str, tuple[float, float]] = {
    "k1": (0, 100),
    "b": (0, 1),
    "title": (0, 100),
    "zh": (0, 1),
    "en": (0, 1),
    "other": (0, 1),
    "temperature": (1e-4, 1e4),
    "k": (1, 1000),
    "candidates": (1, 100_000),
}
_WHOLE = frozenset({"k", "candidates"})
_UNMEASURED = frozenset({"zh", "en", "other", "temperature", "k"})


def _fault(name: str, value: object) -> str:
    """What is wrong with a value, or nothing."""
    if value is None and name in _UNMEASURED:
        return ""
    if name == "index":
        names = get_args(IndexName)
        return "" if value in names else f"index must be one of {', '.join(names)}: {value!r}"
    least, most = _SPANS[name]
    numeric = int if name in _WHOLE else (int, float)
    right = isinstance(value, numeric) and not isinstance(value, bool)
    if right and least <= value <= most:  # type: ignore[operator]
        return ""
    kind = "a whole number" if name in _WHOLE else "a number"
    return f"{name} must be {kind} from {least:g} to {most:g}: {value!r}"


def _wrong(mistakes: list[str]) -> UsageError:
    return UsageError(
        f"numbers of a search that cannot be used: {'; '.join(mistakes)}",
        hint="consilience search --tune QUESTIONS writes new ones into the knowledge base",
    )
