"""Targets scored by the generator alone: no logits are kept, so long answers fit into memory."""

from typing import Any

from torch import Tensor
from transformers import RagConfig

from consilience.compat.transformers.losses import Scored
from consilience.errors import UsageError
from consilience.generation import Seq2SeqGenerator, TokenRows
from consilience.generation.heads import score_targets
from consilience.model.as_transformers import LossOptions, shifted_targets


def padding_id(config: RagConfig) -> int:
    """The id that pads answers.

    Raises:
        UsageError: The generator's configuration has none.
    """
    generator: Any = config.generator
    pad = generator.pad_token_id
    if pad is None:
        raise UsageError(
            f"the {generator.model_type} generator has no pad_token_id",
            hint="set config.generator.pad_token_id, for example to that of its tokenizer",
        )
    return int(pad)


def vocabulary_size(config: RagConfig) -> int:
    """How many tokens the generator can write."""
    generator: Any = config.generator
    return int(getattr(generator, "decoder", generator).vocab_size)


def loss_options(config: RagConfig, *, exclude_bos: bool, reduce: bool) -> LossOptions:
    """What transformers reads from a configuration when it computes a loss.

    A start id of 0 in the whole's configuration gives way to the generator's, as there; T5 has
    none, which transformers does not survive.
    """
    own = config.bos_token_id
    return LossOptions(
        pad=padding_id(config),
        vocabulary_size=vocabulary_size(config),
        bos=own or getattr(config.generator, "bos_token_id", None),
        smoothing=config.label_smoothing,
        exclude_bos=exclude_bos,
        reduce=reduce,
    )


def begin_alike(fed: Tensor) -> bool:
    """Whether all rows of `[b, t]` begin with the same id, as `score_alone` needs."""
    return bool((fed[:, 0] == fed[0, 0]).all())


def score_alone(
    model: Any, rows: TokenRows, fed: Tensor, *, options: LossOptions, memory: Any = None
) -> Scored:
    """Log p of what the decoder is asked for when it is fed `fed`.

    Args:
        model: The generator, of transformers.
        rows: What it reads, `[b * k, l]`.
        fed: The decoder's input, `[b, t]`, all rows with the same first id.
        options: Padding and smoothing; sums are computed only for the latter.
        memory: Of rows that were read before.
    """
    writer = Seq2SeqGenerator(model)
    writer.start = int(fed[0, 0])
    targets = shifted_targets(fed, options.pad)
    k = rows.ids.shape[0] // fed.shape[0]
    spread = targets.repeat_interleave(k, dim=0)
    memory = writer.memorise(rows) if memory is None else memory
    found = score_targets(
        writer.target_states(memory, spread),
        spread,
        writer.head,
        mask=spread != options.pad,
        with_sums=options.smoothing > 0,
    )
    shape = (fed.shape[0], k, fed.shape[1])
    sums = None if found.sums is None else found.sums.view(shape)
    return Scored(targets, found.log_probs.view(shape), sums=sums)
