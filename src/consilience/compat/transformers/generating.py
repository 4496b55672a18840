"""Answers of RAG-Token and RAG-Sequence in transformers' shape: ids from the start token on.

The searches are those of `consilience.model.decoding`, told by a `GenerationConfig`. RAG-Sequence
is searched thoroughly (Lewis et al., 2020, section 2.5): each passage by itself, then every
candidate under all passages. With `hf_compat` candidates are ranked by the loss that transformers
computes for them, start token left out; without it by log p(y | x).

All questions are searched together and every passage is found once. Two more habits of transformers
come with `hf_compat`: candidates of RAG-Sequence are searched with padding attended to like text,
because the mask is not handed on, and where the padding id is 0, beam search pads with the end,
which then counts in the loss.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils.generic import ModelOutput

from consilience.compat.transformers.losses import ABSENT, Scored, Sum, loss_of
from consilience.compat.transformers.scoring import score_alone
from consilience.errors import UsageError
from consilience.generation import Seq2SeqGenerator, TokenRows
from consilience.model.as_transformers import LossOptions, shifted_targets
from consilience.model.decoding import (
    Decoded,
    DecodingOptions,
    Finished,
    Proposal,
    decode,
    score_proposals,
    search_answers,
)
from consilience.model.fusion import answer_posterior, log_prior

LENGTH = 20
"""The most tokens that RAG-Token writes if no length is given, the start token counted."""

_REFUSED = (
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "assistant_model",
    "streamer",
    "decoder_input_ids",
    "encoder_outputs",
)


@dataclass
class RagGenerateOutput(ModelOutput):
    """What `generate` gives with `return_dict_in_generate=True`.

    Attributes:
        sequences: Ids from the start token on, padded, `[b * returned, t]`.
        sequences_scores: What each was ranked by, `[b * returned]`; minus infinity where there was
            no further answer.
        doc_posteriors: p(d | x, y), `[b * returned, k]`.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    doc_posteriors: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Writing:
    """How answers are written.

    Attributes:
        options: Of the search.
        start, end, pad: Special ids.
        as_output: Whether scores and posteriors are given back, too.
    """

    options: DecodingOptions
    start: int
    end: int
    pad: int
    as_output: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What answers are written from.

    Attributes:
        model: The generator, of transformers.
        rows: Contexts, `[b * k, l]`.
        scores: Of the retriever, `[b, k]`.
    """

    model: Any
    rows: TokenRows
    scores: Tensor

    def prior(self) -> Tensor:
        """Log p(d | x), `[b, k]`."""
        return log_prior(self.scores).clamp_min(ABSENT)


@dataclass(frozen=True, slots=True)
class SequenceLoss:
    """What candidates of RAG-Sequence are ranked by.

    Attributes:
        options: Of the loss.
        hf_compat: Whether it is the loss of transformers, or that of the sum.
    """

    options: LossOptions
    hf_compat: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One answer.

    Attributes:
        ids: From the start token on.
        score: What it was ranked by.
        posterior: p(d | x, y), `[k]`.
    """

    ids: list[int]
    score: float
    posterior: Tensor


def writing_of(base: GenerationConfig, fusion: Sum, settings: dict[str, Any]) -> Writing:
    """The search that a configuration and the arguments of `generate` ask for.

    Args:
        base: The model's.
        fusion: Where the sum stands.
        settings: Of `generate`; those of a `GenerationConfig`, and `seed` for sampling.

    Raises:
        UsageError: A setting that is unknown, or that the search does not have.
    """
    seed = settings.pop("seed", None)
    config = copy.deepcopy(settings.pop("generation_config", None) or base)
    settings.pop("labels", None)  # Seq2SeqTrainer passes them with the rest
    unknown = config.update(
        **{name: value for name, value in settings.items() if value is not None}
    )
    for name in unknown:
        raise UsageError(
            f"generate does not take {name}"
            + (" with the sum over passages" if name in _REFUSED else ""),
            hint="leave it out; settings of a GenerationConfig are taken",
        )
    if fusion == "token" and config.max_length is None and config.max_new_tokens is None:
        config.max_length = LENGTH
    overrides: dict[str, Any] = {"fusion": fusion}
    if config.do_sample:
        overrides["seed"] = int(torch.randint(2**31 - 1, ())) if seed is None else seed
    return Writing(
        DecodingOptions.like_transformers(config, **overrides),
        start=_id(config, "decoder_start_token_id", "bos_token_id"),
        end=_id(config, "eos_token_id"),
        pad=_id(config, "pad_token_id", "eos_token_id"),
        as_output=bool(config.return_dict_in_generate),
    )


def _id(config: GenerationConfig, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value[0] if isinstance(value, list) else value)
    raise UsageError(
        f"the generation config has no {names[0]}",
        hint=f"set model.generation_config.{names[0]} or pass {names[0]}=… to generate",
    )


def by_token(source: Source, writing: Writing, *, hf_compat: bool) -> Tensor | RagGenerateOutput:
    """RAG-Token: one search over the sum of every step."""
    if hf_compat:
        writing = replace(writing, pad=_fill(writing))
    writer, memory = _reader(source, writing)
    found = decode(writer, memory, source.prior(), options=writing.options)
    return _output(source, _plain(found, writing), writing, writing.options.returned)


def by_answer(source: Source, writing: Writing, *, returned: int) -> Tensor | RagGenerateOutput:
    """RAG-Sequence, searched thoroughly and ranked by log p(y | x).

    Args:
        source: Contexts and scores.
        writing: How the candidates of each passage are searched.
        returned: Answers for each question.
    """
    writer, memory = _reader(source, writing)
    options = replace(writing.options, search="thorough", returned=returned)
    found = decode(writer, memory, source.prior(), options=options)
    return _output(source, _plain(found, writing), writing, returned)


def by_loss(
    source: Source, writing: Writing, *, returned: int, distinct: bool, loss: SequenceLoss
) -> Tensor | RagGenerateOutput:
    """RAG-Sequence as transformers searches it: the candidates with the least loss.

    Args:
        source: Contexts and scores.
        writing: How the candidates of each passage are searched.
        returned: Answers for each question.
        distinct: Whether equal candidates of a question are one.
        loss: What they are ranked by.
    """
    writer, memory = _reader(source, writing)
    searched = memory
    if loss.hf_compat and not bool(source.rows.mask.all()):
        everything = TokenRows(source.rows.ids, torch.ones_like(source.rows.mask))
        searched = writer.memorise(everything)
    found = _search_alone(writer, searched, source, writing)
    fill = _fill(writing) if loss.hf_compat else writing.pad
    candidates = [
        _ids([[writing.start, *one.ids] for _, one in each], fill, distinct) for each in found
    ]
    certain = searched is memory and writing.options.forced_first is None
    known = _Known.of(found) if certain else _Known([{} for _ in found])
    race = _Race(candidates, known, returned)
    scored = _score(writer, memory, race, source, loss.options)
    best = [
        _ranked(ids, _of_question(scored, q, len(ids)), source.scores[q], loss)[:returned]
        for q, ids in enumerate(candidates)
    ]
    return _output(source, best, writing, returned, width=scored.targets.shape[-1])


def _search_alone(
    writer: Seq2SeqGenerator, memory: Any, source: Source, writing: Writing
) -> list[list[tuple[int, Finished]]]:
    """What the search of each passage alone finds, for each question, with the passage's place."""
    b, k = source.scores.shape
    alone = replace(writing.options, returned=writing.options.beams)
    certain = source.scores.new_zeros(b * k, 1)
    found = search_answers(writer, memory, certain, options=alone)
    return [[(d, one) for d in range(k) for one in found[q * k + d]] for q in range(b)]


@dataclass(frozen=True, slots=True)
class _Known:
    """What passages gave to the answers that they proposed, by question and answer."""

    given: list[dict[tuple[int, ...], dict[int, Tensor]]]

    @classmethod
    def of(cls, found: Sequence[Sequence[tuple[int, Finished]]]) -> "_Known":
        """From the searches of the passages."""
        given: list[dict[tuple[int, ...], dict[int, Tensor]]] = []
        for each in found:
            here: dict[tuple[int, ...], dict[int, Tensor]] = {}
            for d, one in each:
                here.setdefault(tuple(one.ids), {})[d] = one.given[0]
            given.append(here)
        return cls(given)

    def proposal(self, question: int, ids: list[int]) -> Proposal:
        """An answer with what is known of it."""
        return Proposal(ids, self.given[question].get(tuple(ids), {}))


@dataclass(frozen=True, slots=True)
class _Race:
    """Who runs, and for how many places.

    Attributes:
        candidates: Of each question, from the start token on, filled up to one length.
        known: Log p that need not be computed again.
        returned: How many of each question's candidates are wanted.
    """

    candidates: Sequence[Sequence[list[int]]]
    known: _Known
    returned: int


def _fill(writing: Writing) -> int:
    """What transformers' beam search fills answers up with: an id of 0 counts as none."""
    return writing.pad or (writing.end if writing.options.beams > 1 else 0)


def _ids(found: Sequence[list[int]], fill: int, distinct: bool) -> list[list[int]]:
    """The candidates of one question, filled up to one length."""
    width = max(map(len, found))
    ids = [[*one, *[fill] * (width - len(one))] for one in found]
    return [list(one) for one in dict.fromkeys(map(tuple, ids))] if distinct else ids


def _score(
    writer: Seq2SeqGenerator,
    memory: Any,
    race: _Race,
    source: Source,
    options: LossOptions,
) -> Scored:
    """All candidates under all passages; `[c, b, …]`, where `c` is the most that a question has.

    A question with fewer candidates has its first one in the places that are left, and what is
    said of those means nothing. Smoothing wants sums over the vocabulary, for which candidates are
    fed whole; else they are walked as a tree.
    """
    candidates = race.candidates
    most = max(map(len, candidates))
    width = max(len(ids) for each in candidates for ids in each)
    filled = [[*each, *[each[0]] * (most - len(each))] for each in candidates]
    device = source.scores.device
    fed = [_padded([each[i] for each in filled], options.pad, width) for i in range(most)]
    if options.smoothing > 0:
        found = [
            score_alone(source.model, source.rows, ids.to(device), options=options, memory=memory)
            for ids in fed
        ]
        sums = [one.sums for one in found if one.sums is not None]
        return Scored(
            torch.stack([one.targets for one in found]),
            torch.stack([one.log_probs for one in found]),
            sums=torch.stack(sums),
        )
    targets = torch.stack([shifted_targets(ids, options.pad) for ids in fed]).to(device)
    given = _asked(writer, memory, race, source, options).permute(2, 0, 1, 3)
    missing = targets.shape[-1] - given.shape[-1]
    log_probs = torch.nn.functional.pad(given, (0, missing))
    return Scored(targets, log_probs.masked_fill((targets == options.pad)[:, :, None], 0.0))


def _asked(
    writer: Seq2SeqGenerator, memory: Any, race: _Race, source: Source, options: LossOptions
) -> Tensor:
    """Log p of the candidates' tokens given each passage, `[b, k, c, t]`."""
    proposals = [
        [race.known.proposal(q, _without_padding(ids[1:], options.pad)) for ids in each]
        for q, each in enumerate(race.candidates)
    ]
    plain = all(_counts_whole(one.ids, options) for each in proposals for one in each)
    prior = source.prior().to(writer.device, torch.float32)
    returned = race.returned if plain else None
    return score_proposals(writer, memory, proposals, prior, returned=returned)


def _counts_whole(ids: Sequence[int], options: LossOptions) -> bool:
    """Whether the loss of an answer is minus its log p under the sum, nothing being left out."""
    excluded = options.exclude_bos and ids[0] == options.bos
    return len(ids) > 1 and not excluded and options.pad not in ids


def _without_padding(ids: list[int], pad: int) -> list[int]:
    """An answer up to its last token that is no padding; one token at least."""
    length = max((i for i, one in enumerate(ids, 1) if one != pad), default=1)
    return ids[:length]


def _of_question(scored: Scored, question: int, count: int) -> Scored:
    """The candidates of one question, `[c, …]`."""
    sums = None if scored.sums is None else scored.sums[:count, question]
    return Scored(scored.targets[:count, question], scored.log_probs[:count, question], sums=sums)


def _ranked(
    ids: Sequence[list[int]], scored: Scored, scores: Tensor, loss: SequenceLoss
) -> list[Written]:
    """Candidates of one question by their loss; `scores` are `[k]`."""
    each = scores.expand(len(ids), -1)
    losses = loss_of(
        scored, each, fusion="sequence", options=loss.options, hf_compat=loss.hf_compat
    )
    mask = scored.targets != loss.options.pad
    shares = answer_posterior(log_prior(each), scored.log_probs, mask, fusion="sequence")
    order = losses.argsort(stable=True).tolist()
    return [Written(ids[i], -float(losses[i]), shares[i].cpu()) for i in order]


def _reader(source: Source, writing: Writing) -> tuple[Seq2SeqGenerator, Any]:
    """The generator with the special ids that were asked for, and what it read."""
    writer = Seq2SeqGenerator(source.model)
    writer.start, writer.end = writing.start, writing.end
    return writer, writer.memorise(source.rows)


def _plain(found: Sequence[Sequence[Decoded]], writing: Writing) -> list[list[Written]]:
    """Answers from the start token on, with the end where it was written."""
    return [
        [
            Written(
                [writing.start, *one.ids, *([writing.end] if one.ended else [])],
                one.score,
                one.posterior,
            )
            for one in answers
        ]
        for answers in found
    ]


def _output(
    source: Source,
    found: Sequence[Sequence[Written]],
    writing: Writing,
    returned: int,
    *,
    width: int = 0,
) -> Tensor | RagGenerateOutput:
    """As many rows for every question; where there is no further answer, only a start token.

    They lie where the contexts do: processes that share the work gather them there.
    """
    k = len(found[0][0].posterior)
    nothing = Written([writing.start], float("-inf"), torch.zeros(k))
    rows = [one for each in found for one in [*each, *[nothing] * (returned - len(each))]]
    device = source.scores.device
    sequences = _padded([one.ids for one in rows], writing.pad, width).to(device)
    if not writing.as_output:
        return sequences
    return RagGenerateOutput(
        sequences=sequences,
        sequences_scores=torch.tensor([one.score for one in rows], device=device),
        doc_posteriors=torch.stack([one.posterior for one in rows]).to(device),
    )


def _padded(rows: Sequence[Sequence[int]], pad: int, width: int = 0) -> Tensor:
    """`[rows, t]`, at least `width` wide."""
    length = max(width, *map(len, rows))
    return torch.tensor([[*ids, *[pad] * (length - len(ids))] for ids in rows])
