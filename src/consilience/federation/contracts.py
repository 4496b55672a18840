"""Who does what in a federation, and what passes between them.

The life of a run, in requests that the coordinator sends (`about["kind"]`) and replies to them:

    "join"      the recipe, and which party this is → a `Description`; a party that does not fit
                says why and takes no part
    "train"     `Orders` and the shared weights → a sealed `Update`
    "further"   what a `Gathering` asks in the middle of a round → what `Sealing.further` says
    "end"       the final weights; a party keeps them with its personal ones as a model of its own

Every request and reply names its run and round; a reply to anything else than what was asked is no
reply. A party that fails replies `{"kind": "fault", "message": …, "traceback": …}`: the traceback
is its own code's, without values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor

from consilience.errors import UsageError
from consilience.federation.parcels import Parcel

PROTOCOL = 1
"""Of requests and replies; parties of another are refused."""

Weights = Mapping[str, Tensor]
"""Weights by name, float32 on the processor."""


class SpentError(UsageError):
    """A party's budget of privacy does not bear another round; it takes no further part."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a party is, as far as the coordinator has to know.

    Attributes:
        party: Its name.
        version: Of this package.
        protocol: `PROTOCOL`.
        model: Fingerprint of the weights that the run starts from and that do not travel.
        tokenizer: Fingerprint of its tokenizers.
        shared: Shape of every weight that travels.
        clock: Its time, seconds since 1970; certificates and time limits depend on it.
        key: Its public key, for sums that are secret; empty without.
    """

    party: str
    version: str
    protocol: int
    model: str
    tokenizer: str
    shared: Mapping[str, tuple[int, ...]]
    clock: float
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made; raises KeyError, TypeError or ValueError where it is not."""
        shared = {str(name): tuple(map(int, shape)) for name, shape in found["shared"].items()}
        return cls(**{**found, "shared": shared})


@dataclass(frozen=True, slots=True)
class Orders:
    """What a party is to do in a round.

    Attributes:
        run: Name of the run.
        round: Its number, from 1.
        moving: Names of the shared weights that are trained in this round, and travel up.
        parties: Who is asked, in one order for all.
        seed: Of everything random that is not secret.
        attempt: How often this round was begun, from 1. A round that could not be added up is
            repeated with the next number and the same update; its masks are fresh.
        begins: Digest of what it begins from. A party puts in its own, of the weights that reached
            it, so that secret sums of parties that were sent different ones do not open.
    """

    run: str
    round: int
    moving: tuple[str, ...]
    parties: tuple[str, ...]
    seed: int
    attempt: int = 1
    begins: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made; raises KeyError, TypeError or ValueError where it is not."""
        return cls(
            run=str(found["run"]),
            round=int(found["round"]),
            moving=tuple(map(str, found["moving"])),
            parties=tuple(map(str, found["parties"])),
            seed=int(found["seed"]),
            attempt=int(found.get("attempt", 1)),
            begins=str(found.get("begins", "")),
        )


@dataclass(frozen=True, slots=True)
class Update:
    """What a party learned in a round, before anything is sealed. Never leaves it as it is.

    Attributes:
        delta: New minus old weights, of `Orders.moving` and no others; float32, float64 where that
            cannot hold the difference.
        weight: How much it counts: questions trained on; with a budget, records rounded up.
        metrics: Means over its questions; told only as sealing allows. `loss` is always there;
            those of the weights that came, on the party's own dev questions, begin with `eval_`.
        epsilon: Privacy spent by this party until now; None without a budget.
        seconds: Its own training took.
    """

    delta: Weights
    weight: float
    metrics: Mapping[str, float]
    epsilon: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a round came to.

    Attributes:
        delta: Mean of the updates, by weight; float32, or float64 where an update is.
        weight: Sum of the weights.
        metrics: Means by weight.
        refused: Parties whose update does not count, with the reason.
    """

    delta: Weights
    weight: float
    metrics: Mapping[str, float]
    refused: Mapping[str, str] = field(default_factory=dict)


class Trainee(Protocol):
    """A model over a party's own store and questions, resident between rounds."""

    def describe(self) -> tuple[str, str]:
        """Fingerprints of what does not travel, and of the tokenizers."""
        ...

    def shared(self) -> dict[str, Tensor]:
        """The weights that travel as they are now, by name, float32."""
        ...

    def fit(self, orders: Orders, weights: Weights) -> Update:
        """Train on the party's own questions, beginning from `weights`.

        Raises:
            SpentError: Its budget does not bear this round; nothing was trained or spent.
            ConsilienceError: Nothing to learn from, a loss that is no number.
        """
        ...

    def keep(self, weights: Weights) -> str:
        """Save the model of these weights on the party's disk; returns where."""
        ...


class Sealing(Protocol):
    """What of an update leaves a party, and in which form."""

    def seal(self, update: Update, orders: Orders) -> Parcel:
        """The update as it may leave; the same update of the same round gives the same parcel."""
        ...

    def further(self, request: Parcel, orders: Orders) -> Parcel:
        """Answer what the gathering asks after the first message of a round."""
        ...


Ask = Callable[[Mapping[str, Parcel]], Mapping[str, Parcel]]
"""Ask parties once more in the same round; who does not answer is not in what comes back."""


class Gathering(Protocol):
    """How the sealed updates of a round become one; the other side of a `Sealing`."""

    def gather(
        self, orders: Orders, sealed: Mapping[str, Parcel], weights: Weights, ask: Ask
    ) -> Gathered:
        """Add up a round.

        Args:
            orders: Of the round.
            sealed: From every party that answered in time.
            weights: The shared weights as they were sent.
            ask: Asks parties once more.

        Raises:
            ConsilienceError: Too few updates are left for a sum; nothing has changed, and the round
                may be repeated.
        """
        ...


class Party(Protocol):
    """A party as its agent serves it: bytes in, bytes out. Never raises; see `fault`."""

    @property
    def name(self) -> str:
        """Its name in the federation."""
        ...

    def answer(self, request: bytes) -> bytes:
        """Answer one request. The same request again has the same answer and no other effect."""
        ...


@dataclass(frozen=True, slots=True)
class Wait:
    """How long replies are waited for.

    Attributes:
        quorum: With so many replies the others get `grace` seconds more.
        grace: Seconds.
        deadline: Seconds after which nobody is waited for.
    """

    quorum: int
    grace: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from a party.

    Attributes:
        party: Its name.
        body: The bytes of its reply; None where none came.
        error: Why none came; empty where one did.
        seconds: From asking.
    """

    party: str
    body: bytes | None
    error: str = ""
    seconds: float = 0.0


class Parties(Protocol):
    """The coordinator's way to the parties; an engine behind it carries the bytes."""

    def present(self) -> Sequence[str]:
        """Names of the parties that can be asked now."""
        ...

    def ask(self, requests: Mapping[str, bytes], wait: Wait) -> Iterable[Reply]:
        """Send each party its request and give replies as they come, until `wait` is over.

        Each party that was asked is in exactly one reply; those given up come last.
        """
        ...

    def close(self) -> None:
        """Let go of the engine."""
        ...
