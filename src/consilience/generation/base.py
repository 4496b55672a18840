"""The protocol of a generator: text in, distributions over tokens out.

A generator reads rows, each a question over one passage, and then tells, token by token, how likely
each next token is given what was written. It knows nothing of priors and sums: whatever stands
above asks for `p(y_t | x, d, y_<t)` of every row and adds up.

What is being written is a tree. A row has as many open ends as there are beams; a step names, for
every new token, the open end that it continues (`parents`), so beam search, sampling of several
answers and the scoring of a set of candidates with common beginnings are the same walk, and a
generator is free to share, copy or mask its caches as it likes.

Dimensions: `rows` questions times passages, `n` open ends (beams) of a row, `v` vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: a question over one passage."""

    question: str
    title: str
    passage: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a row's passage, in characters, half open."""

    start: int
    end: int


LEAST = 1e-38
"""What stands for a probability of zero before a logarithm is taken, about e^-87."""


@dataclass(frozen=True, slots=True)
class NextToken:
    """`p(y_t | x, d, y_<t)` of every open end of every row, before it is divided by its total.

    Kept as `exp(logit - greatest)`, so that a sum over passages is one matrix product and one
    exponential a token, and no logarithm of a whole vocabulary is ever taken.

    Attributes:
        weights: Not negative, float32, `[rows, n, v]`, in any memory order. A generator may write
            the next step into the same memory: what is needed later must be copied.
        totals: Their sums over the vocabulary, `[rows, n]`.
    """

    weights: "Tensor"
    totals: "Tensor"

    def log_probs(self) -> "Tensor":
        """Log p of every token, `[rows, n, v]`."""
        return (self.weights / self.totals[..., None]).clamp_min(LEAST).log()

    def of(self, ids: "Tensor", ends: "Tensor") -> "Tensor":
        """Log p of given tokens, each after the open end it is asked of.

        Args:
            ids: Tokens, `[rows, m]`.
            ends: The open end that each would continue, `[rows, m]`.

        Returns:
            `[rows, m]`.
        """
        import torch

        row = torch.arange(ids.shape[0], device=ids.device)[:, None]
        chosen = self.weights[row, ends, ids] / self.totals[row, ends]
        return chosen.clamp_min(LEAST).log()


Augment = Callable[["Tensor"], "Tensor"]
"""Changes the decoder's input embeddings, `[rows, n or t, h]` to the same, each row by itself."""


@dataclass(frozen=True, slots=True)
class SomeRows:
    """An `Augment` made for many rows, for those of them that are left.

    Attributes:
        augment: Made for `among` rows.
        rows: Those that are left, `[kept]`.
        among: How many there were.
    """

    augment: Augment
    rows: "Tensor"
    among: int

    def __call__(self, states: "Tensor") -> "Tensor":
        """`[kept, n, h]` to the same."""
        spread = states.new_zeros(self.among, *states.shape[1:])
        spread[self.rows] = states
        return self.augment(spread)[self.rows]


class Generator(Protocol):
    """What every generator can do; `Memory` and `State` are its own affair.

    Attributes:
        end: The id that ends an answer.
        none: The id that says "not in this passage", or None when the generator has none.
    """

    end: int
    none: int | None

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""
        ...

    @property
    def device(self) -> "torch.device":
        """Where its tensors live; what is handed to it must live there too."""
        ...

    def read(self, pairs: Sequence[Pair]) -> Any:
        """Read rows; what comes back is the memory that the other calls take.

        The question is never what gets cut when a row is too long for the window: passages are.
        """
        ...

    def together(self, memory: Any, k: int) -> Any:
        """Fusion-in-Decoder: every `k` rows as one row whose decoder attends to all of them.

        Args:
            memory: Of `b * k` rows, question-major.
            k: How many rows belong to one question.

        Returns:
            The memory of `b` rows.

        Raises:
            UsageError: This kind of generator has no decoder that attends to what was read.
        """
        ...

    def begin(self, memory: Any) -> tuple[Any, NextToken]:
        """The state before the first token, and the first token's distribution, `n = 1`."""
        ...

    def step(self, memory: Any, state: Any, ids: "Tensor", parents: "Tensor") -> NextToken:
        """Write tokens and ask for the next ones; the state becomes that of the new open ends.

        Args:
            memory: Of `read`.
            state: Of `begin`; changed in place.
            ids: The tokens written, `[rows, n]`.
            parents: The open end of the step before that each continues, `[rows, n]`.

        Returns:
            The distributions after the new tokens, `[rows, n, v]`.
        """
        ...

    def score(self, memory: Any, targets: "Tensor") -> "Tensor":
        """Log p of given answers, float32, without gradient.

        Args:
            memory: Of `read`.
            targets: Ids without the start token, padded with `end`, `[rows, steps]`.

        Returns:
            `[rows, steps]`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        ...

    def words(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, for showing where each token came from."""
        ...

    def locate(self, memory: Any, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where in a row's passage the tokens of an answer were taken from.

        Returns:
            Stretches in the order of the answer, neighbours joined; empty when the answer was
            not copied from this passage.
        """
        ...


@runtime_checkable
class Shrinking(Protocol):
    """A generator that can go on with some rows only."""

    def keep(self, memory: Any, state: Any, rows: "Tensor") -> tuple[Any, Any]:
        """Memory and state of `rows`, `[kept]`, in their order; a row may be named twice."""
        ...


@dataclass(frozen=True, slots=True)
class Ends:
    """New open ends, as many of each row as the row needs.

    Attributes:
        ids: The tokens written, `[rows, n]`.
        parents: The open end of the step before that each continues, `[rows, n]`.
        there: Whether a row has the end, `[rows, n]`; what else is said of the others is nothing.
    """

    ids: "Tensor"
    parents: "Tensor"
    there: "Tensor"


@dataclass(frozen=True, slots=True)
class Asked:
    """Tokens whose probability is wanted.

    Attributes:
        ids: `[rows, m]`.
        ends: The new open end that each would continue, `[rows, m]`.
        wanted: Which of them are asked for, `[rows, m]`.
    """

    ids: "Tensor"
    ends: "Tensor"
    wanted: "Tensor"


@runtime_checkable
class Asking(Protocol):
    """A generator that can say how likely given tokens are and leave the other tokens unsaid."""

    def ask(self, memory: Any, state: Any, ends: Ends, asked: Asked) -> "Tensor":
        """Write tokens as `step` does, and ask for some of those that may follow.

        Returns:
            Log p, 0 where nothing is asked for, `[rows, m]`, float32.
        """
        ...


@runtime_checkable
class Bounded(Protocol):
    """A generator whose answers may have a greatest length."""

    def longest_answer(self, memory: Any) -> int | None:
        """Tokens of the longest answer that it can write, without its end; None without bound.

        One number for all rows of a memory: that of the row with the least room.
        """
        ...


@runtime_checkable
class Quoting(Protocol):
    """A generator that reads passages in the tokens that it writes, and knows where they stand."""

    def quotable(self, memory: Any) -> "TokenRows":
        """The ids of every row, and a mask that is True at those of a passage.

        Titles and questions are no passages.
        """
        ...


@runtime_checkable
class Joining(Protocol):
    """A generator that can go on with what it read at different times as if it was read at once."""

    def join(self, memories: Sequence[Any]) -> Any:
        """The rows of several memories of `read`, one after another."""
        ...


@runtime_checkable
class Tokenising(Protocol):
    """A generator that knows the ids of a text."""

    def answer_ids(self, text: str) -> list[int]:
        """An answer as the ids that are learned: without the start token, with the end."""
        ...


class TrainableGenerator(Generator, Tokenising, Protocol):
    """A generator that gradients pass through; what `RagModel` sums over.

    `Memory` is what `memorise` makes; `read` is `memorise(rows(pairs))` without gradient, and the
    memory of `read` may hold more (the texts, for `locate`).
    """

    def rows(self, pairs: Sequence[Pair]) -> "TokenRows":
        """Pairs as padded ids, one row each, each within the window."""
        ...

    def memorise(self, rows: "TokenRows") -> Any:
        """Read rows of ids; differentiable."""
        ...

    def target_log_probs(self, memory: Any, targets: "Tensor") -> "Tensor":
        """Log p of targets (as `score`), `[rows, steps]`, float32, with gradient."""
        ...

    def next_logits(self, memory: Any, targets: "Tensor") -> "Tensor":
        """Logits of every token at each step given the target before it, `[rows, steps, v]`."""
        ...

    def parameters(self) -> Any:
        """As `torch.nn.Module.parameters`."""
        ...


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of ids, padded to one length.

    Attributes:
        ids: `[rows, length]`.
        mask: True at tokens, `[rows, length]`.
    """

    ids: "Tensor"
    mask: "Tensor"
