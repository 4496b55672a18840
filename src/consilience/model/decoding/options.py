"""How an answer is searched, as one dataclass that checks itself.

It knows the rules between settings and says all that is wrong with them at once. It knows no
tensors, so that a command line can build one without torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from consilience.errors import UsageError

Sum = Literal["sequence", "token", "average"]
SearchName = Literal["exact", "thorough", "fast"]
Limit = Literal["end", "cut"]
Fault = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How an answer is searched.

    With one row a question every sum is the same, so fusions that join the passages before the
    decoder are searched as `sequence` with one passage.

    Attributes:
        fusion: Where the sum stands: over whole answers, over each token with the prior, or over
            each token with weights that the caller made (`average`).
        search: `exact` searches the sum itself. `thorough` and `fast` search every passage alone
            and then sum over what was found (Lewis et al., 2020, section 2.5): with every passage's
            share in every candidate, or only with those of the passages that proposed it.
        beams: Answers kept at each step; 1 is greedy.
        groups: Beams are searched in so many groups, one after the other; divides `beams`.
        diversity: Nats that a token loses for each beam of an earlier group that chose it at this
            step. It steers the choice; scores stay those of the sum.
        sample: Draw tokens instead of searching the most probable ones.
        temperature: Of the sampled distribution, `p ** (1 / temperature)`.
        top_k: Draw among so many most probable tokens; 0 draws among all.
        top_p: Draw among the fewest tokens that together have this probability.
        seed: Of the draws. Sample `i` draws from a generator of its own, made of `seed` and `i`.
        returned: Answers given back for each question, or samples drawn.
        max_new_tokens: At most so many tokens are written.
        min_new_tokens: The end is not written before so many tokens are.
        limit: What happens at `max_new_tokens`. `end` writes the end then, and pays for it, so that
            every answer is whole and its probability that of the sum; the end does not count as
            a token. `cut` leaves the answer without an end, which otherwise counts as a token.
        length_penalty: Finished beams are ranked by log p divided by `length ** length_penalty`,
            the end counted.
        early_stopping: When a question's beam search ends: `never` when no open beam can still
            reach the answers returned, True when as many answers are finished as there are beams,
            False then and if the best open beam, at its present length, is behind all of them.
        repetition_penalty: Log p of every token already written is multiplied by it (Keskar et
            al., 2019, section 4.1).
        no_repeat_ngram: No sequence of so many tokens is written twice; 0 allows all.
        stop: An answer ends where one of these strings begins.
        quote: Answers stand word for word in a passage; see `quoting`.
        forced_first: The token that is written first whatever its probability; it counts as
            certain and says nothing of the passages.
        forced_last: The token that is written when the limit is reached, at no cost in rank.
        suppress: Tokens that are never chosen.
        suppress_first: Tokens that are not the first that is chosen.
        opening: Tokens that count as written already where repetition is looked for.
    """

    fusion: Sum = "sequence"
    search: SearchName = "exact"
    beams: int = 1
    groups: int = 1
    diversity: float = 0.0
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    returned: int = 1
    max_new_tokens: int = 48
    min_new_tokens: int = 0
    limit: Limit = "end"
    length_penalty: float = 0.0
    early_stopping: bool | Literal["never"] = "never"
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    stop: tuple[str, ...] = ()
    quote: bool = False
    forced_first: int | None = None
    forced_last: int | None = None
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        raise_faults([*_names(self), *_sizes(self), *_tokens(self), *_combinations(self)])

    @classmethod
    def like_transformers(cls, generation_config: Any, **overrides: Any) -> "DecodingOptions":
        """Options that search as `generate` of transformers 5.23 does under its configuration.

        One thing is not so: with one beam the library puts a repetition penalty on logits, and with
        several on log p; here it is on log p always, as it must be for a sum over passages.
        Lengths of the configuration count the start token, as they do for an encoder-decoder.

        Args:
            generation_config: A `GenerationConfig`; what it leaves out has the library's default.
            overrides: Fields of this class that replace what the configuration says.

        Raises:
            UsageError: The configuration asks for something that this search does not do.
        """
        from consilience.model.decoding.generation_config import fields_of

        return cls(**(fields_of(generation_config) | overrides))

    @property
    def closing_step(self) -> int:
        """The step, from 0, at which every answer ends."""
        return self.max_new_tokens - (self.limit == "cut")

    def within(self, longest: int | None) -> "DecodingOptions":
        """The same, with answers of at most `longest` tokens; None for no bound."""
        if longest is None or self.max_new_tokens <= longest:
            return self
        least = min(self.min_new_tokens, longest)
        return replace(self, max_new_tokens=longest, min_new_tokens=least)

    @property
    def lanes(self) -> int:
        """Answers written side by side for one question and one group."""
        return self.returned if self.sample else self.beams // self.groups

    def rank(self, score: float, length: int) -> float:
        """What an answer of `length` tokens, its end counted, is ranked by."""
        return score / float(length**self.length_penalty)


def raise_faults(faults: list[Fault]) -> None:
    """One error for all faults, each a message and a hint."""
    if faults:
        hints = dict.fromkeys(hint for _, hint in faults)
        raise UsageError("; ".join(message for message, _ in faults), hint="; ".join(hints))


def _names(options: DecodingOptions) -> Iterator[Fault]:
    """Words that are not in their lists."""
    for name, allowed in (
        ("fusion", get_args(Sum)),
        ("search", get_args(SearchName)),
        ("limit", get_args(Limit)),
        ("early_stopping", (True, False, "never")),
    ):
        value = getattr(options, name)
        if value not in allowed:
            choices = ", ".join(map(str, allowed))
            yield f"unknown {name} {value!r}", f"choose {name} from: {choices}"


def _sizes(options: DecodingOptions) -> Iterator[Fault]:
    """Numbers below what they can be."""
    least = {"beams": 1, "groups": 1, "returned": 1, "max_new_tokens": 1, "min_new_tokens": 0}
    least |= {"top_k": 0, "seed": 0, "no_repeat_ngram": 0, "diversity": 0}
    for name, bound in least.items():
        if not getattr(options, name) >= bound:
            message = f"{name} must be at least {bound}, received {getattr(options, name)}"
            yield message, f"leave {name} out for its default"
    for name in ("temperature", "repetition_penalty", "top_p"):
        if not getattr(options, name) > 0:
            message = f"{name} must be above 0, received {getattr(options, name)}"
            yield message, f"leave {name} out for its default"
    if options.top_p > 1:
        yield f"top_p must be at most 1, received {options.top_p}", "top_p=1.0 draws among all"


def _tokens(options: DecodingOptions) -> Iterator[Fault]:
    """Strings and ids that cannot be meant."""
    if isinstance(options.stop, str) or not all(options.stop):
        message = f"stop must be strings that are not empty, received {options.stop!r}"
        yield message, 'write stop=("…",)'
    for name, ids in id_fields(options):
        if any(number < 0 for number in ids):
            yield f"{name} holds a token below 0: {min(ids)}", f"give {name} ids of the vocabulary"


def id_fields(options: DecodingOptions) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every setting that names tokens, with the tokens."""
    for name in ("suppress", "suppress_first", "opening"):
        yield name, getattr(options, name)
    for name in ("forced_first", "forced_last"):
        value = getattr(options, name)
        yield name, () if value is None else (value,)


def _combinations(options: DecodingOptions) -> Iterator[Fault]:
    """Settings that contradict each other or would do nothing."""
    if options.min_new_tokens > options.max_new_tokens:
        message = f"min_new_tokens {options.min_new_tokens} is above max_new_tokens"
        yield f"{message} {options.max_new_tokens}", "raise max_new_tokens"
    yield from _search_combinations(options)
    yield from _sampling_combinations(options)
    yield from _group_combinations(options)
    if options.quote and (options.forced_first is not None or options.forced_last is not None):
        message = "a quotation has no tokens that are forced, received"
        yield (
            f"{message} {options.forced_first} first, {options.forced_last} last",
            "leave out quote",
        )


def _search_combinations(options: DecodingOptions) -> Iterator[Fault]:
    if options.search == "exact":
        return
    if options.fusion != "sequence":
        message = f"search {options.search!r} is a search of the fusion 'sequence'"
        yield f"{message}, received fusion {options.fusion!r}", "use search='exact'"
    if options.sample:
        yield f"search {options.search!r} does not sample", "use search='exact' to sample"


def _sampling_combinations(options: DecodingOptions) -> Iterator[Fault]:
    if options.sample and options.beams > 1:
        message = f"samples are drawn without beams, received beams {options.beams}"
        yield message, "leave out beams; returned=… draws several samples"
    if not options.sample:
        for name, unused in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0), ("seed", 0)):
            if getattr(options, name) != unused:
                yield f"{name} does nothing without sampling", "add sample=True"
        if options.search == "exact" and options.returned > max(options.beams, 1):
            message = f"{options.returned} answers cannot be returned from {options.beams} beams"
            yield message, f"set beams to at least {options.returned}, or sample=True"


def _group_combinations(options: DecodingOptions) -> Iterator[Fault]:
    if options.groups > 1 and options.beams % options.groups:
        message = f"groups must divide beams, received {options.groups} and {options.beams}"
        yield message, f"set beams to a multiple of {options.groups}"
    if (options.groups > 1) != (options.diversity > 0):
        message = f"groups {options.groups} with diversity {options.diversity} are beams as usual"
        yield message, "set groups above 1 and diversity above 0, or neither"
