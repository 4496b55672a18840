"""Choosing among answers that are given, instead of writing one.

A class, a sentiment or a verdict is an answer among few. Each is scored under the sum as the search
would score it; nothing is normalised by length, since log p(y | x) is what the sum says.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import TrainableGenerator
from consilience.model.decoding.opening import open_answers
from consilience.model.decoding.options import Sum
from consilience.model.decoding.result import Decoded, Finished, decoded
from consilience.model.decoding.thorough import score_answers


@torch.inference_mode()
def choose(
    generator: TrainableGenerator,
    memory: Any,
    log_weights: Tensor,
    answers: Sequence[str],
    *,
    fusion: Sum,
) -> list[tuple[str, Decoded]]:
    """The answers given, the likeliest first.

    Args:
        generator: Whose memory it is.
        memory: Of the `k` rows of one question.
        log_weights: log prior, `[1, k]`.
        answers: At least two, no two alike.
        fusion: Where the sum stands.

    Returns:
        Each with its `log_likelihood`, log p(y | x) given that there is an answer, in nats.

    Raises:
        UsageError: An answer in which the generator knows no word, or two that it spells alike.
    """
    ids = [generator.answer_ids(text) for text in answers]
    _check(answers, ids, generator.end)
    (before,) = open_answers(generator, memory, log_weights).each()
    given = score_answers(generator, memory, [ids], k=log_weights.shape[1])[0]
    found = [
        decoded(Finished(one, given[:, place, : len(one)], 0.0, True), before, generator, fusion)
        for place, one in enumerate(ids)
    ]
    return sorted(zip(answers, found, strict=True), key=lambda one: -one[1].log_likelihood)


def _check(answers: Sequence[str], ids: Sequence[Sequence[int]], end: int) -> None:
    for text, one in zip(answers, ids, strict=True):
        if list(one) == [end]:
            raise UsageError(
                f"the model knows no word of the answer {text!r}",
                hint="give answers in words of Chinese or English",
            )
    spelled = [tuple(one) for one in ids]
    for place, one in enumerate(spelled):
        if one in spelled[:place]:
            first = answers[spelled.index(one)]
            raise UsageError(
                f"the answers {first!r} and {answers[place]!r} are the same to this model",
                hint="leave one of them out",
            )
