"""Objectives: pure functions from tensors, or from texts, to what is learned from.

Each can be used alone or in a `Mixture`. None knows a model, an optimiser or a file.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consilience.training.objectives.abstention import none_likelihood, support_likelihood
    from consilience.training.objectives.distillation import (
        distil_posterior,
        distil_states,
        distil_sum,
    )
    from consilience.training.objectives.grad_cache import Tower, cached_gradients
    from consilience.training.objectives.joint import (
        Alignment,
        attention_distillation,
        attention_worth,
        emdr2,
        leave_one_out,
        marginal_likelihood,
        perplexity_distillation,
        without_each,
    )
    from consilience.training.objectives.masking import (
        Corrupted,
        Masked,
        Masking,
        Words,
        corrupt_spans,
        mask_tokens,
        masked_language_loss,
    )
    from consilience.training.objectives.mixture import Mixed, Mixture
    from consilience.training.objectives.retriever import (
        false_negative_mask,
        info_nce,
        kl_distillation,
        margin_mse,
    )
    from consilience.training.objectives.self_supervision import (
        SentencePair,
        TextPair,
        independent_crops,
        inverse_cloze,
        next_sentence_pairs,
        prefix_continuation,
    )
    from consilience.training.objectives.spans import (
        Cloze,
        RecurringSpan,
        SalientSpan,
        recurring_question,
        recurring_spans,
        salient_question,
        salient_spans,
    )

__all__ = [
    "Alignment",
    "Cloze",
    "Corrupted",
    "Masked",
    "Masking",
    "Mixed",
    "Mixture",
    "RecurringSpan",
    "SalientSpan",
    "SentencePair",
    "TextPair",
    "Tower",
    "Words",
    "attention_distillation",
    "attention_worth",
    "cached_gradients",
    "corrupt_spans",
    "distil_posterior",
    "distil_states",
    "distil_sum",
    "emdr2",
    "false_negative_mask",
    "independent_crops",
    "info_nce",
    "inverse_cloze",
    "kl_distillation",
    "leave_one_out",
    "margin_mse",
    "marginal_likelihood",
    "mask_tokens",
    "masked_language_loss",
    "next_sentence_pairs",
    "none_likelihood",
    "perplexity_distillation",
    "prefix_continuation",
    "recurring_question",
    "recurring_spans",
    "salient_question",
    "salient_spans",
    "support_likelihood",
    "without_each",
]

_FILES = {
    "Alignment": "joint",
    "Cloze": "spans",
    "Corrupted": "masking",
    "Masked": "masking",
    "Masking": "masking",
    "Mixed": "mixture",
    "Mixture": "mixture",
    "RecurringSpan": "spans",
    "SalientSpan": "spans",
    "SentencePair": "self_supervision",
    "TextPair": "self_supervision",
    "Tower": "grad_cache",
    "Words": "masking",
    "attention_distillation": "joint",
    "attention_worth": "joint",
    "cached_gradients": "grad_cache",
    "corrupt_spans": "masking",
    "distil_posterior": "distillation",
    "distil_states": "distillation",
    "distil_sum": "distillation",
    "emdr2": "joint",
    "false_negative_mask": "retriever",
    "independent_crops": "self_supervision",
    "info_nce": "retriever",
    "inverse_cloze": "self_supervision",
    "kl_distillation": "retriever",
    "leave_one_out": "joint",
    "margin_mse": "retriever",
    "marginal_likelihood": "joint",
    "mask_tokens": "masking",
    "masked_language_loss": "masking",
    "next_sentence_pairs": "self_supervision",
    "none_likelihood": "abstention",
    "perplexity_distillation": "joint",
    "prefix_continuation": "self_supervision",
    "recurring_question": "spans",
    "recurring_spans": "spans",
    "salient_question": "spans",
    "salient_spans": "spans",
    "support_likelihood": "abstention",
    "without_each": "joint",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.training.objectives.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.training.objectives' has no attribute {name!r}")
