"""Differential privacy inside a party: what leaves it tells no record from another.

A record is a question, all questions of a user, or all questions about a document. `fitting` is a
round of training; `ledger` is what the party has spent.
"""

from consilience.federation.privacy.fitting import (
    PrivateFit,
    PrivateRound,
    private_fit,
    require_private,
)
from consilience.federation.privacy.ledger import Ledger, Spending, Spent

__all__ = [
    "Ledger",
    "PrivateFit",
    "PrivateRound",
    "Spending",
    "Spent",
    "private_fit",
    "require_private",
]
