"""From the settings of a run to what the loop is given: arguments, batches, optimiser."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from transformers import TrainingArguments

from consilience.training.batches import LengthBuckets, mixture_weights
from consilience.training.config import TrainConfig
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.sharding import HOW


def arguments(config: TrainConfig, *, saves: bool = True) -> TrainingArguments:
    """The settings as transformers' Trainer takes them.

    Args:
        config: The settings.
        saves: Whether there are checkpoints.
    """
    measured = config.evaluate_every is not None
    return TrainingArguments(
        output_dir=str(config.output),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        max_grad_norm=config.clip,
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        use_cpu=not torch.accelerator.is_available(),
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if saves else "no",
        save_steps=config.save_every,
        eval_strategy="steps" if measured else "no",
        eval_steps=config.evaluate_every,
        seed=config.seed,
        fsdp=config.fsdp or None,  # type: ignore[arg-type]  # declared as its old form
        fsdp_config=dict(HOW) if config.fsdp else None,
        report_to=list(config.report_to),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )


Kind = Literal["encoder", "prior", "other"]
"""Which of the learning rates a weight has."""


def batches_of(
    config: TrainConfig, sets: Sequence[Sequence[Example]], *, seed: int
) -> LengthBuckets:
    """Which examples stand together, those of all sets one after the other."""
    kept = [one for one in sets if one]
    weights = None
    if config.data.temperature > 1:
        each = mixture_weights([len(one) for one in kept], temperature=config.data.temperature)
        weights = [w for one, w in zip(kept, each, strict=True) for _ in one]
    lengths = [example.length for one in kept for example in one]
    return LengthBuckets(lengths, size=config.batch, seed=seed, weights=weights)


def optimiser_of(learner: Learner, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay, encoders and the prior may have rates of their own."""
    groups: dict[tuple[Kind, bool], list[nn.Parameter]] = {}
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            kind = _kind(name, learner)
            groups.setdefault((kind, weight.dim() > 1), []).append(weight)
    rates: dict[Kind, float | None] = {"encoder": config.encoder_rate, "prior": config.prior_rate}
    own = {kind: rate for kind, rate in rates.items() if rate is not None}
    return torch.optim.AdamW(
        [
            {
                "params": weights,
                "lr": own.get(kind, config.learning_rate),
                "weight_decay": config.decay if decays else 0.0,
            }
            for (kind, decays), weights in groups.items()
        ],
        # Weights in parts and whole ones stand in one group, and must not be stepped as one tensor.
        foreach=False if config.fsdp else None,
        # One pass over a weight and its moments in place of ten, as transformers' Trainer has it.
        fused=None if config.fsdp else True,
    )


def _kind(name: str, learner: Learner) -> Kind:
    """What a weight is to the rates; the few numbers that weigh passages have far to go."""
    if name.startswith(("shares.", "model.ranks.")):
        return "prior"
    if name == "model.log_temperature" and learner.shares is not None:
        return "prior"
    return "encoder" if "_encoder." in name else "other"
