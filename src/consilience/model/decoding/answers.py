"""The one door: answers to a batch of questions, by whichever search the options name.

Questions have nothing to do with each other, so on a processor every core searches for its share of
them; what a question gets does not depend on that.
"""

from typing import Any

import torch
from torch import Tensor

from consilience.encoding.cores import on_all_cores, shares
from consilience.errors import UsageError
from consilience.generation import Generator, NextToken, Shrinking
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
    check_ids(generator, options)
    opening = open_answers(generator, memory, log_weights)

    def answered(part: tuple[Any, Opening]) -> list[list[Finished]]:
        if options.search == "exact":
            return begin_search(generator, *part, options).run()
        return search_passages(generator, *part, options)

    parts = on_all_cores(answered, _shared(generator, memory, opening))
    return results([one for part in parts for one in part], opening, generator, options)


def _shared(generator: Generator, memory: Any, opening: Opening) -> list[tuple[Any, Opening]]:
    """The questions in a part for each core, if the generator can go on with some rows only."""
    parts = shares(opening.log_weights)
    if len(parts) < 2 or not isinstance(generator, Shrinking):
        return [(memory, opening)]
    return [_part(generator, memory, opening, questions) for questions in parts]


def _part(
    generator: Shrinking, memory: Any, opening: Opening, questions: slice
) -> tuple[Any, Opening]:
    k = opening.log_weights.shape[1]
    rows = slice(questions.start * k, questions.stop * k)
    which = torch.arange(rows.start, rows.stop, device=opening.log_weights.device)
    kept, state = generator.keep(memory, opening.state, which)
    part = Opening(
        state=state,
        first=NextToken(opening.first.weights[rows], opening.first.totals[rows]),
        log_weights=opening.log_weights[questions],
        supports=opening.supports[questions],
        support=opening.support[questions],
    )
    return kept, part


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
