"""A party's own part of the sum: answers that its passages propose, and how likely answers are.

Answers are searched as thorough decoding searches them, every passage alone and then each answer
under every passage (Lewis et al., 2020, section 2.5), which is the search that falls apart into
parties without a difference. It knows a reading of passages, and nothing of who asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from consilience.model.asking import AskOptions
from consilience.model.decoding import DecodingOptions, decode
from consilience.model.decoding.opening import open_answers
from consilience.model.decoding.thorough import score_answers
from consilience.model.placing import in_float64
from consilience.model.reading import Reading

Ids = tuple[int, ...]
"""An answer as it was written, its end included."""


def thorough(base: DecodingOptions, *, beams: int, tokens: int) -> DecodingOptions:
    """Thorough decoding.

    Args:
        base: What the model itself asks of a search.
        beams: Answers that each passage proposes.
        tokens: The longest answer, in sub-words.
    """
    options = AskOptions(beams=beams, max_new_tokens=tokens, search="thorough")
    return options.decoding(base)


def proposals(reading: Reading, options: DecodingOptions) -> list[Ids]:
    """What the beams of each passage find; no two alike.

    Args:
        reading: Of the passages.
        options: Of thorough decoding.
    """
    alone = replace(options, search="exact", returned=options.beams)
    certain = reading.log_prior.new_zeros(reading.k, 1)
    found = decode(reading.generator, reading.memory, certain, options=alone)
    end = (reading.generator.end,)
    written = [(*one.ids, *(end if one.ended else ())) for each in found for one in each]
    return list(dict.fromkeys(written))


@dataclass(frozen=True, slots=True)
class Part:
    """How likely answers are over these passages alone, and why.

    Attributes:
        log_likelihoods: log p(y | x) given that there is an answer, `[answers]`.
        support: p(there is an answer | x).
        shares: p(d | x, y), `[passages, answers]`.
    """

    log_likelihoods: Tensor
    support: float
    shares: Tensor


@torch.inference_mode()
def weighed(reading: Reading, answers: Sequence[Ids], options: DecodingOptions) -> Part:
    """Score answers under every passage and add up.

    Args:
        reading: Of the passages.
        answers: At least one.
        options: As they were searched; a token that was forced to be first counts as certain.
    """
    opening = open_answers(reading.generator, reading.memory, reading.log_prior)
    given = score_answers(reading.generator, reading.memory, [answers], k=reading.k)[0]
    if options.forced_first is not None:
        given[..., 0] = 0.0
    joint = in_float64(opening.log_weights[0])[:, None] + in_float64(given).sum(-1)
    return Part(
        log_likelihoods=joint.logsumexp(0).cpu(),
        support=min(1.0, float(opening.support[0])),
        shares=joint.softmax(0).cpu(),
    )
