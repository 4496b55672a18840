"""What a generator reads for one question, and what each passage has to do with what it wrote.

The one place where the fusions differ when a question is answered. Whatever the fusion, the rest
sees the same: a memory to write from, the weights of its rows, and shares of passages afterwards.

Under `sequence`, `token` and `average` the shares are those of the sum itself. `fid` and `concat`
mix passages where no sum tells them apart; there each passage is asked alone how likely it makes
the answer that was written, and the shares are `p(d | x, y)` by Bayes' rule on that. Under
`attention` they are the attention weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from consilience.encoding import Encoder
from consilience.errors import UsageError
from consilience.generation import Generator, Pair
from consilience.model.attention_fusion import Looking, let_look
from consilience.model.decoding import Decoded
from consilience.model.fusion import SUMMED, Fusion, answer_posterior, log_prior, token_posteriors
from consilience.model.rag_model import RagModel
from consilience.retrieval import Hit
from consilience.store.embedding import embedding_text


@dataclass(frozen=True, slots=True)
class Reading:
    """One question with its passages, read.

    Attributes:
        generator: Whose memories these are.
        fusion: Where the sum stands.
        log_prior: Weights of the passages, `[1, k]`.
        memory: What is written from.
        log_weights: Of the rows of `memory`, `[1, rows]`.
        passages: One row a passage, for quotes and shares; None under `attention`.
        looking: Only under `attention`.
    """

    generator: Generator
    fusion: Fusion
    log_prior: Tensor
    memory: Any
    log_weights: Tensor
    passages: Any | None = None
    looking: Looking | None = None

    def shares(self, written: Decoded) -> "Shares":
        """What each passage has to do with an answer."""
        if self.fusion in SUMMED:
            return Shares(written.posterior, written.token_posteriors)
        if not written.ids:
            return Shares(self.log_prior[0].exp(), self.log_prior.new_zeros(0, self.k))
        if self.looking is not None:
            return self._looked(written.ids)
        return self._judged(written.ids)

    @property
    def k(self) -> int:
        """How many passages there are."""
        return self.log_prior.shape[1]

    def _looked(self, ids: list[int]) -> "Shares":
        """Where the generator looks when it writes the answer again."""
        assert self.looking is not None
        self.generator.score(self.memory, torch.tensor([ids], device=self.log_prior.device))
        assert self.looking.shares is not None
        tokens = self.looking.shares[0, -len(ids) :]
        return Shares(tokens.mean(0), tokens)

    def _judged(self, ids: list[int]) -> "Shares":
        """Bayes' rule on the answer, every passage asked alone."""
        targets = torch.tensor([[*ids, self.generator.end]], device=self.log_prior.device)
        log_probs = self.generator.score(self.passages, targets.expand(self.k, -1))[None]
        mask = torch.ones_like(targets, dtype=torch.bool)
        tokens = token_posteriors(self.log_prior, log_probs, mask, fusion="sequence")
        whole = answer_posterior(self.log_prior, log_probs, mask, fusion="sequence")
        return Shares(whole[0], tokens[0, :, :-1].T)


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the passages in an answer, `[k]`, and in each of its tokens, `[tokens, k]`."""

    whole: Tensor
    tokens: Tensor


@torch.inference_mode()
def read(
    model: RagModel,
    asked: str,
    hits: Sequence[Hit],
    *,
    fusion: Fusion,
    encoder: Encoder | None,
    temperature: float | None = None,
) -> Reading:
    """Read a question over its passages in the way that a fusion needs.

    Args:
        model: The sum.
        asked: The question.
        hits: The passages with their scores, at least one.
        fusion: Where the sum stands.
        encoder: Of passages; needed for `attention` only.
        temperature: Of the prior; None for the model's.

    Raises:
        UsageError: The model cannot do this fusion.
    """
    generator = model.generator
    scores = torch.tensor([[hit.score for hit in hits]], device=generator.device)
    own = model.temperature.to(scores.device)
    prior = log_prior(scores, own if temperature is None else temperature)
    if fusion == "attention":
        return _looking(model, asked, hits, prior, encoder)
    rows = generator.read([Pair(asked, hit.passage.title, hit.passage.text) for hit in hits])
    if fusion in SUMMED:
        there = torch.ones_like(prior, dtype=torch.bool)
        weights = model.rank_weights(there) if fusion == "average" else prior
        return Reading(generator, fusion, weights, rows, weights, passages=rows)
    if fusion == "fid":
        memory = generator.together(rows, len(hits))
    else:
        memory = generator.read([joined(asked, [hit.passage for hit in hits])])
    return Reading(generator, fusion, prior, memory, prior.new_zeros(1, 1), passages=rows)


class Titled(Protocol):
    """A passage, as far as a generator reads it."""

    @property
    def title(self) -> str:
        """Of its document."""
        ...

    @property
    def text(self) -> str:
        """Its own."""
        ...


def joined(asked: str, passages: Sequence[Titled]) -> Pair:
    """All passages in one text, the best first, so that the worst is what a full window cuts."""
    texts = [embedding_text(passage.title, passage.text) for passage in passages]
    return Pair(asked, "", "\n\n".join(texts))


def _looking(
    model: RagModel, asked: str, hits: Sequence[Hit], prior: Tensor, encoder: Encoder | None
) -> Reading:
    """The question alone is read as text; passages are seen as vectors."""
    if model.attention is None:
        raise UsageError(
            "this model was not trained with attention over passage vectors",
            hint="take another fusion: sequence, token, average, fid or concat",
        )
    if encoder is None:
        raise UsageError(
            "the fusion attention needs vectors of passages, and this model has no encoder",
            hint="Rag.of(…, encoder=…)",
        )
    texts = [embedding_text(hit.passage.title, hit.passage.text) for hit in hits]
    vectors = torch.from_numpy(encoder.encode_passages(texts)).to(prior.device)[None]
    looking = model.attention.over(vectors, torch.ones_like(prior, dtype=torch.bool))
    memory = model.generator.read([Pair(asked, "", "")])
    let_look(memory, looking)
    return Reading(
        model.generator, "attention", prior, memory, prior.new_zeros(1, 1), looking=looking
    )
