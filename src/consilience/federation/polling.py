"""A question put to a federation by its file: to parties on this machine, or to those that joined.

The one place that knows where the asker's model comes from and who should be there.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic, sleep

from consilience.federation.assembling import (
    keyed_parties,
    party_files,
    read_recipe,
    resident,
)
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Parties
from consilience.federation.federated_answer import FederatedAnswer
from consilience.federation.inquiry import InquiryOptions, inquire
from consilience.federation.local import LocalParties
from consilience.model.rag import Rag

_PAUSE = 0.2  # seconds between looks at who has come


def ask_here(
    config: FederationConfig,
    question: str,
    options: InquiryOptions,
    *,
    model: str | None = None,
) -> FederatedAnswer:
    """Ask the parties whose files the federation names, all on this machine.

    Args:
        config: `parties` names their files.
        question: What is asked.
        options: How.
        model: The asker's; None for the recipe's, or the one that ships.

    Raises:
        UsageError: No party is named, or two with one name or one folder. Else as `inquire`.
    """
    files = party_files(config)
    rag = asking_model(config, model)
    with ExitStack() as stack:
        parties = [resident(one) for one in files]
        for party in parties:
            stack.callback(party.close)
        way = LocalParties(parties, at_once=True)
        stack.callback(way.close)
        return inquire(question, rag, way, options)


def ask_joined(
    config: FederationConfig,
    question: str,
    way: Parties,
    options: InquiryOptions,
    *,
    rag: Rag,
) -> FederatedAnswer:
    """Ask the parties that an engine reaches; those that should be there are waited for.

    Args:
        config: `expected` says how many are waited for; None for all whose keys are known.
        question: What is asked.
        way: The way to the parties; it is not closed.
        options: How; `patience` is how long they have to come, too.
        rag: The asker's model.

    Raises:
        ConsilienceError: As `inquire`, or the engine does not run.
    """
    return inquire(question, rag, way, options, absent=_absent(config, way, options.patience))


def asking_model(config: FederationConfig, name: str | None) -> Rag:
    """The asker's model: the one named, else the recipe's, else the one that ships."""
    if name is None:
        name = read_recipe(config.recipe).get("model")
    return Rag.load(name)


def _absent(config: FederationConfig, way: Parties, patience: float) -> Mapping[str, str]:
    """Who is known and does not come."""
    known = keyed_parties(config)
    expected = config.expected or max(1, len(known))
    ends = monotonic() + patience
    while len(here := set(way.present())) < expected and monotonic() < ends:
        sleep(_PAUSE)
    return {name: "it is not here" for name in known if name not in here}
