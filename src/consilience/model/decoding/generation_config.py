"""A `GenerationConfig` of transformers 5.23, read as decoding options.

It reads attributes only and imports nothing of the library. A setting that this search does not
have is an error, never ignored: a search that silently differs would be worse than none.
"""

from collections.abc import Iterator
from typing import Any

from consilience.model.decoding.options import Fault, raise_faults

NEW_TOKENS = 20
"""What the library writes at most when no length is given."""

DRAWN_AMONG = 50
"""The library's `top_k` when none is given."""

_UNUSED: dict[str, Any] = {
    "guidance_scale": 1.0,
    "sequence_bias": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "renormalize_logits": False,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "max_time": None,
}
"""Settings that this search does not have, each with the value under which it does nothing."""

_UNUSED_DRAWS: dict[str, Any] = {
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


def fields_of(config: Any) -> dict[str, Any]:
    """The fields of `DecodingOptions` that a generation configuration sets.

    Raises:
        UsageError: It asks for something that this search does not do.
    """
    raise_faults(list(_faults(config)))
    return _lengths(config) | _beams(config) | _rules(config) | _draws(config)


def _value(config: Any, name: str, default: Any) -> Any:
    found = getattr(config, name, None)
    return default if found is None else found


def _faults(config: Any) -> Iterator[Fault]:
    unused = _UNUSED | (_UNUSED_DRAWS if _value(config, "do_sample", False) else {})
    for name, idle in unused.items():
        if _value(config, name, idle) != idle:
            message = f"the generation config sets {name}={getattr(config, name)!r}"
            yield f"{message}, which this search does not do", f"set {name} to {idle!r}"
    for name in ("eos_token_id", "forced_eos_token_id"):
        value = _value(config, name, 0)
        if isinstance(value, list | tuple) and len(value) > 1:
            message = f"the generation config has {len(value)} tokens as {name}: {list(value)}"
            yield message, f"set {name} to the one that ends an answer"


def _lengths(config: Any) -> dict[str, Any]:
    longest, shortest = (
        _value(config, "max_length", NEW_TOKENS + 1),
        _value(config, "min_length", 0),
    )
    longest = _value(config, "max_new_tokens", longest - 1)
    shortest = _value(config, "min_new_tokens", max(shortest - 1, 0))
    return {
        "max_new_tokens": longest,
        "min_new_tokens": min(shortest, longest),
        "limit": "cut",
        "length_penalty": _value(config, "length_penalty", 1.0),
    }


def _beams(config: Any) -> dict[str, Any]:
    groups = _value(config, "num_beam_groups", 1)
    return {
        "beams": _value(config, "num_beams", 1),
        "groups": groups,
        "diversity": _value(config, "diversity_penalty", 0.0) if groups > 1 else 0.0,
        "returned": _value(config, "num_return_sequences", 1),
        "early_stopping": _value(config, "early_stopping", False),
    }


def _rules(config: Any) -> dict[str, Any]:
    stop = _value(config, "stop_strings", ())
    start = _value(config, "decoder_start_token_id", getattr(config, "bos_token_id", None))
    begin = tuple(_value(config, "begin_suppress_tokens", ()))
    return {
        "repetition_penalty": _value(config, "repetition_penalty", 1.0),
        "no_repeat_ngram": _value(config, "no_repeat_ngram_size", 0),
        "stop": (stop,) if isinstance(stop, str) else tuple(stop),
        "forced_first": _one(getattr(config, "forced_bos_token_id", None)),
        "forced_last": _one(getattr(config, "forced_eos_token_id", None)),
        "suppress": tuple(_value(config, "suppress_tokens", ())),
        "suppress_first": begin,
        "opening": () if start is None else (_one(start),),
    }


def _draws(config: Any) -> dict[str, Any]:
    if not _value(config, "do_sample", False):
        return {}
    return {
        "sample": True,
        "temperature": _value(config, "temperature", 1.0),
        "top_k": _value(config, "top_k", DRAWN_AMONG),
        "top_p": _value(config, "top_p", 1.0),
    }


def _one(ids: Any) -> int | None:
    """The only token of a setting that may be a list."""
    if isinstance(ids, list | tuple):
        return ids[0] if ids else None
    return None if ids is None else int(ids)
