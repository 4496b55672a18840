"""Secure sums: the coordinator learns what updates come to together, and nothing of any one.

Two messages a round; see `sealing` for how, `memory` for what a party never does twice, and
`gathering` for what the coordinator can still see.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from consilience.federation.secure.keys import PartyKey, Roster, new_party_key

if TYPE_CHECKING:
    from consilience.federation.secure.gathering import SecureGathering
    from consilience.federation.secure.sealing import SecureSealing

__all__ = ["PartyKey", "Roster", "SecureGathering", "SecureSealing", "new_party_key"]

_LATER = {
    "SecureGathering": "consilience.federation.secure.gathering",
    "SecureSealing": "consilience.federation.secure.sealing",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'consilience.federation.secure' has no attribute {name!r}")
