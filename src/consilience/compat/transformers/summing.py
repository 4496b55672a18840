"""`RagTokenForGeneration` and `RagSequenceForGeneration`: where the sum is taken.

Both run `RagModel`, add up what it says, by token or by answer (`losses`), and write answers
(`generating`). Arguments and their order are those of transformers, hence their number.

Unlike there, `output_logits=False` computes a loss without the logits, which then are None: an
answer of 20 tokens over 40 contexts has 160 MB of them. Labels may be padded with -100.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, RagConfig
from transformers.models.rag.modeling_rag import RetrievAugLMMarginOutput

from consilience.compat.transformers.checkpoint import RagPreTrainedModel, joint_config
from consilience.compat.transformers.generating import (
    RagGenerateOutput,
    SequenceLoss,
    Source,
    by_answer,
    by_loss,
    by_token,
    writing_of,
)
from consilience.compat.transformers.losses import Sum, loss_of, marginal_logits, scored
from consilience.compat.transformers.model import Asked, RagModel, said_of_questions
from consilience.compat.transformers.retriever import RagRetriever
from consilience.compat.transformers.scoring import begin_alike, loss_options, score_alone
from consilience.model.as_transformers import LossOptions, shifted_targets
from consilience.model.batch import IGNORED

_NEEDS_THE_MODEL = (
    "encoder_outputs",
    "decoder_attention_mask",
    "output_attentions",
    "output_hidden_states",
    "output_retrieved",
)
"""Arguments that only a whole pass of the generator can honour."""


class _ForGeneration(RagPreTrainedModel):  # type: ignore[no-untyped-call]
    """What RAG-Token and RAG-Sequence have in common; see them."""

    fusion: ClassVar[Sum]

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: RagRetriever | None = None,
        **settings: Any,
    ) -> None:
        config = config or joint_config(question_encoder, generator, settings)
        super().__init__(config)
        self.rag = RagModel(config, question_encoder, generator, retriever)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def retriever(self) -> RagRetriever | None:
        """Where passages come from."""
        return self.rag.retriever

    @property
    def generator(self) -> PreTrainedModel:
        """p(y | x, d)."""
        return self.rag.generator

    @property
    def question_encoder(self) -> PreTrainedModel:
        """X to q(x)."""
        return self.rag.question_encoder

    def set_retriever(self, retriever: RagRetriever) -> None:
        """From now on find passages there."""
        self.rag.retriever = retriever

    def set_context_encoder_for_training(self, ctx_encoder: PreTrainedModel) -> None:
        """From now on score passages by this encoder, with gradient; it is saved along."""
        self.rag.context_encoder_training = True
        self.rag.ctx_encoder = ctx_encoder

    def get_input_embeddings(self) -> nn.Module:
        """The generator's."""
        return self.generator.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """The generator's."""
        whole: Any = self.generator
        head: nn.Module | None = whole.get_output_embeddings()
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the generator's."""
        whole: Any = self.generator
        whole.set_output_embeddings(new_embeddings)

    def _summed(
        self,
        inputs: dict[str, Any],
        labels: Tensor | None,
        *,
        exclude_bos: bool,
        reduce: bool,
        output_logits: bool,
    ) -> RetrievAugLMMarginOutput:
        """The loss of the labels, if there are any, and what `RagModel` says."""
        if labels is None:
            return RetrievAugLMMarginOutput(**self.rag(**inputs))
        options = loss_options(self.config, exclude_bos=exclude_bos, reduce=reduce)
        labels = labels.masked_fill(labels == IGNORED, options.pad)
        given = inputs["decoder_input_ids"]
        fed = labels if given is None else given.masked_fill(given == IGNORED, options.pad)
        targets = shifted_targets(fed if self.fusion == "sequence" else labels, options.pad)
        inputs = inputs | {"decoder_input_ids": fed, "use_cache": False}
        if not output_logits and self._can_do_without_logits(inputs, options, given is None):
            return self._loss_alone(inputs, fed, options)
        said = self.rag(**inputs)
        loss = loss_of(
            scored(said.logits, targets),
            said.doc_scores,
            fusion=self.fusion,
            options=options,
            hf_compat=self.hf_compat,
        )
        return RetrievAugLMMarginOutput(loss=loss, **said)

    def _can_do_without_logits(
        self, inputs: dict[str, Any], options: LossOptions, plain: bool
    ) -> bool:
        """Whether targets can be scored alone; smoothing of a marginal needs every word."""
        if options.smoothing and not (self.hf_compat and self.fusion == "sequence"):
            return False
        return (
            plain
            and begin_alike(inputs["decoder_input_ids"])
            and all(inputs[name] in (None, False) for name in _NEEDS_THE_MODEL)
        )

    def _loss_alone(
        self, inputs: dict[str, Any], fed: Tensor, options: LossOptions
    ) -> RetrievAugLMMarginOutput:
        contexts = self.rag.contexts(self._asked(**inputs))
        found = score_alone(self.generator, contexts.rows, fed, options=options)
        loss = loss_of(
            found,
            contexts.scores,
            fusion=self.fusion,
            options=options,
            hf_compat=self.hf_compat,
        )
        return RetrievAugLMMarginOutput(
            loss=loss, doc_scores=contexts.scores, **said_of_questions(contexts)
        )

    def _asked(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        n_docs: int | None = None,
        **_: Any,
    ) -> Asked:
        return Asked(
            input_ids,
            attention_mask,
            context_input_ids,
            context_attention_mask,
            doc_scores,
            n_docs or self.config.n_docs,
        )

    def _source(self, **inputs: Any) -> Source:
        """What answers are written from.

        transformers scores with the index's vectors here even if a passage encoder is trained.
        """
        given = replace(self._asked(**inputs), fresh_vectors=not self.hf_compat)
        contexts = self.rag.contexts(given)
        return Source(self.generator, contexts.rows, contexts.scores)

    def _count(self, given: int | None, name: str) -> int:
        return int(getattr(self.config, name, 1) if given is None else given)

    def _setting(self, given: bool | None, name: str, otherwise: bool = False) -> bool:
        return bool(getattr(self.config, name, otherwise) if given is None else given)


class RagTokenForGeneration(_ForGeneration):  # type: ignore[no-untyped-call]
    """RAG-Token: every token is a sum over passages.

    Args:
        config: Of the whole; None to join those of the parts.
        question_encoder: None for one of random weights.
        generator: None for one of random weights.
        retriever: Where passages come from; None for a model that is given contexts.
        **settings: Of the configuration, where it is joined from the parts.
    """

    fusion = "token"

    @classmethod
    def can_generate(cls) -> bool:
        """It has a `generation_config` of its own, which is saved along."""
        return True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        do_marginalize: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor | None = None,
        n_docs: int | None = None,
        *,
        output_logits: bool | None = None,
    ) -> RetrievAugLMMarginOutput:
        """The loss of labels, and logits.

        Beside the arguments of `RagModel`:

        - `do_marginalize`: Whether logits are those of the sum, `[b, t, v]`, rather than of each
          passage, `[b * k, t, v]`.
        - `reduce_loss`: Whether losses are added up; otherwise they are `[b]`.
        - `labels`: Answers, beginning with the token that the decoder is fed first, `[b, t]`.
        - `output_logits`: Whether logits are given back with a loss.
        """
        output = self._summed(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "encoder_outputs": encoder_outputs,
                "decoder_input_ids": decoder_input_ids,
                "decoder_attention_mask": decoder_attention_mask,
                "past_key_values": past_key_values,
                "context_input_ids": context_input_ids,
                "context_attention_mask": context_attention_mask,
                "doc_scores": doc_scores,
                "use_cache": use_cache,
                "output_attentions": output_attentions,
                "output_hidden_states": output_hidden_states,
                "output_retrieved": output_retrieved,
                "n_docs": n_docs,
            },
            labels,
            exclude_bos=False,
            reduce=self._setting(reduce_loss, "reduce_loss"),
            output_logits=self._setting(output_logits, "output_logits", otherwise=True),
        )
        logits: Any = output.logits
        if logits is not None and self._setting(do_marginalize, "do_marginalize"):
            scores: Any = output.doc_scores
            output.logits = marginal_logits(logits, scores)
        return output

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        n_docs: int | None = None,
        generation_config: GenerationConfig | None = None,
        **settings: Any,
    ) -> Tensor | RagGenerateOutput:
        """Write answers.

        Beside the arguments of `forward` for finding passages:

        - `generation_config`: Instead of the model's.
        - and those of a `GenerationConfig`: `num_beams`, `num_return_sequences`, `max_length`,
          `max_new_tokens`, `min_length`, `do_sample` and the rest; `seed` for sampling.

        Returns:
            Ids from the start token on, padded, `[b * num_return_sequences, t]`; with
            `return_dict_in_generate=True` a `RagGenerateOutput`.

        Raises:
            UsageError: As `forward`, or a setting that this search does not have.
        """
        source = self._source(
            input_ids=input_ids,
            attention_mask=attention_mask,
            context_input_ids=context_input_ids,
            context_attention_mask=context_attention_mask,
            doc_scores=doc_scores,
            n_docs=n_docs,
        )
        base = generation_config or self.generation_config
        return by_token(source, writing_of(base, "token", settings), hf_compat=self.hf_compat)


class RagSequenceForGeneration(_ForGeneration):  # type: ignore[no-untyped-call]
    """RAG-Sequence: an answer's probability is a sum over passages.

    Args:
        config: Of the whole; None to join those of the parts.
        question_encoder: None for one of random weights.
        generator: None for one of random weights.
        retriever: Where passages come from; None for a model that is given contexts.
        **settings: Of the configuration, where it is joined from the parts.
    """

    fusion = "sequence"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        exclude_bos_score: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor | None = None,
        n_docs: int | None = None,
        *,
        output_logits: bool | None = None,
    ) -> RetrievAugLMMarginOutput:
        """The loss of labels, and logits.

        Beside the arguments of `RagModel`:

        - `exclude_bos_score`: Whether the start token is left out of the loss.
        - `reduce_loss`: Whether losses are added up; otherwise they are `[b]`.
        - `labels`: Answers, beginning with the token that the decoder is fed first, `[b, t]`.
          Given `decoder_input_ids`, those are what is scored.
        - `output_logits`: Whether logits are given back with a loss.
        """
        return self._summed(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "encoder_outputs": encoder_outputs,
                "decoder_input_ids": decoder_input_ids,
                "decoder_attention_mask": decoder_attention_mask,
                "past_key_values": past_key_values,
                "context_input_ids": context_input_ids,
                "context_attention_mask": context_attention_mask,
                "doc_scores": doc_scores,
                "use_cache": use_cache,
                "output_attentions": output_attentions,
                "output_hidden_states": output_hidden_states,
                "output_retrieved": output_retrieved,
                "n_docs": n_docs,
            },
            labels,
            exclude_bos=self._setting(exclude_bos_score, "exclude_bos_score"),
            reduce=self._setting(reduce_loss, "reduce_loss"),
            output_logits=self._setting(output_logits, "output_logits", otherwise=True),
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        do_deduplication: bool | None = None,
        num_return_sequences: int | None = None,
        num_beams: int | None = None,
        n_docs: int | None = None,
        **settings: Any,
    ) -> Tensor | RagGenerateOutput:
        """Write answers: candidates of every passage, then the best of them under all passages.

        Beside the arguments of `forward` for finding passages:

        - `do_deduplication`: Whether equal candidates are one.
        - `num_return_sequences`: Answers for each question, at most as many as there are
          candidates; rows for which there is none hold the start token only.
        - `num_beams`: Candidates of each passage.
        - and those of a `GenerationConfig`, for the search of each passage; `seed` for
          sampling.

        Returns:
            Ids from the start token on, padded, `[b * num_return_sequences, t]`; with
            `return_dict_in_generate=True` a `RagGenerateOutput`.

        Raises:
            UsageError: As `forward`, or a setting that this search does not have.
        """
        source = self._source(
            input_ids=input_ids,
            attention_mask=attention_mask,
            context_input_ids=context_input_ids,
            context_attention_mask=context_attention_mask,
            doc_scores=doc_scores,
            n_docs=n_docs,
        )
        beams = self._count(num_beams, "num_beams")
        returned = self._count(num_return_sequences, "num_return_sequences")
        settings |= {"num_beams": beams, "num_return_sequences": beams}
        writing = writing_of(self.generator.generation_config, "sequence", settings)
        distinct = self._setting(do_deduplication, "do_deduplication")
        if not self.hf_compat and distinct and not writing.options.sample:
            return by_answer(source, writing, returned=returned)
        options = loss_options(self.config, exclude_bos=True, reduce=False)
        return by_loss(
            source,
            writing,
            returned=returned,
            distinct=distinct,
            loss=SequenceLoss(options, hf_compat=self.hf_compat),
        )
