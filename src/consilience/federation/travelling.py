"""Which weights of a model travel, which stay with a party, and how a change of them is told.

    full, subset          the weights themselves
    average               both factors of adapters (FedIT; Zhang et al., 2023, arXiv 2305.05644)
    alternate             both, trained in turn (RoLoRA; Chen et al., 2025, arXiv 2502.01755)
    frozen-a              the second alone (FFA-LoRA; Sun et al., 2024, arXiv 2403.12313)
    stack                 the weights under the adapters (FLoRA; Wang et al., 2024,
                          arXiv 2409.05976)

An adapter adds `s B A` to a weight `W`, with `A [r, in]`, `B [out, r]` and `s = alpha / r`. The
mean of products is no product of means, unless all parties have one of the factors in common:

    mean(B_i) A = mean(B_i A)

which holds round by round for `alternate` and `frozen-a`. With `stack` every round begins a fresh
adapter on the weight that is shared, and the products themselves are averaged. `B` begins at zero,
so the first round of `alternate` trains `B`.

The first factors are drawn from the seed of the federation, number by number the same on every
machine, so nobody has to send them. Nothing here knows questions or passages.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.federation.config import TravelSettings
from consilience.federation.contracts import Weights
from consilience.model.rag_model import RagModel

FIRST, SECOND = "lora_A", "lora_B"
"""What the names of an adapter's factors have in them."""

CONTROL = "control/"
"""What names of control variates begin with (SCAFFOLD)."""

_ADAPTED = ("alternate", "frozen-a", "average", "stack")


def has_adapters(kind: str) -> bool:
    """Whether a kind of travel is of adapters."""
    return kind in _ADAPTED


def moving_in(kind: str, number: int, names: Sequence[str]) -> tuple[str, ...]:
    """The shared weights that are trained in a round, in the order in which they are given.

    Args:
        kind: Of travel.
        number: Of the round, from 1.
        names: Of all shared weights, and of their control variates.

    Example:
        >>> moving_in("alternate", 1, ["q.lora_A.weight", "q.lora_B.weight", "log_temperature"])
        ('q.lora_B.weight', 'log_temperature')
    """
    still = {"alternate": FIRST if number % 2 else SECOND, "frozen-a": FIRST}.get(kind)
    return tuple(name for name in names if still not in name.split("."))


def with_controls(weights: Weights) -> dict[str, Tensor]:
    """Shared weights with control variates of zero beside them (SCAFFOLD)."""
    zeros = {f"{CONTROL}{name}": torch.zeros_like(value) for name, value in weights.items()}
    return dict(weights) | zeros


def without_controls(weights: Weights) -> dict[str, Tensor]:
    """Shared weights alone."""
    return {name: value for name, value in weights.items() if not name.startswith(CONTROL)}


def controls_in(weights: Weights) -> dict[str, Tensor]:
    """Control variates alone, by the names of their weights."""
    found = {n: value for n, value in weights.items() if n.startswith(CONTROL)}
    return {name.removeprefix(CONTROL): value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Factors:
    """The adapter of a weight `[out, in]`; it adds `scale * second @ first`.

    Attributes:
        first: `A`, `[r, in]`.
        second: `B`, `[out, r]`.
        scale: `alpha / r`.
    """

    first: nn.Parameter
    second: nn.Parameter
    scale: float

    def product(self) -> Tensor:
        """What it adds, `[out, in]`."""
        return self.scale * (self.second @ self.first)

    def renew(self, seed: str) -> None:
        """Begin again: the second factor at zero, the first drawn."""
        with torch.no_grad():
            self.second.zero_()
            self.first.copy_(_drawn(tuple(self.first.shape), seed))


class Travelling:
    """The weights of a model, sorted into those that travel, those that stay, and the rest.

    The rest does not learn. A model is sorted once, after `training.preparing`.

    Args:
        model: Whose weights; those that are to learn require gradients.
        settings: What travels.
        seed: Of the adapters' first factors.

    Attributes:
        shared: The weights that travel.
        personal: Those that learn and stay.
        factors: With `stack`, the adapters of shared weights, by the names of the weights.

    Raises:
        UsageError: A name that no weight begins with, or nothing is left to travel.
    """

    def __init__(self, model: RagModel, settings: TravelSettings, *, seed: int) -> None:
        self.model = model
        adapters = dict(_adapters(model)) if has_adapters(settings.kind) else {}
        for name, one in adapters.items():
            one.renew(f"{seed}:{name}")
        learning = {n: w for n, w in model.named_parameters() if w.requires_grad}
        self.personal = _named(learning, settings.personal, "travel.personal")
        common = {name: w for name, w in learning.items() if name not in self.personal}
        self.factors = _shared_factors(adapters, common) if settings.kind == "stack" else {}
        self.shared = self._chosen(common, settings)
        if not self.shared:
            raise UsageError(
                "no weight is left to travel", hint="name fewer weights under travel.personal"
            )
        for name, weight in learning.items():
            weight.requires_grad_(name in self.shared or name in self.personal)

    def _chosen(
        self, common: Mapping[str, nn.Parameter], settings: TravelSettings
    ) -> dict[str, nn.Parameter]:
        """Of the weights that learn and are not personal, those that travel."""
        if settings.kind == "subset":
            return _named(common, settings.names, "travel.names")
        if settings.kind == "frozen-a":
            return {name: w for name, w in common.items() if FIRST not in name.split(".")}
        if settings.kind == "stack":
            plain = {n: w for n, w in common.items() if not {FIRST, SECOND} & set(n.split("."))}
            weights = dict(self.model.named_parameters())
            return plain | {name: weights[_inside(name)] for name in self.factors}
        return dict(common)

    def read(self) -> dict[str, Tensor]:
        """The shared weights as they are, float32 copies on the processor."""
        return {name: _plain(weight) for name, weight in self.shared.items()}

    def write(self, weights: Weights) -> None:
        """Put shared weights in; adapters that are stacked begin at nothing.

        Raises:
            UsageError: They are of another model.
        """
        self._require_same(weights)
        for name, weight in self.shared.items():
            put(weight, weights[name])
        for name, one in self.factors.items():
            one.renew(name)

    def begin(self, moving: Sequence[str], *, seed: str) -> None:
        """Let exactly these shared weights learn, beside the personal ones.

        Args:
            moving: Their names.
            seed: Of fresh adapters, where there are any.

        Raises:
            UsageError: One of them does not travel, or there is none.
        """
        other = sorted(set(moving) - self.shared.keys())
        if other or not moving:
            raise UsageError(
                f"asked to train {other[0] if other else 'nothing'}, which does not travel",
                hint=f"what travels: {', '.join(sorted(self.shared)[:3])}, …",
            )
        for name, weight in self.shared.items():
            weight.requires_grad_(name in moving and name not in self.factors)
        for name, one in self.factors.items():
            one.renew(f"{seed}:{name}")
            one.first.requires_grad_(name in moving)
            one.second.requires_grad_(name in moving)

    def learning(self, moving: Sequence[str]) -> dict[str, nn.Parameter]:
        """The parameters behind the shared weights that are trained, by name."""
        plain = {name: self.shared[name] for name in moving if name not in self.factors}
        for name in moving:
            if name in self.factors:
                plain[f"{name}//a"] = self.factors[name].first
                plain[f"{name}//b"] = self.factors[name].second
        return plain

    def offset(self, name: str, start: Tensor) -> Tensor:
        """How far a shared weight is from `start`, with its gradient."""
        if name in self.factors:
            return self.factors[name].product()
        return self.shared[name] - start

    def change(self, moving: Sequence[str], start: Weights) -> dict[str, Tensor]:
        """New minus old weights, as an `Update` tells them.

        `start` with it added is the new weight.

        Args:
            moving: What was trained.
            start: What was put in.
        """
        found = {}
        for name in moving:
            if name in self.factors:
                one = self.factors[name]
                found[f"{name}//a"] = _plain(one.first)
                found[f"{name}//b"] = _plain(one.second) * one.scale
            else:
                found[name] = difference(_plain(self.shared[name]), start[name])
        return found

    def fingerprint(self) -> str:
        """Digest of the weights that neither travel nor are personal, 32 hexadecimal digits."""
        away = {id(one) for one in (*self.shared.values(), *self.personal.values())}
        away |= {id(f) for one in self.factors.values() for f in (one.first, one.second)}
        named = self.model.named_parameters()
        return weights_digest((name, one) for name, one in named if id(one) not in away)

    def _require_same(self, weights: Weights) -> None:
        wrong = sorted(
            name
            for name in self.shared.keys() | weights.keys()
            if name not in self.shared
            or name not in weights
            or self.shared[name].shape != weights[name].shape
        )
        if wrong:
            raise UsageError(
                f"shared weights of another model: {wrong[0]}"
                + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
                hint="all parties and the coordinator need the same recipe and starting model",
            )


def difference(new: Tensor, old: Tensor) -> Tensor:
    """`new - old` without rounding: float32 where that holds it, else float64.

    Float32 does while a weight keeps its sign and at least halves or at most doubles (Sterbenz,
    1974); float64 does down to a weight of 2^-29 of what it was.
    """
    exact = new.double() - old.double()
    near = exact.float()
    return near if torch.equal(near.double(), exact) else exact


def put(weight: Tensor, value: Tensor) -> None:
    """Give a parameter another value, where it is."""
    with torch.no_grad():
        weight.copy_(value)


def weights_digest(weights: Iterable[tuple[str, Tensor]], *, before: str = "") -> str:
    """Digest of weights as float32, with names and shapes, 32 hexadecimal digits.

    Args:
        weights: By name, in the order that counts.
        before: What else goes in, first.
    """
    digest = hashlib.sha256(before.encode())
    for name, weight in weights:
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True)


def _adapters(model: RagModel) -> Iterator[tuple[str, Factors]]:
    """The adapters of a model by the names of the weights that they stand beside."""
    for name, module in model.named_modules():
        layer: Any = module
        if hasattr(layer, FIRST) and hasattr(layer, "get_base_layer"):
            (kind,) = layer.lora_A
            first, second = layer.lora_A[kind].weight, layer.lora_B[kind].weight
            yield f"{name}.weight", Factors(first, second, float(layer.scaling[kind]))


def _shared_factors(
    adapters: Mapping[str, Factors], common: Mapping[str, nn.Parameter]
) -> dict[str, Factors]:
    """The adapters that learn and are not personal."""
    here = {id(weight) for weight in common.values()}
    return {name: one for name, one in adapters.items() if id(one.second) in here}


def _inside(name: str) -> str:
    """Where the weight under an adapter stands."""
    return f"{name.removesuffix('.weight')}.base_layer.weight"


def _named(
    weights: Mapping[str, nn.Parameter], beginnings: Sequence[str], setting: str
) -> dict[str, nn.Parameter]:
    """The weights whose names begin so.

    Raises:
        UsageError: None begins with one of them.
    """
    for each in beginnings:
        if not any(name.startswith(each) for name in weights):
            examples = dict.fromkeys(".".join(name.split(".")[:3]) for name in weights)
            raise UsageError(
                f"{setting} has {each!r}, and no weight that learns begins so",
                hint=f"for instance: {', '.join(list(examples)[:6])}",
            )
    return {name: w for name, w in weights.items() if name.startswith(tuple(beginnings))}


def _drawn(shape: tuple[int, ...], seed: str) -> Tensor:
    """Evenly from -1 / sqrt(in) to 1 / sqrt(in), as adapters are begun; `[r, in]`."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    even = np.random.Generator(np.random.PCG64(number)).random(shape)  # float64, from 0 to 1
    scaled = (even * 2.0 - 1.0) / np.sqrt(shape[-1])
    return torch.from_numpy(scaled.astype(np.float32))
