"""A question answered by a model behind an endpoint, as an `Answer` like any other.

The passages go to that endpoint. Where it scores given answers the shares of passages are exact for
the answer chosen; where it does not, there are none, and no passage is cited for an answer that
nobody can trace.
"""

import torch

from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.generation.finding import find_text
from consilience.generation.remote import RemoteGenerator, Writing
from consilience.model.answer import Alternative, Answer, Citation, Quote
from consilience.model.answering import CITED_FROM, Asked, Clock
from consilience.model.asking import AskOptions
from consilience.model.fusion import log_prior
from consilience.model.remote import RemoteAnswer, RemoteOptions, answer_remotely
from consilience.retrieval import Hit


def ask_from_afar(
    generator: RemoteGenerator,
    asked: Asked,
    options: AskOptions,
    *,
    temperature: float,
    clock: Clock,
) -> Answer:
    """The answer of a remote model.

    Args:
        generator: Behind the endpoint.
        asked: The question with its passages.
        options: How; of the fusions `sequence` and `concat`.
        temperature: Of the prior.
        clock: Of this question.

    Raises:
        UsageError: A fusion that needs more than answers and their probabilities, or answers to
            choose among.
        RemoteError: The service fails or answers nonsense.
    """
    if options.fusion not in ("sequence", "concat"):
        raise UsageError(
            f"the fusion {options.fusion} needs a model that runs here; this one is remote",
            hint="take the fusion sequence or concat",
        )
    if options.quote:
        raise UsageError(
            "quotations need a model that runs here; this one is remote", hint="leave quote out"
        )
    if options.among:
        raise UsageError(
            "choosing among given answers needs a model that runs here; this one is remote",
            hint="leave among out",
        )
    pairs = [Pair(asked.question, hit.passage.title, hit.passage.text) for hit in asked.hits]
    prior = log_prior(torch.tensor([hit.score for hit in asked.hits]), temperature)
    how = RemoteOptions(fusion=options.fusion, writing=_writing(options))
    found = answer_remotely(generator, pairs, prior, options=how)
    clock.mark("write")
    return _answer(asked, found, clock)


def _writing(options: AskOptions) -> Writing:
    if not options.sample:
        return Writing(max_new_tokens=options.max_new_tokens)
    return Writing(
        n=options.returned,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )


def _answer(asked: Asked, found: RemoteAnswer, clock: Clock) -> Answer:
    shares = [] if found.posterior is None else found.posterior.tolist()
    held = list(zip(asked.hits, shares, strict=False))
    cited = sorted((one for one in held if one[1] >= CITED_FROM), key=lambda one: -one[1])
    return Answer(
        text=found.text,
        abstained=not found.text,
        confidence=1.0 if found.text else 0.0,
        support=1.0 if found.text else 0.0,
        citations=tuple(
            Citation(hit.passage, share, _quotes(hit, found.text)) for hit, share in cited
        ),
        posterior={hit.passage.id: share for hit, share in held},
        alternatives=tuple(Alternative(text, log_p) for text, log_p in found.alternatives),
        question=asked.question,
        timings_ms=clock.all(),
    )


def _quotes(hit: Hit, text: str) -> tuple[Quote, ...]:
    """Where the passage has the answer's words."""
    start, passage = hit.passage.start, hit.passage.text
    return tuple(
        Quote(start + one.start, start + one.end, passage[one.start : one.end])
        for one in find_text(text, passage)
    )
