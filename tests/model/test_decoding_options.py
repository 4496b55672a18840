from typing import Any

import pytest
from transformers import GenerationConfig

from consilience.errors import UsageError
from consilience.model.decoding import DecodingOptions

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"fusion": "fid"}, "unknown fusion 'fid'", "fusion from: sequence, token, average"),
    ({"search": "wide"}, "unknown search 'wide'", "search from: exact, thorough, fast"),
    ({"limit": "never"}, "unknown limit 'never'", "limit from: end, cut"),
    ({"early_stopping": "soon"}, "unknown early_stopping 'soon'", "True, False, never"),
    ({"beams": 0}, "beams must be at least 1, received 0", "leave beams out"),
    ({"seed": -1, "sample": True}, "seed must be at least 0, received -1", "leave seed out"),
    ({"temperature": 0.0, "sample": True}, "temperature must be above 0, received 0.0", "default"),
    ({"temperature": float("nan"), "sample": True}, "must be above 0, received nan", "default"),
    ({"top_p": 1.5, "sample": True}, "top_p must be at most 1, received 1.5", "top_p=1.0"),
    ({"repetition_penalty": -1.0}, "repetition_penalty must be above 0, received -1.0", "default"),
    ({"stop": "end"}, "stop must be strings that are not empty, received 'end'", "stop=("),
    ({"stop": ("",)}, "stop must be strings that are not empty, received ('',)", "stop=("),
    ({"suppress": (3, -2)}, "suppress holds a token below 0: -2", "ids of the vocabulary"),
    ({"forced_first": -1}, "forced_first holds a token below 0: -1", "ids of the vocabulary"),
    (
        {"min_new_tokens": 9, "max_new_tokens": 3},
        "min_new_tokens 9 is above max_new_tokens 3",
        "raise max_new_tokens",
    ),
    (
        {"search": "thorough", "fusion": "token"},
        "search 'thorough' is a search of the fusion 'sequence', received fusion 'token'",
        "search='exact'",
    ),
    ({"search": "fast", "sample": True}, "search 'fast' does not sample", "search='exact'"),
    (
        {"sample": True, "beams": 3},
        "samples are drawn without beams, received beams 3",
        "returned=",
    ),
    ({"top_k": 4}, "top_k does nothing without sampling", "sample=True"),
    ({"seed": 4}, "seed does nothing without sampling", "sample=True"),
    ({"returned": 3}, "3 answers cannot be returned from 1 beams", "set beams to at least 3"),
    (
        {"beams": 5, "groups": 2, "diversity": 1.0},
        "groups must divide beams, received 2 and 5",
        "a multiple of 2",
    ),
    (
        {"beams": 4, "groups": 2},
        "groups 2 with diversity 0.0 are beams as usual",
        "or neither",
    ),
    ({"diversity": 2.0}, "groups 1 with diversity 2.0 are beams as usual", "or neither"),
]


@pytest.mark.parametrize(("fields", "message", "hint"), WRONG, ids=lambda one: str(one)[:40])
def test_what_is_wrong_is_said(fields: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        DecodingOptions(**fields)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        DecodingOptions(beams=0, top_p=2.0, sample=True, limit="x", stop=("",))  # type: ignore[arg-type]
    assert caught.value.message.count(";") == 3
    for name in ("beams", "top_p", "limit", "stop"):
        assert name in caught.value.message


def test_a_configuration_that_says_nothing_has_the_defaults_of_the_library() -> None:
    options = DecodingOptions.like_transformers(GenerationConfig())
    assert options == DecodingOptions(
        max_new_tokens=20, limit="cut", length_penalty=1.0, early_stopping=False
    )


def test_lengths_count_the_start_token() -> None:
    config = GenerationConfig(max_length=12, min_length=5, decoder_start_token_id=2)
    options = DecodingOptions.like_transformers(config)
    assert (options.max_new_tokens, options.min_new_tokens, options.opening) == (11, 4, (2,))
    config = GenerationConfig(max_length=12, max_new_tokens=7, min_length=5, min_new_tokens=3)
    options = DecodingOptions.like_transformers(config)
    assert (options.max_new_tokens, options.min_new_tokens) == (7, 3)


def test_sampling_is_read_when_it_is_on() -> None:
    config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9, num_return_sequences=3)
    options = DecodingOptions.like_transformers(config, seed=4)
    assert options.sample
    assert (options.temperature, options.top_k, options.top_p) == (0.7, 50, 0.9)
    assert (options.returned, options.seed) == (3, 4)
    idle = GenerationConfig(do_sample=False, temperature=0.7, min_p=0.1)
    assert DecodingOptions.like_transformers(idle).temperature == 1.0


def test_overrides_replace_the_configuration() -> None:
    config = GenerationConfig(num_beams=4, stop_strings="done")
    options = DecodingOptions.like_transformers(config, search="thorough", returned=2)
    assert (options.search, options.beams, options.returned) == ("thorough", 4, 2)
    assert options.stop == ("done",)


def test_what_the_search_does_not_do_is_never_ignored() -> None:
    config = GenerationConfig(
        do_sample=True, typical_p=0.5, bad_words_ids=[[4]], eos_token_id=[2, 3]
    )
    with pytest.raises(UsageError) as caught:
        DecodingOptions.like_transformers(config)
    for part in ("typical_p=0.5", "bad_words_ids=[[4]]", "2 tokens as eos_token_id: [2, 3]"):
        assert part in caught.value.message
    assert "set typical_p to 1.0" in caught.value.hint
