"""Flower as the engine: how bytes get from the coordinator to the parties and back.

    coordinator's machine                                     a party's machine
    Coordinator                                               ResidentParty
      │ Parties.ask                                             ▲ Party.answer
    FlowerParties ── socket ── relay ── SuperLink ══ TLS ══ SuperNode ── relay ── socket ── Agent

Processes that Flower starts anew for each message load nothing but `app`, a few dozen lines; model,
store and ledger stay resident at the two ends. No other room imports flwr; this one asks it to
carry bytes and for nothing else: rounds, waiting, resuming and what a reply is worth are ours.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consilience.federation.flower.agent import Agent
    from consilience.federation.flower.parties import FlowerParties
    from consilience.federation.flower.running import coordinate, join, simulate_on_flower

__all__ = ["Agent", "FlowerParties", "coordinate", "join", "simulate_on_flower"]

# The processes that Flower needs beside ours import from here too; they need no torch.
_LATER = {
    "Agent": "consilience.federation.flower.agent",
    "FlowerParties": "consilience.federation.flower.parties",
    "coordinate": "consilience.federation.flower.running",
    "join": "consilience.federation.flower.running",
    "simulate_on_flower": "consilience.federation.flower.running",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'consilience.federation.flower' has no attribute {name!r}")
