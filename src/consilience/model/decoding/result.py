"""What a search gives back, worked out from what every passage gave to every token.

A search may rank by penalised scores; the numbers here are those of the sum by its definition, from
the log p of each token given each passage, so every search's answers can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.generation import Generator
from consilience.model.decoding.opening import Opening, Prospect
from consilience.model.decoding.options import DecodingOptions, Sum
from consilience.model.decoding.stopping import Stops
from consilience.model.fusion import answer_posterior, log_likelihood, token_posteriors


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer to one question; tensors lie on the processor.

    Attributes:
        ids: Tokens without start and end; those of a stop string are left out, too.
        log_likelihood: log p(y | x) given that an answer exists, in nats; the end and a stop
            string are counted, a token that was forced to be first is not.
        posterior: p(d | x, y), `[k]`.
        token_posteriors: p(d | x, y_t, y_<t) of each token, `[tokens, k]`.
        support: The share of the prior whose passages hold an answer, from 0 to 1.
        supports: The same of each passage alone, `[k]`.
        score: What the search ranked it by.
        ended: Whether the end was written, rather than the answer cut at its limit or stopped.
        stopped_by: The stop string that ended it, or None.
        stopped_text: The text before that string, or None; the last token may reach into it.
    """

    ids: list[int]
    log_likelihood: float
    posterior: Tensor
    token_posteriors: Tensor
    support: float
    supports: Tensor
    score: float
    ended: bool
    stopped_by: str | None = None
    stopped_text: str | None = None

    def text(self, generator: Generator) -> str:
        """The answer in words, up to where a stop string began."""
        return generator.decode(self.ids) if self.stopped_text is None else self.stopped_text


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer as its search left it.

    Attributes:
        ids: All that was written, the end included.
        given: Log p of each of them given each passage, `[k, tokens]`.
        score: What it is ranked by.
        ended: Whether the last is the end.
        stopped_by: The stop string in it, or None.
        lane: Which sample it is.
    """

    ids: list[int]
    given: Tensor
    score: float
    ended: bool
    stopped_by: str | None = None
    lane: int = 0


def posteriors(log_weights: Tensor, given: Tensor, fusion: Sum) -> Tensor:
    """p(d | x, y_<=t) after each token for RAG-Sequence, p(d | x, y_t, y_<t) of each otherwise.

    Args:
        log_weights: log prior, `[k]`.
        given: Log p of each token given each passage, `[k, t]`.
        fusion: Where the sum stands.

    Returns:
        `[t, k]`.
    """
    return token_posteriors(log_weights[None], given[None], _all(given), fusion=fusion)[0].T


def _all(given: Tensor) -> Tensor:
    """A mask of every token."""
    return torch.ones(1, given.shape[-1], dtype=torch.bool)


def results(
    answers: Sequence[Sequence[Finished]],
    opening: Opening,
    generator: Generator,
    options: DecodingOptions,
) -> list[list[Decoded]]:
    """Answers of every question, in the order given."""
    before = opening.each()
    return [
        [decoded(one, prospect, generator, options.fusion) for one in found]
        for found, prospect in zip(answers, before, strict=True)
    ]


def decoded(one: Finished, before: Prospect, generator: Generator, fusion: Sum) -> Decoded:
    """An answer in the numbers of the sum.

    Args:
        one: As its search left it.
        before: What stood before its first token.
        generator: That wrote it.
        fusion: Where the sum stands.
    """
    given = one.given.cpu()
    ids, text = shown(one, generator)
    log_weights = before.log_weights
    told = (log_weights[None], given[None], _all(given))
    return Decoded(
        ids=ids,
        log_likelihood=float(log_likelihood(*told, fusion=fusion)),
        posterior=answer_posterior(*told, fusion=fusion)[0],
        token_posteriors=posteriors(log_weights, given, fusion)[: len(ids)],
        support=before.support,
        supports=before.supports,
        score=one.score,
        ended=one.ended,
        stopped_by=one.stopped_by,
        stopped_text=text,
    )


def shown(one: Finished, generator: Generator) -> tuple[list[int], str | None]:
    """What was written without the end; before a stop string, also the text that stays."""
    ids = one.ids[: len(one.ids) - one.ended]
    if one.stopped_by is None:
        return ids, None
    text = Stops(generator, (one.stopped_by,)).before(generator.decode(ids))
    # The space before a stop string is no token of its own in a vocabulary of words.
    least = len(text.rstrip())
    lengths = (len(generator.decode(ids[:count])) for count in range(len(ids)))
    enough = next((count for count, length in enumerate(lengths) if length >= least), len(ids))
    return ids[:enough], text


def pad_answers(answers: Sequence[Sequence[int]], *, end: int) -> Tensor:
    """Answers as `[b, t]`, each followed by at least one `end`."""
    length = max(map(len, answers)) + 1
    return torch.tensor([[*ids, *[end] * (length - len(ids))] for ids in answers])
