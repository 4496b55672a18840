"""Parties that learn without models: a pull of tensors towards what each would have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import (
    Orders,
    Party,
    Reply,
    SpentError,
    Update,
    Wait,
    Weights,
)
from consilience.federation.local import LocalParties
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing
from consilience.federation.terms import Limits
from consilience.training.settings import parse_settings

SHAPES = {"encoder.weight": (4, 3), "encoder.bias": (4,), "temperature": ()}
RECIPE = {"objectives": {"sequence": 1.0}}


def ask_nobody(_: Mapping[str, Any]) -> Mapping[str, Any]:
    raise AssertionError("nothing more is asked")


def start() -> dict[str, Tensor]:
    """The weights that a run begins with."""
    return {name: torch.full(shape, 0.5) for name, shape in SHAPES.items()}


def config_of(folder: Path, **values: Any) -> FederationConfig:
    """A federation of few and short rounds."""
    plain = {
        "output": str(folder / "run"),
        "recipe": str(folder / "recipe.yaml"),
        "rounds": 3,
        "grace": 0.2,
        "deadline": 20,
        "travel": {"kind": "full"},
    }
    return parse_settings(FederationConfig, plain | values, source="the test")


@dataclass
class Pull:
    """A trainee that goes a third of the way to a number of its own.

    Attributes:
        goal: Its number.
        questions: It has.
        model: Fingerprint of its model.
        tokenizer: Fingerprint of its tokenizers.
        budget: Rounds that its budget bears; None for any.
        fits: Rounds that it trained.
        kept: The final weights.
        meanwhile: Called while it trains.
    """

    goal: float
    questions: float = 10.0
    model: str = "model-1"
    tokenizer: str = "words-1"
    budget: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    fits: list[int] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    meanwhile: Callable[[Orders], None] = lambda _: None

    def describe(self) -> tuple[str, str]:
        return self.model, self.tokenizer

    def shared(self) -> dict[str, Tensor]:
        return {name: torch.full(shape, 0.5) for name, shape in self.shapes.items()}

    def fit(self, orders: Orders, weights: Weights) -> Update:
        if self.budget is not None and orders.round > self.budget:
            raise SpentError(f"a budget of {self.budget} rounds is spent", hint="raise it")
        self.fits.append(orders.round)
        self.meanwhile(orders)
        noise = torch.Generator().manual_seed(orders.round + int(1000 * self.goal))
        delta = {
            name: (self.goal - weights[name]) / 3
            + 0.01 * torch.randn(weights[name].shape, generator=noise)
            for name in orders.moving
        }
        loss = float((weights["encoder.bias"] - self.goal).square().mean())
        epsilon = None if self.budget is None else orders.round / self.budget
        return Update(delta, self.questions, {"loss": loss}, epsilon, 0.01)

    def keep(self, weights: Weights) -> str:
        self.kept = dict(weights)
        return "kept"


@dataclass
class Start:
    """The coordinator's model."""

    model: str = "model-1"
    tokenizer: str = "words-1"
    saved: list[dict[str, Tensor]] = field(default_factory=list)

    def describe(self) -> tuple[str, str]:
        return self.model, self.tokenizer

    def shared(self) -> dict[str, Tensor]:
        return start()

    def moving(self, number: int) -> tuple[str, ...]:
        assert number > 0
        return tuple(SHAPES)

    def keep(self, weights: Weights) -> str:
        self.saved.append(dict(weights))
        return "model"


def party_of(folder: Path, name: str, trainee: Pull, **limits: Any) -> ResidentParty:
    """A resident party over a fake trainee."""
    return ResidentParty(
        name,
        lambda _, __: trainee,
        lambda config, place: PlainSealing(config.travel.precision, place),
        state=folder / name,
        limits=Limits(**limits),
    )


@dataclass
class Bent:
    """A party whose replies are changed on their way.

    Attributes:
        party: That answers.
        bend: What becomes of a reply, given the request.
    """

    party: Party
    bend: Callable[[bytes, bytes], bytes]

    @property
    def name(self) -> str:
        return self.party.name

    def answer(self, request: bytes) -> bytes:
        return self.bend(request, self.party.answer(request))


class Told:
    """Parties whose order of replies, absence and doubles a test decides."""

    def __init__(
        self,
        parties: Sequence[Party],
        *,
        order: Callable[[list[str]], list[str]] = sorted,
        absent: Callable[[str, int], bool] = lambda _, __: False,
        twice: bool = False,
    ) -> None:
        self.inner = LocalParties(parties)
        self.order, self.absent, self.twice, self.looks = order, absent, twice, 0
        self.bodies: list[tuple[str, bytes]] = []

    def present(self) -> Sequence[str]:
        self.looks += 1
        return [name for name in self.inner.present() if not self.absent(name, self.looks)]

    def ask(self, requests: Mapping[str, bytes], wait: Wait) -> list[Reply]:
        found = {reply.party: reply for reply in self.inner.ask(requests, wait)}
        self.bodies += [(name, reply.body or b"") for name, reply in found.items()]
        replies = [found[name] for name in self.order(list(found))]
        return replies * 2 if self.twice else replies

    def close(self) -> None:
        self.inner.close()


def refuse(_: Any) -> Any:
    raise UsageError("refused", hint="nothing")
