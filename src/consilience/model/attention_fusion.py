"""Attention over passage vectors inside the generator: the fusion `attention`.

At every position the generator looks at the vectors of the passages, and what it finds is added to
its input:

    alpha_i = softmax over i of (h' W d_i)        h + P sum_i alpha_i d_i

h is the input embedding `[hidden]`, d_i the vector of passage i `[size]`, W `[hidden, size]` and P
`[hidden, size]` are learned. P starts at zero, so an untrained fusion leaves the generator as it
was. Passages enter as vectors only: a long list costs next to nothing, and what a vector does not
hold cannot be written. So it serves topics, relations and classes well, and exact wording not at
all; for that take `sequence`, `token` or `fid`.

What it reports as shares of passages are the weights alpha: where the generator looked. They are
attention weights, not a posterior by Bayes' rule.

Source: Bahdanau et al., 2015, "Neural Machine Translation by Jointly Learning to Align and
Translate", with the bilinear score of Luong et al., 2015, over passages instead of words.

It knows tensors. A generator takes part by having an `augment` on its memory, a function from input
embeddings to input embeddings.
"""

from typing import Any

import torch
from torch import Tensor, nn

from consilience.errors import UsageError


class AttentionFusion(nn.Module):
    """The learned part: how positions are compared with vectors, and what is added.

    Args:
        hidden_size: Of the generator's input embeddings.
        vector_size: Of the passages' vectors.
    """

    def __init__(self, hidden_size: int, vector_size: int) -> None:
        super().__init__()
        self.compare = nn.Linear(vector_size, hidden_size, bias=False)
        self.project = nn.Linear(vector_size, hidden_size, bias=False)
        nn.init.normal_(self.compare.weight, std=(hidden_size * vector_size) ** -0.5)
        nn.init.zeros_(self.project.weight)

    def shares(self, states: Tensor, vectors: Tensor, present: Tensor) -> Tensor:
        """The weights alpha.

        Args:
            states: Input embeddings, `[b, n, hidden]`.
            vectors: Of passages, `[b, k, size]`.
            present: True where there is a passage, `[b, k]`.

        Returns:
            `[b, n, k]`, float32, each a distribution over the passages that are there.
        """
        keys = self.compare(vectors)
        scores = (states @ keys.transpose(-1, -2)).float()
        shares: Tensor = scores.masked_fill(~present[:, None, :], float("-inf")).softmax(-1)
        return shares

    def over(self, vectors: Tensor, present: Tensor) -> "Looking":
        """The function that augments a generator's input for a batch of questions.

        Raises:
            UsageError: Vectors of another size.
        """
        size = self.compare.in_features
        if vectors.shape[-1] != size:
            raise UsageError(
                f"the attention fusion was built for vectors of {size} numbers, "
                f"received vectors of {vectors.shape[-1]}",
                hint="take the encoder that it was trained with",
            )
        return Looking(self, vectors.to(self.compare.weight.dtype), present)


class Looking:
    """One batch seen through an `AttentionFusion`; called with input embeddings.

    Attributes:
        shares: The weights alpha of the last call, `[b, n, k]`; None before it.
    """

    def __init__(self, fusion: AttentionFusion, vectors: Tensor, present: Tensor) -> None:
        self._fusion, self._vectors, self._present = fusion, vectors, present
        self.shares: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        """`[b, n, hidden]` input embeddings to the same with the passages looked at."""
        self.shares = self._fusion.shares(states, self._vectors, self._present)
        seen = torch.bmm(self.shares.to(self._vectors.dtype), self._vectors)
        added: Tensor = self._fusion.project(seen)
        return states + added.to(states.dtype)


def let_look(memory: Any, looking: Looking) -> None:
    """Give a generator's memory sight of passage vectors.

    Raises:
        UsageError: This kind of generator has no place for them.
    """
    if not hasattr(memory, "augment"):
        raise _blind()
    memory.augment = looking


def untrained(generator: Any, vector_size: int) -> AttentionFusion:
    """An attention fusion of a generator's size, which changes nothing before it has learned.

    Raises:
        UsageError: This kind of generator has no place for one.
    """
    size: int | None = getattr(generator, "input_size", None)
    if size is None:
        raise _blind()
    return AttentionFusion(size, vector_size).to(generator.device)


def _blind() -> UsageError:
    return UsageError(
        "this generator has no input that passage vectors could be added to",
        hint="take the fusion sequence, token or fid",
    )
