"""The sum over passages, or what stands in for it, with a model behind an endpoint.

A remote service shows no distributions, so of the ways to sum only RAG-Sequence is left, over a
few whole answers: every passage proposes candidates, every candidate is scored under every passage,
and the likeliest under the sum is the answer:

    y* = argmax over candidates y of  sum_d p(d | x) p(y | x, d)

Bayes' rule gives the posterior of the passages, exact for the answer that was chosen. A service
that does not score given answers leaves one prompt that holds all passages; nobody can tell then
which of them the answer came from, and the result says so.

Source: Lewis et al., 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks",
section 2.5 ("Thorough Decoding").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation.base import Pair
from consilience.generation.remote import RemoteGenerator, Writing
from consilience.model.fusion import answer_posterior, sequence_log_likelihood

RemoteFusion = Literal["sequence", "concat"]
REMOTE_FUSIONS: tuple[RemoteFusion, ...] = ("sequence", "concat")


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How a question is answered from afar.

    Attributes:
        fusion: `sequence` where the service can, else `concat`.
        writing: How candidates are written.
        most_characters: Of all passages together in one prompt, for `concat`; the likeliest
            passages come first and what does not fit is left out.
    """

    fusion: RemoteFusion = "sequence"
    writing: Writing = field(default_factory=Writing)
    most_characters: int = 12_000

    def __post_init__(self) -> None:
        if self.fusion not in REMOTE_FUSIONS:
            raise UsageError(
                f"unknown fusion {self.fusion!r} for a remote model",
                hint=f"choose one of: {', '.join(REMOTE_FUSIONS)}",
            )
        if self.most_characters < 1:
            raise UsageError(
                f"most_characters must be at least 1, received {self.most_characters}",
                hint="leave most_characters out for its default",
            )


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """What came back.

    Attributes:
        text: The answer; empty when the service wrote nothing.
        fusion: Which way it was made.
        reason: Why that way, one sentence.
        posterior: p(d | x, y) of every passage, `[k]`; None for `concat`.
        log_likelihood: log p(y | x) in nats; None for `concat`.
        alternatives: The other candidates with their log p(y | x), the likeliest first; without
            numbers, in the order they came, for `concat`.
        read: How many passages the model was shown, the last of them perhaps in part.
    """

    text: str
    fusion: RemoteFusion
    reason: str
    posterior: Tensor | None = None
    log_likelihood: float | None = None
    alternatives: tuple[tuple[str, float | None], ...] = ()
    read: int = 0


def answer_remotely(
    generator: RemoteGenerator,
    pairs: Sequence[Pair],
    log_prior: Tensor,
    *,
    options: RemoteOptions | None = None,
) -> RemoteAnswer:
    """Answer one question over its passages.

    Args:
        generator: The model.
        pairs: The question with each passage.
        log_prior: log p(d | x), `[k]`.
        options: How; None for the defaults.

    Raises:
        UsageError: No passages, or a prior of another length.
        RemoteError: The service fails or answers nonsense.
    """
    if not pairs or log_prior.shape != (len(pairs),):
        raise UsageError(
            f"{len(pairs)} passages and a prior of shape {list(log_prior.shape)}",
            hint="give one number for each passage, and at least one passage",
        )
    asked = options or RemoteOptions()
    if asked.fusion == "concat":
        return _concatenated(generator, pairs, log_prior, asked, "it was asked for")
    if generator.interface == "chat":
        reason = "a chat interface does not score given answers"
        return _concatenated(generator, pairs, log_prior, asked, reason)
    if not generator.can_score():
        reason = "the service does not tell how likely a given answer is"
        return _concatenated(generator, pairs, log_prior, asked, reason)
    return _summed(generator, pairs, log_prior, asked)


def _summed(
    generator: RemoteGenerator, pairs: Sequence[Pair], log_prior: Tensor, options: RemoteOptions
) -> RemoteAnswer:
    """RAG-Sequence over the candidates of all passages."""
    written = [one.text for each in generator.answers(pairs, options.writing) for one in each]
    candidates = [text for text in dict.fromkeys(written) if text]
    reason = "the service scores given answers, so every candidate was scored under every passage"
    if not candidates:
        return RemoteAnswer("", "sequence", "no passage led to a candidate", read=len(pairs))
    # An answer counts as one token of which log p is known, [m, k, 1].
    log_probs = torch.tensor(generator.scores(pairs, candidates)).T[..., None]
    prior = log_prior.float().cpu().expand(len(candidates), -1)
    mask = torch.ones(len(candidates), 1)
    likelihood = sequence_log_likelihood(prior, log_probs, mask)
    order = likelihood.argsort(descending=True, stable=True).tolist()
    best, *others = order
    return RemoteAnswer(
        text=candidates[best],
        fusion="sequence",
        reason=reason,
        posterior=answer_posterior(prior, log_probs, mask, fusion="sequence")[best],
        log_likelihood=float(likelihood[best]),
        alternatives=tuple((candidates[one], float(likelihood[one])) for one in others),
        read=len(pairs),
    )


def _concatenated(
    generator: RemoteGenerator,
    pairs: Sequence[Pair],
    log_prior: Tensor,
    options: RemoteOptions,
    reason: str,
) -> RemoteAnswer:
    """All passages in one prompt."""
    order = log_prior.argsort(descending=True, stable=True).tolist()
    told = _fitting([pairs[row] for row in order], options.most_characters)
    joined = Pair(pairs[0].question, "", "\n\n".join(told))
    (written,) = generator.answers([joined], options.writing)
    texts = list(dict.fromkeys(one.text for one in written if one.text)) or [""]
    return RemoteAnswer(
        text=texts[0],
        fusion="concat",
        reason=reason,
        alternatives=tuple((text, None) for text in texts[1:]),
        read=len(told),
    )


def _fitting(pairs: Sequence[Pair], most: int) -> list[str]:
    """Numbered passages of so many characters together; the last one may lose its end."""
    told: list[str] = []
    for number, pair in enumerate(pairs, 1):
        if most <= 0:
            break
        title = f"{pair.title}: " if pair.title else ""
        told.append(f"[{number}] {title}{pair.passage}"[:most])
        most -= len(told[-1])
    return told
