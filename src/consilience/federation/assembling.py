"""A federation put together from its files: the one place that knows every part.

The engine is given from outside, as `Parties`: the same party and the same coordinator are built
for a simulation in this process, for Flower's, and for parties at their own places.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consilience.errors import MissingError, UsageError
from consilience.federation.combining import PlainGathering
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.contracts import Gathering, Parties, Sealing, Trainee
from consilience.federation.durable import private_folder
from consilience.federation.local import LocalParties
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing
from consilience.federation.replying import Respondent
from consilience.federation.rounds import Coordinator, Federated, Watch
from consilience.federation.terms import Limits
from consilience.training.settings import read_settings

if TYPE_CHECKING:
    from consilience.federation.secure import PartyKey, Roster

Say = Callable[[str], None]
Secrets = Callable[[], "tuple[PartyKey, Roster]"]
"""A party's own key and everybody's public ones, asked for when sums are secret."""

_OWN = ("data", "store", "output", "model")
"""What of a recipe is each place's own, and is not sent."""


def federate(
    config: FederationConfig, parties: Parties, *, watch: Watch | None = None
) -> Federated:
    """Run a federation with parties that an engine reaches.

    Args:
        config: Its settings.
        parties: The way to the parties; it is not closed.
        watch: Who is told how it goes.

    Raises:
        MissingError: There is no recipe, or no model that it begins from.
        ConsilienceError: As `Coordinator.run`.
    """
    from consilience.federation.central import CoordinatorModel

    config, recipe = _expecting(config), read_recipe(config.recipe)
    shared = {name: value for name, value in recipe.items() if name not in _OWN}
    return Coordinator(
        config,
        shared,
        parties=parties,
        model=CoordinatorModel(recipe, config),
        gathering=_gathering(config),
        watch=watch,
    ).run()


def resident(
    party: PartyConfig, *, say: Say = lambda _: None, secrets: Secrets | None = None
) -> ResidentParty:
    """A party as its own file describes it.

    Args:
        party: Its settings.
        say: Told what is worth knowing to the party itself.
        secrets: Its keys; None reads them from the folder that its file names.
    """
    found = secrets or (lambda: _keys_of(party))

    def make_trainee(recipe: Mapping[str, Any], config: FederationConfig) -> Trainee:
        from consilience.federation.trainee import RagTrainee

        return RagTrainee(recipe, party, config, say=say)

    def make_sealing(config: FederationConfig, place: Path) -> Sealing:
        if not config.secure.sums:
            return PlainSealing(config.travel.precision, place)
        from consilience.federation.secure import SecureSealing

        key, roster = found()
        noise = config.privacy.party_noise
        return SecureSealing(party.name, key, roster, place, config.secure, party_noise=noise)

    return ResidentParty(
        party.name,
        make_trainee,
        make_sealing,
        state=party.state,
        limits=Limits.of(party),
        responding=Respondent(party),
    )


def simulate(
    config: FederationConfig, *, watch: Watch | None = None, say: Say = lambda _: None
) -> Federated:
    """Run a federation whose parties are all on this machine.

    Args:
        config: Its settings, `parties` among them; `engine` says what carries the bytes.
        watch: Who is told how it goes.
        say: Told what is worth knowing to a party.

    Raises:
        UsageError: No parties, two with one name or one folder, or as `Coordinator.run`.
        MissingError: A file is not there.
    """
    files = party_files(config)
    config = replace(config, expected=config.expected or len(files))
    secrets = _simulated_secrets(files) if config.secure.sums else {}
    parties = [resident(one, say=say, secrets=secrets.get(one.name)) for one in files]
    with _closing(parties):
        if config.engine == "flower":
            from consilience.federation.flower import simulate_on_flower

            return simulate_on_flower(
                config, parties, lambda way: federate(config, way, watch=watch)
            )
        way = LocalParties(parties)
        try:
            return federate(config, way, watch=watch)
        finally:
            way.close()


def party_files(config: FederationConfig) -> list[PartyConfig]:
    """The parties on this machine, as their files describe them.

    Raises:
        UsageError: No parties, two with one name or one folder.
        MissingError: A file is not there.
    """
    files = [read_settings(PartyConfig, path, verb="federate") for path in config.parties]
    _require_apart(files)
    return files


def keyed_parties(config: FederationConfig) -> list[str]:
    """The parties whose keys the coordinator has; none where it has no keys."""
    if config.keys is None:
        return []
    from consilience.federation.keys import nodes

    return sorted(nodes(config.keys))


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe as it was written; what its settings mean is not looked at.

    Raises:
        MissingError: There is no such file.
        UsageError: It is no YAML, or holds something else than settings.
    """
    import yaml

    if not path.is_file():
        raise MissingError(
            f"no recipe {str(path)!r}", hint="name a config of consilience train under recipe"
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the recipe {path} is not YAML: {' '.join(str(error).split())}",
            hint="mend the line it names",
        ) from error
    if not isinstance(found, dict):
        raise UsageError(
            f"the recipe {path} holds {type(found).__name__}, not settings",
            hint="write lines of `key: value`",
        )
    return found


def _expecting(config: FederationConfig) -> FederationConfig:
    """With the number of parties that are known, where none is expected in so many words."""
    if config.expected is not None or config.keys is None:
        return config
    return replace(config, expected=max(1, len(keyed_parties(config))))


def _gathering(config: FederationConfig) -> Gathering:
    if not config.secure.sums:
        return PlainGathering(config)
    from consilience.federation.secure import SecureGathering

    return SecureGathering(config.secure, party_noise=config.privacy.party_noise)


def _keys_of(party: PartyConfig) -> "tuple[PartyKey, Roster]":
    """The keys in the folder that a party's file names."""
    from consilience.federation.keys import PARTY_KEY, ROSTER
    from consilience.federation.secure import PartyKey, Roster

    if party.keys is None:
        raise UsageError(
            f"secure sums need the keys of {party.name}, and its file names none",
            hint="make them with consilience federate keys, and set keys to their folder",
        )
    return PartyKey.read(party.keys / PARTY_KEY), Roster.read(party.keys / ROSTER)


def _simulated_secrets(parties: Sequence[PartyConfig]) -> dict[str, Secrets]:
    """Keys for parties that are all here; made once, and kept in their folders."""
    from consilience.federation.keys import PARTY_KEY
    from consilience.federation.secure import PartyKey, Roster, new_party_key

    for one in parties:
        if not (private_folder(one.state) / PARTY_KEY).exists():
            new_party_key().write(one.state / PARTY_KEY)
    keys = {one.name: PartyKey.read(one.state / PARTY_KEY) for one in parties}
    roster = Roster({name: key.public for name, key in keys.items()})
    return {name: lambda key=key: (key, roster) for name, key in keys.items()}  # type: ignore[misc]


def _require_apart(parties: Sequence[PartyConfig]) -> None:
    if not parties:
        raise UsageError("parties names no file", hint="name a file for each party under parties")
    for what, found in (
        ("name", [one.name for one in parties]),
        ("state", [str(one.state.resolve()) for one in parties]),
    ):
        if twice := sorted({one for one in found if found.count(one) > 1}):
            raise UsageError(
                f"two parties have the same {what}: {', '.join(twice)}",
                hint=f"give each party file a {what} of its own",
            )


@contextmanager
def _closing(parties: Sequence[ResidentParty]) -> Iterator[None]:
    try:
        yield
    finally:
        for party in parties:
            party.close()
