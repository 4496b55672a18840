"""`RagModel`: the sum as a torch module, for training and for whoever wants the tensors.

It joins a generator, a prior over given passages, and, where they are given, the encoders that the
prior comes from. Where the passages come from is not its affair. Gradients reach the generator, the
temperature of the prior, the weights of ranks, the attention over vectors, and both encoders, or
through `scores` whatever computed them.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.generation import TokenRows, TrainableGenerator
from consilience.model.attention_fusion import AttentionFusion, let_look
from consilience.model.averaging import RankWeights, uniform
from consilience.model.batch import (
    IGNORED,
    RagBatch,
    check_contexts,
    check_fusion,
    check_labels,
    check_scores,
    check_smoothing,
    needed,
    spread,
)
from consilience.model.fusion import (
    SUMMED,
    Fusion,
    answer_posterior,
    exact,
    log_likelihood,
    log_prior,
    marginal,
    mean_over_tokens,
    smoothing,
    step_weights,
    token_posteriors,
)
from consilience.model.vectors import VectorEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from consilience.model.checkpoints import TransformersRag

ABSENT = -1e9
"""The log weight of a passage that is not there: no infinity, whose gradient would be NaN."""


@dataclass(frozen=True, slots=True)
class RagOutput:
    """What `RagModel.forward` gives back.

    Attributes:
        log_prior: log p(d | x), or the weights of the average, `[b, k]`; None where there are no
            scores and the fusion needs none.
        loss: Mean over the questions of -log p(y | x), smoothed if asked for, in nats; None without
            labels.
        log_likelihood: log p(y | x), never smoothed, `[b]`; None without labels.
        posterior: p(d | x, y), `[b, k]`. Under `attention` the mean of the attention weights; None
            without labels, and under `fid` and `concat`, which mix passages where no sum tells
            them apart.
        token_posterior: The same of every token, `[b, k, t]`, zero at padding.
        logits: log p of every word at every step given the answer before it, `[b, t, v]`; None
            unless asked for. Under `sequence` the weights of a step are the posterior given what
            was written, so the answer's entries add up to `log_likelihood` under every fusion.
    """

    log_prior: Tensor | None = None
    loss: Tensor | None = None
    log_likelihood: Tensor | None = None
    posterior: Tensor | None = None
    token_posterior: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Passages:
    """What is known of a batch's passages before the generator reads.

    Attributes:
        present: True where there is a passage, `[b, k]`.
        log_prior: As `RagOutput.log_prior`.
        vectors: `[b, k, size]`, if there are any.
    """

    present: Tensor
    log_prior: Tensor | None
    vectors: Tensor | None


@dataclass(frozen=True, slots=True)
class _Written:
    """What the generator says of the targets.

    Attributes:
        log_probs: Of the target tokens, `[b, rows, t]`.
        full: Of every word, `[b, rows, t, v]`; None unless asked for.
        shares: Attention over passages, `[b, k, t]`; None but for the fusion `attention`.
    """

    log_probs: Tensor
    full: Tensor | None = None
    shares: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Targets:
    """Labels as the generator takes them: `ids` padded with its end, and `mask`, both `[b, t]`."""

    ids: Tensor
    mask: Tensor


class RagModel(nn.Module):
    """`p(y | x) = sum over d of p(d | x) p(y | x, d)` over passages that are given.

    Args:
        generator: p(y | x, d).
        question_encoder: Vectors of questions, for scores that are not given.
        passage_encoder: Vectors of passages that are given as ids.
        temperature: Of the prior, a parameter from here on.
        attention: For the fusion `attention`.
        ranks: Weights for the fusion `average`; None for the plain mean.

    Attributes:
        checkpoint: Whose parts these are, when they come from a checkpoint of transformers.
    """

    def __init__(
        self,
        generator: TrainableGenerator,
        *,
        question_encoder: VectorEncoder | None = None,
        passage_encoder: VectorEncoder | None = None,
        temperature: float = 1.0,
        attention: AttentionFusion | None = None,
        ranks: RankWeights | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.question_encoder, self.passage_encoder = question_encoder, passage_encoder
        self.attention, self.ranks = attention, ranks
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.checkpoint: TransformersRag | None = None

    @classmethod
    def from_pretrained(cls, name: "str | Path") -> "RagModel":
        """The sum of a checkpoint of transformers' RAG classes, with its encoders.

        Args:
            name: A folder, or a hub id such as `facebook/rag-token-nq`.

        Raises:
            MissingError, DamagedError, UsageError: As `checkpoints.load_transformers_rag`.
        """
        from consilience.model.checkpoints import checkpoint_folder, load_transformers_rag
        from consilience.model.loading import sum_of

        folder = checkpoint_folder(name)
        return sum_of(load_transformers_rag(folder), folder)

    def save_pretrained(self, path: "str | Path") -> None:
        """Write the weights as they are now as a checkpoint that transformers' RAG classes load.

        Raises:
            UsageError: The model does not come from such a checkpoint, or it has a temperature,
                which a checkpoint has no place for.
        """
        from consilience.model.loading import save_checkpoint

        save_checkpoint(self, path)

    @property
    def temperature(self) -> Tensor:
        """Scores are divided by it before the softmax; float32."""
        return self.log_temperature.float().exp()

    def rank_weights(self, present: Tensor) -> Tensor:
        """What each rank counts under `average`, as `RankWeights.forward`; the mean without."""
        weights: Tensor = uniform(present) if self.ranks is None else self.ranks(present)
        return weights

    def forward(
        self,
        question_ids: Tensor | None = None,
        context_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        question_mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        scores: Tensor | None = None,
        passage_vectors: Tensor | None = None,
        passage_ids: Tensor | None = None,
        passage_mask: Tensor | None = None,
        fusion: Fusion = "sequence",
        return_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> RagOutput:
        """The sum for a batch of questions.

        The prior comes from `scores`, or is `<q(x), d>` with q from `question_ids` and d from
        `passage_vectors` or, with gradient into both encoders, from `passage_ids`. Wherever a mask
        is left out, every id is a token.

        Args:
            question_ids: For the question encoder, `[b, q]`.
            context_ids: The generator's rows, as `generator.rows` makes them, `[b, k, l]`; one
                row a question, `[b, 1, l]`, for `attention`, which reads the question alone, and
                `concat`, which reads it with all passages.
            labels: Answers with their end token, padded with -100, `[b, t]`.
            question_mask: True at tokens, `[b, q]`.
            context_mask: True at tokens, `[b, k, l]`.
            scores: Of a retriever, `[b, k]`; minus infinity where there is no passage.
            passage_vectors: Of passages, `[b, k, size]`.
            passage_ids: For the passage encoder, `[b, k, p]`.
            passage_mask: True at tokens, `[b, k, p]`; a passage without any is not there.
            fusion: Where the sum stands, see `consilience.model.fusion`.
            return_logits: Whether to compute `logits`, which needs labels to condition on.
            label_smoothing: See `fusion.smoothing`; 0 for none.

        Raises:
            UsageError: Something is missing for this fusion, does not fit together, is out of the
                vocabulary, or is NaN. The message says what, and which question.
        """
        check_fusion(fusion)
        check_smoothing(label_smoothing)
        batch = RagBatch(
            question_ids=question_ids,
            question_mask=question_mask,
            context_ids=context_ids,
            context_mask=context_mask,
            passage_ids=passage_ids,
            passage_mask=passage_mask,
            passage_vectors=passage_vectors,
            scores=scores,
            labels=labels,
        )
        passages = self._passages(batch, fusion)
        if labels is None:
            return RagOutput(passages.log_prior)
        targets = self._targets(labels, len(passages.present))
        written = self._write(
            batch, passages, targets, fusion=fusion, full=return_logits or label_smoothing > 0
        )
        output = _summed(passages, written, targets.mask, fusion=fusion, strength=label_smoothing)
        return output if return_logits else replace(output, logits=None)

    def _passages(self, batch: RagBatch, fusion: Fusion) -> _Passages:
        vectors = self._vectors(batch)
        scores = self._scores(batch, vectors)
        present = _present(batch, scores, vectors)
        if fusion == "average":
            return _Passages(present, self.rank_weights(present).clamp_min(ABSENT), vectors)
        if scores is None:
            if fusion in SUMMED:
                raise UsageError(
                    f"the fusion {fusion} needs scores, received neither scores nor what they "
                    "could be computed from",
                    hint="pass scores=, or question_ids= with passage_vectors= or passage_ids= to "
                    "a RagModel that has the encoders",
                )
            return _Passages(present, None, vectors)
        prior = log_prior(scores, self.temperature).clamp_min(ABSENT)
        return _Passages(present, prior, vectors)

    def _scores(self, batch: RagBatch, vectors: Tensor | None) -> Tensor | None:
        """Scores given or computed, `[b, k]`, checked; None where there is nothing to have them."""
        if batch.scores is not None:
            scores = exact(batch.scores)
        elif vectors is not None and batch.question_ids is not None:
            rows = batch.questions()
            asked = _required(self.question_encoder, "question_encoder")(rows.ids, rows.mask)
            # Written as a product and a sum: autocast would take a matrix product to bfloat16.
            scores = (exact(asked)[:, None, :] * exact(vectors)).sum(-1)
            if batch.passage_mask is not None:
                there = batch.passages().mask.any(-1)
                scores = scores.masked_fill(~there, float("-inf"))
        else:
            return None
        check_scores(scores)
        return scores

    def _vectors(self, batch: RagBatch) -> Tensor | None:
        """Vectors of passages given or encoded, `[b, k, size]`; None without either."""
        if batch.passage_vectors is not None:
            if not bool(batch.passage_vectors.isfinite().all()):
                raise UsageError(
                    "passage_vectors hold numbers that are not finite",
                    hint="look at the encoder that made them",
                )
            return batch.passage_vectors
        if batch.passage_ids is None:
            return None
        rows = batch.passages()
        there = rows.mask.any(-1)
        encoder = _required(self.passage_encoder, "passage_encoder")
        return spread(encoder(rows.ids[there], rows.mask[there]), there)

    def _targets(self, labels: Tensor, questions: int) -> _Targets:
        check_labels(labels, questions, self.generator.vocabulary_size)
        mask = labels != IGNORED
        return _Targets(labels.masked_fill(~mask, self.generator.end), mask)

    def _write(
        self, batch: RagBatch, passages: _Passages, targets: _Targets, *, fusion: Fusion, full: bool
    ) -> _Written:
        """Log p of the targets given each row that the fusion reads."""
        rows = batch.contexts()
        check_contexts(rows, passages.present, fusion, self.generator.vocabulary_size)
        if fusion == "fid":
            return self._together(rows, passages.present, targets, full=full)
        if fusion == "attention":
            return self._looking(rows, passages, targets, full=full)
        there = passages.present if fusion in SUMMED else _one_row(passages.present)
        memory = self.generator.memorise(TokenRows(rows.ids[there], rows.mask[there]))
        ids = targets.ids[:, None, :].expand(-1, there.shape[1], -1)[there]
        return self._ask(memory, ids, there, full=full)

    def _ask(self, memory: Any, ids: Tensor, there: Tensor, *, full: bool) -> _Written:
        """Log p of `[rows, t]` targets; `there` `[b, k]` says where each row stands."""
        if not full:
            return _Written(spread(self.generator.target_log_probs(memory, ids), there))
        words = exact(self.generator.next_logits(memory, ids)).log_softmax(-1)
        chosen = words.gather(-1, ids[..., None])[..., 0]
        return _Written(spread(chosen, there), spread(words, there))

    def _together(
        self, rows: TokenRows, present: Tensor, targets: _Targets, *, full: bool
    ) -> _Written:
        """Fusion-in-Decoder; questions with equally many passages are read at once."""
        counts = present.sum(-1)
        parts, order = [], []
        for count in sorted(set(counts.tolist())):
            chosen = (counts == count).nonzero()[:, 0]
            there = present[chosen]
            ids, mask = rows.ids[chosen][there], rows.mask[chosen][there]
            memory = self.generator.together(self.generator.memorise(TokenRows(ids, mask)), count)
            parts.append(self._ask(memory, targets.ids[chosen], _one_row(there), full=full))
            order.append(chosen)
        back = torch.cat(order).argsort()
        whole = [part.full for part in parts if part.full is not None]
        return _Written(
            torch.cat([part.log_probs for part in parts])[back],
            torch.cat(whole)[back] if whole else None,
        )

    def _looking(
        self, rows: TokenRows, passages: _Passages, targets: _Targets, *, full: bool
    ) -> _Written:
        """The generator reads the question, and its input attends to vectors of passages."""
        vectors = needed(passages.vectors, "passage_vectors")
        looking = _required(self.attention, "attention").over(vectors, passages.present)
        memory = self.generator.memorise(TokenRows(rows.ids[:, 0], rows.mask[:, 0]))
        let_look(memory, looking)
        written = self._ask(memory, targets.ids, _one_row(passages.present), full=full)
        assert looking.shares is not None
        shares = looking.shares[:, -targets.ids.shape[1] :].transpose(1, 2)
        return _Written(written.log_probs, written.full, shares * targets.mask[:, None, :])


def _summed(
    passages: _Passages, written: _Written, mask: Tensor, *, fusion: Fusion, strength: float
) -> RagOutput:
    """The loss and the posteriors of what was written."""
    weights = passages.log_prior if fusion in SUMMED else None
    if weights is None:
        weights = torch.zeros_like(written.log_probs[..., 0])
    likelihood = log_likelihood(weights, written.log_probs, mask, fusion=fusion)
    loss = -likelihood
    if strength > 0 and written.full is not None:
        extra = smoothing(weights, written.log_probs, written.full, mask, fusion=fusion)
        loss = loss + strength * extra
    posterior, tokens = _posteriors(weights, written, mask, fusion)
    return RagOutput(
        log_prior=passages.log_prior,
        loss=loss.mean(),
        log_likelihood=likelihood,
        posterior=posterior,
        token_posterior=tokens,
        logits=_logits(weights, written, mask, fusion),
    )


def _posteriors(
    weights: Tensor, written: _Written, mask: Tensor, fusion: Fusion
) -> tuple[Tensor | None, Tensor | None]:
    """Of the answer and of every token, where the fusion has any."""
    if written.shares is not None:
        return mean_over_tokens(written.shares, mask), written.shares
    if fusion not in SUMMED:
        return None, None
    return (
        answer_posterior(weights, written.log_probs, mask, fusion=fusion),
        token_posteriors(weights, written.log_probs, mask, fusion=fusion),
    )


def _logits(weights: Tensor, written: _Written, mask: Tensor, fusion: Fusion) -> Tensor | None:
    """Log p of every word at every step, `[b, t, v]`."""
    if written.full is None:
        return None
    kept = written.log_probs.masked_fill(~mask[:, None, :], 0.0)
    return marginal(step_weights(weights, kept, fusion=fusion), written.full)


def _present(batch: RagBatch, scores: Tensor | None, vectors: Tensor | None) -> Tensor:
    """Which passages are there, `[b, k]`: those with a score, a vector, or a token to read."""
    if scores is not None:
        return scores > float("-inf")
    if batch.passage_ids is not None:
        return batch.passages().mask.any(-1)
    if vectors is not None:
        return torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    rows = batch.contexts()
    if rows.ids.dim() != 3:
        raise UsageError(
            f"context_ids must be [questions, passages, length], received {list(rows.ids.shape)}",
            hint="one row for each passage of each question",
        )
    return rows.mask.any(-1)


def _one_row(present: Tensor) -> Tensor:
    """`[b, 1]`, true: for the fusions that have one row a question."""
    return torch.ones_like(present[:, :1])


_Part = TypeVar("_Part")


def _required(part: _Part | None, name: str) -> _Part:
    """A part of the model that this call cannot do without."""
    if part is None:
        raise UsageError(
            f"this model has no {name}", hint=f"build it with RagModel(generator, {name}=…)"
        )
    return part
