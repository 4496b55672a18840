"""Answers that stand word for word in a passage.

A token may be written where some passage of the question goes on with it after all that was written
before; the end may follow any token. What a passage does not say is left out of the search, and the
probabilities of the rest stay those of the sum: nothing is scaled up.

Letters: `b` questions, `n` open ends of a question, `t` tokens written, `v` the vocabulary; places
are those of all rows of a question, one row after another.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from consilience.errors import UsageError
from consilience.generation import Generator, NextToken, Quoting


@dataclass(frozen=True, slots=True)
class Quotable:
    """What the questions of a batch may be answered with.

    Attributes:
        ids: What was read, `[b, places]`.
        inside: True at tokens of passages, `[b, places]`; False between any two passages.
        end: The id that ends an answer.
    """

    ids: Tensor
    inside: Tensor
    end: int

    @classmethod
    def of(cls, generator: Generator, memory: Any, *, questions: int) -> Self:
        """The passages that a generator has read.

        Args:
            generator: Whose memory it is.
            memory: Of rows in equal number for each question, question-major.
            questions: How many.

        Raises:
            UsageError: The generator does not know its passages by the tokens that it writes.
        """
        if not isinstance(generator, Quoting):
            raise UsageError(
                f"{type(generator).__name__} cannot be held to quotations: it does not say which "
                "of the tokens that it writes stand in a passage",
                hint="leave out quote, or take a model of the kind that ships",
            )
        read = generator.quotable(memory)
        # A place behind each row that is in no passage, for none goes on in the next row.
        ids, inside = functional.pad(read.ids, (0, 1)), functional.pad(read.mask, (0, 1))
        return cls(ids.reshape(questions, -1), inside.reshape(questions, -1), generator.end)

    def only(self, questions: Tensor) -> Self:
        """Some of the questions."""
        return type(self)(self.ids[questions], self.inside[questions], self.end)

    def limit(self, following: NextToken, written: Tensor) -> NextToken:
        """A step's distribution with zero at every token that would be no quotation.

        Args:
            following: `[s, n, v]`, the searches of a question side by side.
            written: What was written before, `[s, n, t]`.
        """
        s, n, v = following.weights.shape
        # Searches of one question are open ends of it: they may quote the same.
        ends = written.reshape(len(self.ids), s * n // len(self.ids), -1)
        allowed = self._going_on(ends, v, following.weights.dtype).view(s, n, v)
        return NextToken(following.weights * allowed, following.totals)

    def _going_on(self, written: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """1 at the tokens that may follow `[b, n, t]`, 0 at the others, `[b, n, v]`."""
        b, n, t = written.shape
        here = self.inside[:, None, t:].expand(b, n, -1)
        if t:
            stretches = self.ids.unfold(1, t, 1)[:, None, :-1]
            whole = self.inside.unfold(1, t, 1).all(-1)[:, None, :-1]
            here = here & whole & (stretches == written[:, :, None]).all(-1)
        allowed = torch.zeros(b, n, size, dtype=dtype, device=written.device)
        followers = self.ids[:, None, t:].expand(b, n, -1)
        allowed.scatter_add_(-1, followers, here.to(dtype)).clamp_(max=1.0)
        # A question whose passages are empty is answered with nothing.
        allowed[..., self.end] = 1.0 if t else (~self.inside.any(-1))[:, None].to(dtype)
        return allowed
