"""The sum over all parties' passages, put together from what each says of its own.

With all passages in one store, `p(y | x) = sum over d of p(d | x) p(y | x, d)`. Let party i have
some of the passages, `Z_i = sum over them of exp(s(x, d) / T)`, and let it add up its own by its
own prior, as if there were no others: `p_i(y | x)`, with the support `u_i = p_i(answer | x)`. Then

    p(i | x) = Z_i / sum over j of Z_j
    p(answer | x) = sum over i of p(i | x) u_i
    p(y | x, answer) = sum over i of p(i | x) u_i p_i(y | x, answer) / p(answer | x)

which is the same number, term by term, and the terms are the posterior of the parties. Pure
functions of numbers; float64, so that adding up loses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SUPPORT = 1e-9
"""As in `model.decoding.opening`: so that there is a sum where no passage has an answer."""


def taken(scores: Mapping[str, Tensor], k: int) -> dict[str, int]:
    """How many of each party's passages are among the `k` best of all, best first.

    Args:
        scores: Of each party's own best, best first, `[k or fewer]`. Equals go by the party's name.
        k: Of all parties together.

    Returns:
        By party; those of which none is among them are left out.
    """
    order = sorted(
        (-score, name, place)
        for name, values in scores.items()
        for place, score in enumerate(values.tolist())
    )
    found: dict[str, int] = {}
    for _, name, _ in order[:k]:
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def party_prior(
    scores: Mapping[str, Tensor], counts: Mapping[str, int], temperature: float
) -> Tensor:
    """`p(i | x)`, softmax of `log Z_i`, float64, `[parties]` in the order of `counts`."""
    masses = [
        torch.logsumexp(scores[name][:count].double() / temperature, 0)
        for name, count in counts.items()
    ]
    return torch.stack(masses).softmax(0)


@dataclass(frozen=True, slots=True)
class Mixed:
    """The sum.

    Attributes:
        log_likelihoods: log p(y | x) given that there is an answer, in nats, `[answers]`.
        posterior: p(i | x, y), `[parties, answers]`.
        support: p(there is an answer | x).
    """

    log_likelihoods: Tensor
    posterior: Tensor
    support: float


def mixed(prior: Tensor, supports: Tensor, log_likelihoods: Tensor) -> Mixed:
    """Add up what the parties say.

    Args:
        prior: p(i | x), `[parties]`.
        supports: p_i(there is an answer | x), `[parties]`.
        log_likelihoods: log p_i(y | x, there is an answer), `[parties, answers]`.
    """
    weights = (prior.log() + supports.clamp_min(LEAST_SUPPORT).log()).log_softmax(0)
    joint = weights[:, None] + log_likelihoods
    return Mixed(joint.logsumexp(0), joint.softmax(0), float((prior * supports).sum()))
