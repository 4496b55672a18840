"""How sure an answer is: what its passages said before it was written, and how likely it then was.

    confidence = sigmoid(bias + a * log(s / (1 - s)) + w * mean over t of log p(y_t | x, y_<t))

`s` is the support, p(there is an answer | x); the mean is over the tokens of the answer and its
end. The support knows whether something is there, the likelihood whether it was found. The weights
are fitted on questions that nothing else was learned from, so that of the answers with a confidence
of 0.7 seven in ten are right (Platt, 1999, "Probabilistic Outputs for Support Vector Machines").
Without weights the confidence is the support.

Whether an answer is withheld, the support alone decides: it is known before the first token, so
that nothing is shown that would have to be taken back.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from consilience.errors import DamagedError

NEAR = 1e-6
"""How near a support comes to 0 and to 1 before it counts as that near."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """What confidence is made of.

    Attributes:
        bias: Added.
        support: Times the log odds of the support.
        likelihood: Times the mean log p of a token, in nats.
    """

    bias: float = 0.0
    support: float = 1.0
    likelihood: float = 0.0

    @classmethod
    def of_settings(cls, settings: Mapping[str, float]) -> "Confidence":
        """As a model's settings spell it; nothing there is the support.

        Raises:
            DamagedError: One of the names is none of the attributes.
        """
        known = {one.name for one in fields(cls)}
        if unknown := sorted(settings.keys() - known):
            raise DamagedError(
                f"the setting confidence of a model has {', '.join(unknown)}, "
                f"known are {', '.join(sorted(known))}",
                hint="copy the model again from where it came",
            )
        return cls(**settings)

    def to_settings(self) -> dict[str, float]:
        """As `of_settings` reads it."""
        return {} if self == SUPPORT else asdict(self)

    def of(self, support: float, log_likelihood: float, tokens: int) -> float:
        """The confidence in an answer, from 0 to 1.

        Args:
            support: p(there is an answer | x), from 0 to 1.
            log_likelihood: log p(y | x, there is an answer), in nats.
            tokens: Those that it is of, the end counted, at least one.
        """
        if self == SUPPORT:
            return support
        odds = log_odds(support)
        weighed = self.bias + self.support * odds + self.likelihood * log_likelihood / tokens
        return 1.0 / (1.0 + math.exp(-min(max(weighed, -700.0), 700.0)))


def log_odds(support: float) -> float:
    """`log(s / (1 - s))`, within what `NEAR` leaves."""
    return math.log(max(support, NEAR)) - math.log(max(1.0 - support, NEAR))


SUPPORT = Confidence()
"""The support itself."""
