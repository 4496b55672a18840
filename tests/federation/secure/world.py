"""Parties that add up in secret, and a coordinator between them for whom things go wrong."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from consilience.errors import ConsilienceError, DamagedError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Ask, Gathered, Orders, Update
from consilience.federation.parcels import Parcel
from consilience.federation.secure import (
    PartyKey,
    Roster,
    SecureGathering,
    SecureSealing,
    new_party_key,
)
from consilience.federation.secure.bonds import Dealing, bonds_of, deal
from consilience.federation.secure.ciphers import label, unbox
from consilience.federation.secure.memory import Memory
from consilience.federation.secure.shamir import join
from consilience.federation.secure.terms import Terms

SHAPES = {"a.weight": (3, 4), "b.bias": (5,)}
WEIGHTS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}


def update(seed: int, *, weight: float | None = None, size: float = 0.1) -> Update:
    """A change of its own for each seed, within ±0.5 nearly always."""
    generator = torch.Generator().manual_seed(seed)
    delta = {name: torch.randn(shape, generator=generator) * size for name, shape in SHAPES.items()}
    told = {"loss": 1.0 + seed % 7, "eval_f1": 0.1 * (seed % 10)}
    return Update(delta, float(10 + seed % 90) if weight is None else weight, told)


@dataclass
class World:
    """So many parties, in one run."""

    folder: Path
    names: tuple[str, ...]
    config: SecureSettings
    keys: dict[str, PartyKey] = field(default_factory=dict)
    parties: dict[str, SecureSealing] = field(default_factory=dict)
    round: int = 0

    def __post_init__(self) -> None:
        self.keys = {name: new_party_key() for name in self.names}
        self.roster = Roster({name: key.public for name, key in self.keys.items()})
        for name in self.names:
            self.restart(name)
        self.gathering = SecureGathering(self.config)

    def restart(self, name: str, *, roster: Roster | None = None) -> None:
        """The party as a new process, with what is on its disk."""
        roster = roster or self.roster
        self.parties[name] = SecureSealing(
            name, self.keys[name], roster, self.folder / name, self.config
        )

    def orders(self) -> Orders:
        """Of the next round."""
        self.round += 1
        return Orders("run", self.round, tuple(SHAPES), self.names, 0)

    def terms(self, orders: Orders) -> Terms:
        return Terms.of(orders, SHAPES, self.config)

    def seal(self, orders: Orders, updates: Mapping[str, Update]) -> dict[str, Parcel]:
        return {name: self.parties[name].seal(each, orders) for name, each in updates.items()}

    def ask(self, orders: Orders, *, silent: Collection[str] = ()) -> Ask:
        """A way to ask, where some do not answer and who refuses is silent, too."""

        def asking(requests: Mapping[str, Parcel]) -> dict[str, Parcel]:
            found = {}
            for name, request in requests.items():
                if name not in silent:
                    try:
                        travelled = Parcel.unpack(request.pack())
                        answer = self.parties[name].further(travelled, orders)
                    except ConsilienceError:
                        continue
                    found[name] = Parcel.unpack(answer.pack())
            return found

        return asking

    def gather(
        self, orders: Orders, sealed: Mapping[str, Parcel], *, silent: Collection[str] = ()
    ) -> Gathered:
        travelled = {name: Parcel.unpack(parcel.pack()) for name, parcel in sealed.items()}
        return self.gathering.gather(orders, travelled, WEIGHTS, self.ask(orders, silent=silent))

    def dealing(self, name: str, orders: Orders) -> Dealing:
        """What only the party itself knows."""
        attempt = Memory(self.folder / name).recall(orders)
        bonds = bonds_of(name, self.keys[name], self.roster, attempt.terms)
        return deal(name, bonds, attempt.terms, attempt.fresh)


def world(folder: Path, parties: int, *, threshold: int | None = None) -> World:
    names = tuple(f"party-{number}" for number in range(parties))
    return World(folder, names, SecureSettings(sums=True, threshold=threshold))


def updates(names: Iterable[str], *, seed: int = 0) -> dict[str, Update]:
    return {name: update(seed * 100 + number) for number, name in enumerate(names)}


def plain_mean(known: Mapping[str, Update], longest: float = 0.5) -> dict[str, torch.Tensor]:
    """FedAvg in double precision: Σ w·δ / Σ w."""
    total = sum(each.weight for each in known.values())
    return {
        name: sum(each.weight * cut(each, name, longest) for each in known.values()) / total
        for name in SHAPES
    }


def cut(known: Update, name: str, longest: float) -> torch.Tensor:
    return known.delta[name].double().clamp(-longest, longest)


def again(orders: Orders, **changes: object) -> Orders:
    return replace(orders, **changes)  # type: ignore[arg-type]


def eavesdrop(terms: Terms, told: Iterable[Mapping[str, object]]) -> dict[str, bytes]:
    """What can be read of what was told, by whoever heard all of it and honours no rule."""
    heard = {str(about["party"]): about for about in told}
    found = {}
    for party, about in heard.items():
        points = {terms.number(party): bytes.fromhex(about["own"])}
        for other, theirs in heard.items():
            for choice in {about["choice"], theirs["choice"]}:
                matter = label("piece", choice, party, other)
                try:
                    opening = bytes.fromhex(theirs["openings"][party])
                    points[terms.number(other)] = unbox(opening, about["pieces"][other], matter)
                except (KeyError, DamagedError):
                    continue
        matter = label("body", about["choice"], party)

        def opens(key: bytes, about: Mapping = about, matter: bytes = matter) -> bool:
            try:
                return bool(unbox(key, about["body"], matter))
            except DamagedError:
                return False

        if key := join(points, threshold=terms.threshold, right=opens):
            found[party] = unbox(key, about["body"], matter)
    return found
