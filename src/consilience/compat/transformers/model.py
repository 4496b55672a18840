"""`RagModel`: passages, their scores, and what the generator says of each.

The parts are modules of transformers and stay reachable as `question_encoder` and `generator`.
Arguments and their order are that library's, hence their number. Nothing is added up here; that is
for `summing`.

Scores are float32 whatever the weights are: in bfloat16, scores of DPR that differ by less than a
half are the same number.

Dimensions: `b` questions, `k` passages, `l` length of a context, `t` target positions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel, RagConfig
from transformers.models.rag.modeling_rag import RetrievAugLMOutput

from consilience.compat.transformers.checkpoint import RagPreTrainedModel, joint_config
from consilience.compat.transformers.retriever import RagRetriever
from consilience.compat.transformers.scoring import padding_id
from consilience.errors import UsageError
from consilience.generation import TokenRows
from consilience.model.fusion import exact


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call brings along for finding passages; see `RagModel.forward`."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    context_input_ids: Tensor | None
    context_attention_mask: Tensor | None
    doc_scores: Tensor | None
    n_docs: int
    fresh_vectors: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False

    def missing(self) -> list[str]:
        """What a generator needs and was not given."""
        names = ("context_input_ids", "doc_scores")
        return [name for name in names if getattr(self, name) is None]


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the generator reads, and what it comes from.

    Attributes:
        rows: `[b * k, l]`.
        scores: `[b, k]`, float32; minus infinity where there is no passage.
        vectors: Of the passages, `[b, k, d]`, if they were retrieved.
        numbers: Of the passages, `[b, k]`, if they were retrieved.
        asking: The question encoder's output, if they were retrieved.
    """

    rows: TokenRows
    scores: Tensor
    vectors: Tensor | None = None
    numbers: Tensor | None = None
    asking: Any = None


class RagModel(RagPreTrainedModel):  # type: ignore[no-untyped-call]
    """Passages, their scores, and what the generator says of each.

    Args:
        config: Of the whole; None to join those of the parts.
        question_encoder: None for one of random weights.
        generator: None for one of random weights.
        retriever: Where passages come from; None for a model that is given contexts.
        **settings: Of the configuration, where it is joined from the parts.

    Raises:
        UsageError: Neither a configuration nor both parts.
    """

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
        if question_encoder is None:
            question_encoder = _untrained(AutoModel, config.question_encoder)
        if generator is None:
            generator = _untrained(AutoModelForSeq2SeqLM, config.generator)
        self.question_encoder, self.generator = question_encoder, generator
        # The parts' own, so that what changes there, such as a vocabulary, is known here.
        config.question_encoder, config.generator = question_encoder.config, generator.config
        self.retriever = retriever
        self.ctx_encoder: PreTrainedModel | None = None
        self.context_encoder_training = False
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        doc_scores: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        n_docs: int | None = None,
    ) -> RetrievAugLMOutput:
        """What the generator says of every passage.

        Args:
            input_ids: Questions, for retrieval, `[b, q]`.
            attention_mask: Of the questions.
            encoder_outputs: The generator's encoder's, instead of contexts.
            decoder_input_ids: `[b, t]`.
            decoder_attention_mask: `[b, t]`.
            past_key_values: Of the generator.
            doc_scores: `[b, k]`, instead of retrieval.
            context_input_ids: `[b * k, l]`, instead of retrieval.
            context_attention_mask: Of the contexts.
            use_cache: As the generator's.
            output_attentions: Of both parts.
            output_hidden_states: Of both parts.
            output_retrieved: Whether to give back what was retrieved.
            n_docs: How many passages to retrieve; None for what the configuration says.

        Raises:
            UsageError: There is no retriever and something it would find was not given, or
                contexts and scores do not fit together.
        """
        given = Asked(
            input_ids,
            attention_mask,
            context_input_ids,
            context_attention_mask,
            doc_scores,
            n_docs or self.config.n_docs,
            output_attentions=self._default(output_attentions, "output_attentions"),
            output_hidden_states=self._default(output_hidden_states, "output_hidden_states"),
        )
        contexts = self.contexts(given, read_already=encoder_outputs is not None)
        k = contexts.scores.shape[1]
        said = self.generator(
            input_ids=None if encoder_outputs is not None else contexts.rows.ids,
            attention_mask=contexts.rows.mask.long(),
            encoder_outputs=encoder_outputs,
            decoder_input_ids=_spread(decoder_input_ids, k),
            decoder_attention_mask=_spread(decoder_attention_mask, k),
            past_key_values=past_key_values,
            use_cache=self._default(use_cache, "use_cache"),
            output_attentions=given.output_attentions,
            output_hidden_states=given.output_hidden_states,
            return_dict=True,
        )
        shown = self._default(output_retrieved, "output_retrieved")
        return RetrievAugLMOutput(
            doc_scores=contexts.scores,
            **_said(said),
            **said_of_questions(contexts),
            **(_found(contexts) if shown else {}),
        )

    def _default(self, given: bool | None, name: str) -> bool:
        return bool(getattr(self.config, name) if given is None else given)

    def contexts(self, given: Asked, *, read_already: bool = False) -> Contexts:
        """What the generator reads: as given, or found by the retriever.

        Args:
            given: What the call brings along.
            read_already: Whether the encoder has read the contexts, so that only their mask counts.

        Raises:
            UsageError: See `forward`.
        """
        if read_already:
            return _read_already(given)
        missing = given.missing()
        if not missing:
            return self._given(given)
        if self.retriever is None:
            raise UsageError(
                f"{' and '.join(missing)} not given, and the model has no retriever",
                hint="pass them, or call model.set_retriever(retriever)",
            )
        return self._retrieved(given, self.retriever)

    def _given(self, given: Asked) -> Contexts:
        ids, scores = given.context_input_ids, given.doc_scores
        assert ids is not None
        assert scores is not None
        if ids.shape[0] != scores.numel():
            raise UsageError(
                f"context_input_ids has {ids.shape[0]} rows, doc_scores is "
                f"{list(scores.shape)}: one row is needed for each score",
                hint="order the rows by question; pass doc_scores as [questions, passages]",
            )
        mask = given.context_attention_mask
        rows = TokenRows(ids, ids != padding_id(self.config) if mask is None else mask.bool())
        return Contexts(rows, exact(scores))

    def _retrieved(self, given: Asked, retriever: RagRetriever) -> Contexts:
        if given.input_ids is None:
            raise UsageError(
                "the retriever needs questions, received no input_ids",
                hint="pass input_ids, or context_input_ids with doc_scores",
            )
        asking = self.question_encoder(
            given.input_ids,
            attention_mask=given.attention_mask,
            output_attentions=given.output_attentions,
            output_hidden_states=given.output_hidden_states,
            return_dict=True,
        )
        asked = _vectors_of(asking)
        found = retriever(
            given.input_ids,
            asked.detach().float().cpu().numpy(),
            prefix=getattr(self.generator.config, "prefix", None),
            n_docs=given.n_docs,
            return_tensors="pt",
        ).to(given.input_ids.device)
        vectors = self._passage_vectors(found, fresh=given.fresh_vectors)
        scores = torch.bmm(exact(asked)[:, None], vectors.transpose(1, 2))[:, 0]
        if not self.hf_compat:
            scores = scores.masked_fill(found["doc_ids"] < 0, float("-inf"))
        rows = TokenRows(found["context_input_ids"], found["context_attention_mask"].bool())
        return Contexts(rows, scores, vectors, found["doc_ids"], asking)

    def _passage_vectors(self, found: Any, *, fresh: bool) -> Tensor:
        """The index's vectors, or fresh ones with a gradient, `[b, k, d]`, float32."""
        stored: Tensor = exact(found["retrieved_doc_embeds"])
        if not (self.context_encoder_training and fresh) or self.ctx_encoder is None:
            return stored
        if "tokenized_doc_ids" not in found:
            raise UsageError(
                "the passage encoder needs passages as ids, and the retriever makes none",
                hint="retriever.set_ctx_encoder_tokenizer(tokenizer)",
            )
        made = self.ctx_encoder(
            found["tokenized_doc_ids"],
            attention_mask=found["tokenized_doc_attention_mask"],
            return_dict=True,
        )
        return exact(_vectors_of(made)).view(stored.shape)


def _untrained(kind: Any, config: Any) -> PreTrainedModel:
    """A part of random weights."""
    made: PreTrainedModel = kind.from_config(config)
    return made


def _read_already(given: Asked) -> Contexts:
    scores, mask = given.doc_scores, given.context_attention_mask
    if scores is None or mask is None:
        raise UsageError(
            "encoder_outputs without doc_scores and context_attention_mask",
            hint="pass all three, as they were when the contexts were encoded",
        )
    return Contexts(TokenRows(torch.zeros_like(mask), mask.bool()), exact(scores))


def _vectors_of(output: Any) -> Tensor:
    """The pooled output: the first of DPR's, the second of BERT's, `[rows, d]`."""
    first: Tensor = output[0]
    return first if first.dim() == 2 else output.pooler_output


def _spread(values: Tensor | None, k: int) -> Tensor | None:
    """`[b, t]` to `[b * k, t]`."""
    return None if values is None else values.repeat_interleave(k, dim=0)


def _said(said: Any) -> dict[str, Any]:
    """The generator's output under the names of the whole."""
    return {
        "logits": said.logits,
        "past_key_values": said.past_key_values,
        "generator_enc_last_hidden_state": said.encoder_last_hidden_state,
        "generator_enc_hidden_states": said.encoder_hidden_states,
        "generator_enc_attentions": said.encoder_attentions,
        "generator_dec_hidden_states": said.decoder_hidden_states,
        "generator_dec_attentions": said.decoder_attentions,
        "generator_cross_attentions": said.cross_attentions,
    }


def said_of_questions(contexts: Contexts) -> dict[str, Any]:
    """The question encoder's output under the names of the whole; nothing if it was not asked."""
    if contexts.asking is None:
        return {}
    return {
        "question_encoder_last_hidden_state": contexts.asking[0],
        "question_enc_hidden_states": contexts.asking.hidden_states,
        "question_enc_attentions": contexts.asking.attentions,
    }


def _found(contexts: Contexts) -> dict[str, Any]:
    """What was retrieved, under the names of the whole; nothing if it was given."""
    if contexts.numbers is None:
        return {}
    return {
        "context_input_ids": contexts.rows.ids,
        "context_attention_mask": contexts.rows.mask.long(),
        "retrieved_doc_embeds": contexts.vectors,
        "retrieved_doc_ids": contexts.numbers,
    }
