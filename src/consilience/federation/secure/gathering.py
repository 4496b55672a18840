"""The coordinator's side of secure sums: whose update is in the sum, and taking the masks away.

It learns the sum and, by name, who was in it; nothing else. Before it asks, it compares what
parties say of the masks between them: each mask has a tag that both of its ends tell, so that a
wrong key in a roster is named instead of spoiling the sum. What it cannot see is whether a party's
words are honest: a sum hides that too.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from consilience.errors import DamagedError, RemoteError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Ask, Gathered, Orders, Weights
from consilience.federation.parcels import Parcel
from consilience.federation.secure import shamir
from consilience.federation.secure.ciphers import Words, add_stream, label, tag, unbox
from consilience.federation.secure.messages import Masked, Request, Told, complaints
from consilience.federation.secure.terms import Terms
from consilience.federation.secure.words import decode, length

ASKS = 2
"""How often a party is asked: who has told for a sum and was not heard may tell for no other."""

Pairs = Iterable[tuple[str, str]]
"""Of parties that do not get on."""


class SecureGathering:
    """Sums of sealed updates, of which none is seen.

    Args:
        config: Settings that all parties have alike.
        party_noise: Noise multiplier of the sum, of `PrivacySettings`. With noise the mean is that
            of parties, not of questions, and there are no metrics.
    """

    def __init__(self, config: SecureSettings, *, party_noise: float = 0.0) -> None:
        self._config, self._noise = config, party_noise

    def gather(
        self, orders: Orders, sealed: Mapping[str, Parcel], weights: Weights, ask: Ask
    ) -> Gathered:
        """Add up a round; see `Gathering`.

        Parties whose message cannot be used, or whose keys do not fit, are refused by name. If
        shares that a party dealt cannot be opened by others, it is refused and the rest asked anew.

        Raises:
            UsageError: Settings and parties that do not fit together.
            RemoteError: Too few sealed or told for a sum, or it cannot be unmasked; nothing was
                learned. With the next attempt the round may be repeated.
        """
        shapes = {name: tuple(weights[name].shape) for name in orders.moving}
        terms = Terms.of(orders, shapes, self._config, noise=self._noise)
        found, refused = _read(terms, sealed)
        _drop(found, refused, partial(_strangers, found), "its keys do not fit those of {}")
        while True:
            _require_enough(terms, found, "sealed", refused)
            request, told, unopened = _asked(terms, found, ask)
            if len(told) >= terms.threshold or not unopened:
                break
            pairs = partial(_among, found, unopened)
            _drop(found, refused, pairs, "its shares cannot be opened by {}")
        _require_enough(terms, told, "told what the sum needs", refused)
        total = _total(terms, found, _seeds(terms, found, request, told))
        mean = decode(total, terms, answered=len(found))
        return Gathered(mean.delta, mean.weight, mean.metrics, refused)


def _read(terms: Terms, sealed: Mapping[str, Parcel]) -> tuple[dict[str, Masked], dict[str, str]]:
    found, refused = {}, {}
    for party in terms.parties:
        if party in sealed:
            try:
                found[party] = Masked.parse(sealed[party], terms, party=party, length=length(terms))
            except DamagedError as error:
                refused[party] = error.message
    return found, refused


def _strangers(found: Mapping[str, Masked]) -> list[tuple[str, str]]:
    """Pairs that do not agree on the mask between them."""
    names = list(found)
    return [
        (one, other)
        for number, one in enumerate(names)
        for other in names[number + 1 :]
        if found[one].tags[other] != found[other].tags[one]
    ]


def _among(found: Mapping[str, Masked], pairs: Pairs) -> list[tuple[str, str]]:
    return [(one, other) for one, other in pairs if one in found and other in found]


def _drop(
    found: dict[str, Masked],
    refused: dict[str, str],
    pairs: Callable[[], list[tuple[str, str]]],
    reason: str,
) -> None:
    """Refuse whoever is in most of the pairs, until there are none; of equals the last."""
    while left := pairs():
        counts = Counter(name for pair in left for name in pair)
        worst = max(reversed(list(found)), key=lambda name: counts[name])
        others = {name for pair in left if worst in pair for name in pair} - {worst}
        refused[worst] = reason.format(", ".join(sorted(others)))
        del found[worst]


def _asked(
    terms: Terms, found: Mapping[str, Masked], ask: Ask
) -> tuple[Request, dict[str, Told], list[tuple[str, str]]]:
    """What was asked of all, what they told, and who could not open whose shares."""
    requests = _requests(terms, found)
    request = next(iter(requests.values()))
    told: dict[str, Told] = {}
    unopened: list[tuple[str, str]] = []
    for _ in range(ASKS):
        heard = told.keys() | {party for party, _ in unopened}
        left = {party: each.parcel() for party, each in requests.items() if party not in heard}
        if len(told) >= terms.threshold or not left:
            break
        answers = ask(left)
        for party in (name for name in left if name in answers):
            wrong = complaints(answers[party], request, party=party)
            unopened += [(party, dealer) for dealer in wrong]
            told.update(_told(answers[party], request, party))
    return request, told, unopened


def _requests(terms: Terms, found: Mapping[str, Masked]) -> dict[str, Request]:
    alive = tuple(found)
    dropped = tuple(party for party in terms.parties if party not in found)
    return {
        party: Request(
            terms.digest,
            alive,
            dropped,
            {dealer: found[dealer].shares[party] for dealer in alive if dealer != party},
        )
        for party in alive
    }


def _told(parcel: Parcel, request: Request, party: str) -> dict[str, Told]:
    try:
        return {party: Told.parse(parcel, request, party=party)}
    except DamagedError:
        return {}  # counts as silent, and is missed if there are too few


def _require_enough(
    terms: Terms, found: Mapping[str, object], what: str, refused: Mapping[str, str]
) -> None:
    if len(found) >= terms.threshold:
        return
    missing = [party for party in terms.parties if party not in found and party not in refused]
    reasons = [f"{party}: {reason}" for party, reason in refused.items()]
    silent = [f"silent: {', '.join(missing)}"] if missing else []
    why = "; ".join(silent + reasons)
    raise RemoteError(
        f"{len(found)} of {len(terms.parties)} parties {what}, {terms.threshold} must ({why})",
        hint="nothing was learned; repeat the round with the next attempt when they are back",
    )


def _seeds(
    terms: Terms, found: Mapping[str, Masked], request: Request, told: Mapping[str, Told]
) -> dict[tuple[str, str], bytes]:
    """The seeds that must be known: (party, party) its own mask, (party, dropped) that between."""
    bodies = _bodies(terms, told)
    wanted = [(party, about) for party in found for about in (party, *request.dropped)]
    seeds = {}
    for party, about in wanted:
        points = _points(terms, bodies, party, (party, *request.dropped).index(about))
        seed = shamir.join(
            points,
            threshold=terms.threshold,
            right=partial(_has_tag, found[party].tags[about]),
        )
        if seed is None:
            raise RemoteError(
                f"the masks of {party!r} cannot be taken away: its shares, or those of enough of "
                f"{', '.join(told)}, are wrong",
                hint=f"begin the next round, without {party!r}",
            )
        seeds[party, about] = seed
    return seeds


def _bodies(terms: Terms, told: Mapping[str, Told]) -> dict[str, Any]:
    """What each party told, opened with the pieces of all."""
    found = {}
    for party, each in told.items():
        points = {terms.number(party): each.own, **_pieces(terms, told, party)}
        opens = partial(_opens, each)
        if key := shamir.join(points, threshold=terms.threshold, right=opens):
            found[party] = _table(_unboxed(each, key))
    return found


def _pieces(terms: Terms, told: Mapping[str, Told], party: str) -> dict[int, bytes]:
    """The pieces of the key of one, as far as the others opened them."""
    each, found = told[party], {}
    for other in told:
        if other != party:
            about = label("piece", each.choice, party, other)
            opening = bytes.fromhex(told[other].openings[party])
            try:
                found[terms.number(other)] = unbox(opening, each.pieces[other], about)
            except DamagedError:
                continue  # one of the two is wrong; others may be enough
    return found


def _opens(told: Told, key: bytes) -> bool:
    try:
        _unboxed(told, key)
    except DamagedError:
        return False
    return True


def _unboxed(told: Told, key: bytes) -> bytes:
    return unbox(key, told.body, label("body", told.choice, told.party))


def _table(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return {}  # as if it had told nothing


def _points(terms: Terms, bodies: Mapping[str, Any], dealer: str, place: int) -> dict[int, bytes]:
    """Everybody's share of one secret, as far as what was told can be understood."""
    found = {}
    for party, body in bodies.items():
        try:
            found[terms.number(party)] = bytes.fromhex(body[dealer][place])[: shamir.SHARE]
        except (LookupError, TypeError, ValueError):
            continue  # as if it had not told this one
    return found


def _has_tag(wanted: str, secret: bytes) -> bool:
    return tag(secret) == wanted


def _total(
    terms: Terms, found: Mapping[str, Masked], seeds: Mapping[tuple[str, str], bytes]
) -> Words:
    """The sum of all words with every mask taken away that has no counterpart in it."""
    total = np.zeros(length(terms), np.uint32)
    for masked in found.values():
        total += masked.words
    for (party, about), seed in seeds.items():
        before = terms.number(about) < terms.number(party)
        add_stream(total, seed, sign=1 if before else -1)
    return total
