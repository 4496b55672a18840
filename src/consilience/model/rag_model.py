"""`RagModel`: the sum as a torch module, for training and for whoever wants the tensors.

It joins a generator and a prior over given passages; where the passages come from is not its
affair. Gradients reach the generator, the temperature of the prior, and, through `scores`, whatever
computed them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.generation import CompactGenerator, TokenRows
from consilience.generation.reading import Row, collate
from consilience.model.fusion import (
    FUSIONS,
    Fusion,
    answer_posterior,
    log_likelihood,
    log_prior,
    marginal,
)

IGNORED = -100


@dataclass(frozen=True, slots=True)
class RagOutput:
    """What `RagModel.forward` gives back.

    Attributes:
        log_prior: log p(d | x), `[b, k]`.
        loss: Mean over the questions of -log p(y | x), in nats; None without labels.
        log_likelihood: log p(y | x), `[b]`; None without labels.
        posterior: p(d | x, y), `[b, k]`; None without labels.
        logits: log of the sum over passages at every step under RAG-Token's weights,
            `[b, t, vocabulary]`; None unless asked for.
    """

    log_prior: Tensor
    loss: Tensor | None = None
    log_likelihood: Tensor | None = None
    posterior: Tensor | None = None
    logits: Tensor | None = None


class RagModel(nn.Module):
    """`p(y | x) = sum over d of p(d | x) p(y | x, d)` over passages that are given.

    Args:
        generator: p(y | x, d).
        temperature: Of the prior, a parameter from here on.
    """

    def __init__(self, generator: CompactGenerator, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.generator = generator
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def forward(
        self,
        question_ids: Tensor,
        passage_ids: Tensor,
        scores: Tensor,
        labels: Tensor | None = None,
        *,
        fusion: Fusion = "sequence",
        return_logits: bool = False,
    ) -> RagOutput:
        """The sum for a batch of questions.

        Args:
            question_ids: Padded with the tokenizer's padding, `[b, q]`.
            passage_ids: Titles and passages, padded alike, `[b, k, p]`.
            scores: Of the retriever, `[b, k]`; minus infinity where there is no passage.
            labels: Answers with their end token, padded with -100, `[b, t]`.
            fusion: `sequence` or `token`.
            return_logits: Whether to compute `logits`, which needs labels to condition on.

        Raises:
            UsageError: An unknown fusion, scores that are NaN, or a question without passages.
        """
        _check(scores, fusion)
        prior = log_prior(scores, self.log_temperature.exp()).clamp_min(-1e9)
        if labels is None:
            return RagOutput(prior)
        b, k = scores.shape
        mask = labels != IGNORED
        targets = labels.masked_fill(~mask, self.generator.end)
        memory = self.generator.memorise(self._rows(question_ids, passage_ids))
        spread = targets.repeat_interleave(k, dim=0)
        log_probs = self.generator.target_log_probs(memory, spread).view(b, k, -1)
        likelihood = log_likelihood(prior, log_probs, mask, fusion=fusion)
        logits = None
        if return_logits:
            full = self.generator.next_logits(memory, spread).log_softmax(-1)
            steps = prior[..., None].expand(b, k, full.shape[1])
            logits = marginal(steps, full.view(b, k, *full.shape[1:]))
        return RagOutput(
            log_prior=prior,
            loss=-likelihood.mean(),
            log_likelihood=likelihood,
            posterior=answer_posterior(prior, log_probs, mask, fusion=fusion),
            logits=logits,
        )

    def _rows(self, question_ids: Tensor, passage_ids: Tensor) -> TokenRows:
        words = self.generator.tokens
        rows = []
        for question, passages in zip(question_ids, passage_ids, strict=True):
            asked = question[question != words.pad].tolist()
            for passage in passages:
                told = passage[passage != words.pad].tolist()
                head = [words.start, *asked, words.separator]
                rows.append(Row([*head, *told, words.separator], len(head), []))
        return collate(rows, words=words)


def _check(scores: Tensor, fusion: str) -> None:
    if fusion not in FUSIONS:
        raise UsageError(f"unknown fusion {fusion!r}", hint=f"choose one of: {', '.join(FUSIONS)}")
    if bool(scores.isnan().any()):
        row = int(scores.isnan().any(-1).nonzero()[0])
        raise UsageError(
            f"the scores of question {row} are not numbers (NaN)",
            hint="look at the retriever: its vectors may hold NaN",
        )
    if bool((scores == float("-inf")).all(-1).any()):
        raise UsageError("a question has no passage", hint="leave it out of the batch")
