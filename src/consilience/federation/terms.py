"""What a coordinator asks of every party, and what a party may refuse.

Of the settings of a federation those travel that concern a party. Where the coordinator writes its
run, whom it waits for and where it listens stays with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from consilience.errors import UsageError
from consilience.federation.config import FederationConfig, PartyConfig, SecureSettings
from consilience.training.settings import as_json, parse_settings

SHARED = (
    "rounds",
    "steps",
    "proximal",
    "scaffold",
    "travel",
    "mean",
    "secure",
    "privacy",
    "seed",
)
"""Settings that concern a party."""


def terms_of(config: FederationConfig) -> dict[str, Any]:
    """The settings that travel, fit for JSON."""
    found = as_json(config)
    return {name: found[name] for name in SHARED}


def parse_terms(found: Mapping[str, Any]) -> FederationConfig:
    """A federation as a party knows it: what `terms_of` left out stands at its default.

    Raises:
        UsageError: They hold mistakes, or something that is no party's business.
    """
    if other := sorted(set(found) - set(SHARED)):
        raise UsageError(
            f"the coordinator asks for settings that no party knows: {', '.join(other)}",
            hint="run the same version everywhere",
        )
    values = {"output": ".", "recipe": "recipe", **found}
    return parse_settings(
        FederationConfig, values, source="the terms of the federation", verb="federate"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Terms that changed although the run did not; without privacy it may be made longer."""
    free = {"rounds"} if new["privacy"]["epsilon"] is None else set()
    return sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n) and n not in free)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a party will not do.

    Attributes:
        most_epsilon: Privacy it is willing to spend; None asks for none.
        only_secure: Whether it takes part only in secure sums.
        most_bytes: The largest request that it reads.
        least_parties: Parties that a round must have; with secure sums, that its sum must have.
    """

    most_epsilon: float | None = None
    only_secure: bool = False
    most_bytes: int = 2**31
    least_parties: int = 1

    @classmethod
    def of(cls, config: PartyConfig) -> Self:
        """As its own file says."""
        return cls(config.most_epsilon, config.only_secure, least_parties=config.least_parties)

    def require(self, config: FederationConfig, party: str) -> None:
        """Refuse a federation that asks for more.

        Raises:
            UsageError: With what is asked, and what the party gives.
        """
        epsilon = config.privacy.epsilon
        if self.most_epsilon is not None and (epsilon is None or epsilon > self.most_epsilon):
            asked = "sets none" if epsilon is None else f"asks for {epsilon:g}"
            raise UsageError(
                f"{party} spends at most a privacy of {self.most_epsilon:g}, "
                f"and this federation {asked}",
                hint=f"set privacy.epsilon to at most {self.most_epsilon:g}",
            )
        if self.only_secure and not config.secure.sums:
            raise UsageError(
                f"{party} takes part only in secure sums, and secure.sums is false",
                hint="set secure.sums to true",
            )
        threshold = config.secure.threshold
        if config.secure.sums and threshold is not None and threshold < self.least_parties:
            raise UsageError(
                f"{party} takes part only in sums of at least {self.least_parties} parties, and "
                f"secure.threshold is {threshold}",
                hint=f"set secure.threshold to at least {self.least_parties}",
            )

    def require_company(self, parties: int, config: FederationConfig, party: str) -> None:
        """Refuse a round of too few parties.

        Args:
            parties: That are asked.
            config: Of the federation; with secure sums some of them may leave.
            party: Who refuses.

        Raises:
            UsageError: With how many there are, and how many there must be.
        """
        left = _left_in_sum(parties, config.secure) if config.secure.sums else parties
        if left < self.least_parties:
            fewest = f", of which {left} may be left in the sum" if left < parties else ""
            raise UsageError(
                f"{party} takes part only in rounds of at least {self.least_parties} parties, and "
                f"this one has {parties}{fewest}",
                hint="wait for more parties with expected and quorum"
                + (", or raise secure.threshold" if fewest else ""),
            )


def _left_in_sum(parties: int, secure: SecureSettings) -> int:
    """How many of so many parties are in every secret sum."""
    from consilience.federation.secure.terms import threshold_of

    return threshold_of(parties, secure)


def run_folder(state: Path, run: str) -> Path:
    """Where a party keeps what belongs to one run."""
    return state / "runs" / run
