"""One round of a party's training under differential privacy (DP-SGD).

    spend      the round is written into the ledger
    sample     every record with probability q = batch / records
    bound      the gradient of each record, all its questions together, is clipped to C
    noise      the sum gets normal noise of deviation z C, and is divided by the batch expected
    step       Adam or SGD on what came out

What comes out of `noise` is private, and so is everything that is made of it and of public numbers:
the moments of Adam, the pull of FedProx, the weights, the update. z is found before the first round
so that all rounds together stay within the budget.

Knows neither files nor messages but the ledger.

Source: Abadi et al., 2016, "Deep Learning with Differential Privacy", algorithm 1.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.federation.config import PrivacySettings
from consilience.federation.privacy.accounting import coarse, delta_of, noise_for
from consilience.federation.privacy.clipping import (
    LOSS_SHARE,
    MOST_LOSS,
    Told,
    mean_loss,
    noised,
    summed,
)
from consilience.federation.privacy.gradients import QuestionGradients
from consilience.federation.privacy.ledger import Ledger, Spent
from consilience.federation.privacy.randomness import sampled
from consilience.federation.privacy.records import records_of
from consilience.training.examples import Example
from consilience.training.learner import Learner

QUESTION_BY_QUESTION = frozenset(
    {
        "sequence",
        "token",
        "emdr2",
        "perplexity",
        "attention",
        "leave_one_out",
        "fid",
        "average",
        "attention_fusion",
        "concat",
        "reader",
        "abstain",
        "distil",
        "distil_posterior",
        "distil_states",
    }
)
"""Objectives in which a question's loss depends on no other question of its batch."""

COUPLED = {
    "info_nce": "its negatives are the passages of other questions",
    "kl": "its teacher has read what no budget counts",
    "margin_mse": "its teacher has read what no budget counts",
}
"""Why those that are left out are."""

_BatchNorm = nn.modules.batchnorm._BatchNorm  # no public name for all of them


@dataclass(frozen=True, slots=True)
class PrivateRound:
    """What is trained in a round.

    Attributes:
        run: Name of the run.
        round: Its number, from 1.
        rounds: Of the whole run.
        rate: Of the optimiser.
        batch: Records that are expected in a step.
        steps: None is one pass over the records.
        optimiser: Begins afresh in every round.
        proximal: Pull towards the weights as they are at the beginning (FedProx).
    """

    run: str
    round: int
    rounds: int
    rate: float
    batch: int
    steps: int | None = None
    optimiser: Literal["adam", "sgd"] = "adam"
    proximal: float = 0.0


@dataclass(frozen=True, slots=True)
class PrivateFit:
    """What came of a round.

    Attributes:
        metrics: `loss`, the noised mean of the records' losses, and `loss_noise`, the deviation of
            its noise. Nothing else about the party's questions may be told.
        weight: Number of records, `coarse`.
        epsilon: Spent by the run until now.
        total: Spent on this party's data by all runs until now; it is the party's own affair.
        noise: Noise multiplier.
        steps: That were taken.
    """

    metrics: Mapping[str, float]
    weight: float
    epsilon: float
    total: float
    noise: float
    steps: int


def private_fit(
    learner: Learner,
    examples: Sequence[Example],
    moving: Mapping[str, nn.Parameter],
    *,
    privacy: PrivacySettings,
    work: PrivateRound,
    ledger: Ledger,
) -> PrivateFit:
    """Train a round, so that no record can be told from what comes out.

    Args:
        learner: Model, index and objectives.
        examples: What is learned from.
        moving: Every weight that learns, float32; they are changed in place. A weight that learned
            from the same questions in any other way would give them away.
        privacy: With a budget.
        work: The round.
        ledger: Of the party.

    Raises:
        SpentError: The round would exceed a budget; nothing was trained or spent.
        UsageError: As `require_private`, or no noise is enough for the budget.
        DamagedError, VersionError, BusyError: As `Ledger.spend`.
    """
    records = require_private(learner, examples, privacy)
    assert privacy.epsilon is not None
    spent = _planned(privacy, work, len(records), ledger)
    standing = ledger.spend(spent, budget=privacy.epsilon)
    expected = spent.sampling * coarse(len(records))
    training = _Training(learner, moving, work)
    losses = []
    with _learning(learner):
        for _ in range(spent.steps):
            chosen = sampled(len(records), spent.sampling)
            total = training.summed({i: records[i] for i in chosen}, privacy.longest)
            told = noised(total, longest=privacy.longest, noise=spent.noise)
            losses.append(mean_loss(float(told[-1]), longest=privacy.longest, expected=expected))
            training.step(told[:-1] / expected)
    deviation = spent.noise * MOST_LOSS / LOSS_SHARE / expected / math.sqrt(spent.steps)
    return PrivateFit(
        metrics={"loss": sum(losses) / len(losses), "loss_noise": deviation},
        weight=float(coarse(len(records))),
        epsilon=standing.run,
        total=standing.total,
        noise=spent.noise,
        steps=spent.steps,
    )


def require_private(
    learner: Learner, examples: Sequence[Example], privacy: PrivacySettings
) -> list[list[Example]]:
    """The records of a party, if they can be kept apart.

    Args:
        learner: Whose objectives.
        examples: What is learned from.
        privacy: With a budget.

    Raises:
        UsageError: There is no budget, no record, a question that names no record, or something
            that mixes records: an objective, the normalisation of a batch, vectors that are renewed
            where questions look.
    """
    if privacy.epsilon is None:
        raise UsageError("private training needs a budget", hint="set privacy.epsilon")
    mixed = [name for name in learner.mixture.active if name not in QUESTION_BY_QUESTION]
    if mixed:
        why = "; ".join(f"{one}: {COUPLED.get(one, 'it mixes questions')}" for one in mixed)
        raise UsageError(
            f"privacy needs a gradient of each question by itself, and there is none of {why}",
            hint=f"take other objectives: {', '.join(sorted(QUESTION_BY_QUESTION))}",
        )
    if any(isinstance(one, _BatchNorm) for one in learner.modules()):
        raise UsageError(
            "privacy needs a gradient of each question by itself, and batch normalisation mixes "
            "them",
            hint="start from a model with layer normalisation",
        )
    if learner.options.over > 1:
        raise UsageError(
            "refresh.mode proposed renews the vectors of passages where questions look, which "
            "tells of the questions without noise",
            hint="set refresh.mode to synchronous or never",
        )
    return records_of(examples, privacy.unit, index=learner.index)


def _planned(privacy: PrivacySettings, work: PrivateRound, records: int, ledger: Ledger) -> Spent:
    """What the round spends: the noise of its run, found when its first round is planned."""
    assert privacy.epsilon is not None
    about = coarse(records)
    sampling, delta = min(1.0, work.batch / about), delta_of(about, privacy.delta)
    steps = -(-about // work.batch) if work.steps is None else work.steps
    known = (
        one.noise
        for one in ledger.history()
        if (one.run, one.sampling, one.delta) == (work.run, sampling, delta)
    )
    noise = next(known, None) or noise_for(
        epsilon=privacy.epsilon, delta=delta, sampling=sampling, count=steps * work.rounds
    )
    return Spent(
        run=work.run,
        round=work.round,
        unit=privacy.unit,
        sampling=sampling,
        noise=noise,
        steps=steps,
        delta=delta,
    )


class _Training:
    """The weights of a round with their optimiser.

    Args:
        learner: Whose gradients.
        moving: The weights.
        work: The round.
    """

    def __init__(
        self, learner: Learner, moving: Mapping[str, nn.Parameter], work: PrivateRound
    ) -> None:
        self.gradients = QuestionGradients(learner, moving)
        self.weights, self.proximal = list(moving.values()), work.proximal
        self.start = [weight.detach().clone() for weight in self.weights]
        self.optimiser = _OPTIMISERS[work.optimiser](self.weights, work.rate)

    def summed(self, chosen: Mapping[int, Sequence[Example]], longest: float) -> Tensor:
        """What the chosen records add up to, before it is noised."""
        return summed(self._told(chosen), size=self.gradients.size, longest=longest)

    def _told(self, chosen: Mapping[int, Sequence[Example]]) -> Iterator[Told]:
        owned = [(record, one) for record, examples in chosen.items() for one in examples]
        found = self.gradients.of([one for _, one in owned])
        for (record, _), (gradient, loss) in zip(owned, found, strict=True):
            yield Told(record, gradient, loss)

    def step(self, gradient: Tensor) -> None:
        """A step of the optimiser along a gradient that is private already, `[size]`."""
        parts = torch.split(gradient, [weight.numel() for weight in self.weights])
        for weight, part, start in zip(self.weights, parts, self.start, strict=True):
            pull = self.proximal * (weight.detach() - start)
            weight.grad = part.view_as(weight).to(weight) + pull
        self.optimiser.step()
        self.optimiser.zero_grad()


def _adam(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=rate)


def _sgd(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=rate)


_OPTIMISERS: Mapping[str, Callable[[list[nn.Parameter], float], torch.optim.Optimizer]] = {
    "adam": _adam,
    "sgd": _sgd,
}


@contextmanager
def _learning(learner: Learner) -> Iterator[None]:
    """The learner as it trains, and afterwards as it was."""
    before = learner.training
    learner.train()
    try:
        yield
    finally:
        learner.train(before)
