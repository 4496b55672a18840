"""The one door: answers to a batch of questions, by whichever search the options name."""

from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import Generator
from consilience.model.decoding.opening import Opening, open_answers
from consilience.model.decoding.options import DecodingOptions, id_fields
from consilience.model.decoding.result import Decoded, Finished, results
from consilience.model.decoding.search import Search
from consilience.model.decoding.thorough import search_passages


@torch.inference_mode()
def decode(
    generator: Generator, memory: Any, log_weights: Tensor, *, options: DecodingOptions
) -> list[list[Decoded]]:
    """The answers to each question.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major: row `i * k + j` is passage `j` of question `i`.
        log_weights: log prior, `[b, k]`; minus infinity for a passage that is not there. For a
            fusion that joins the passages before the decoder, `[b, 1]`.
        options: How to search.

    Returns:
        For each question `options.returned` answers, the best first, or samples in the order of
        their draws; fewer when the search found fewer, but always one.

    Raises:
        UsageError: Weights that are no distribution, or tokens outside the vocabulary.
    """
    opening, answers = _searched(generator, memory, log_weights, options)
    return results(answers, opening, generator, options)


@torch.inference_mode()
def search_answers(
    generator: Generator, memory: Any, log_weights: Tensor, *, options: DecodingOptions
) -> list[list[Finished]]:
    """As `decode`, but answers as the search left them: what every passage gave to every token."""
    return _searched(generator, memory, log_weights, options)[1]


def _searched(
    generator: Generator, memory: Any, log_weights: Tensor, options: DecodingOptions
) -> tuple[Opening, list[list[Finished]]]:
    check_ids(generator, options)
    opening = open_answers(generator, memory, log_weights)
    if options.search == "exact":
        return opening, begin_search(generator, memory, opening, options).run()
    return opening, search_passages(generator, memory, opening, options)


def begin_search(
    generator: Generator, memory: Any, opening: Opening, options: DecodingOptions
) -> Search:
    """The search of the sum, before its first token."""
    return Search(generator, memory, opening.state, opening.first, opening.log_weights, options)


def check_ids(generator: Generator, options: DecodingOptions) -> None:
    """Whether the generator has every token that the options name.

    Raises:
        UsageError: It has not.
    """
    size = generator.vocabulary_size
    for name, ids in id_fields(options):
        if ids and max(ids) >= size:
            raise UsageError(
                f"{name} names token {max(ids)}, but the vocabulary has {size} tokens",
                hint=f"give {name} ids below {size}",
            )
