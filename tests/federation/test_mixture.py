"""Adding up by parties is adding up: whoever has which passages, the sum is the same."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.federation.mixture import mixed, party_prior, taken
from consilience.model.fusion import log_prior

NAMES = ("a", "b", "c")


@st.composite
def split(draw):
    """Passages of three parties: scores, supports, and log p of three answers."""
    count = draw(st.integers(1, 9))
    owners = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
    unit = st.floats(-1, 1, width=32)
    scores = draw(st.lists(unit, min_size=count, max_size=count))
    supports = draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count))
    likely = draw(
        st.lists(
            st.lists(st.floats(-40, 0), min_size=3, max_size=3), min_size=count, max_size=count
        )
    )
    return owners, scores, supports, likely


@settings(deadline=None, max_examples=200)
@given(split(), st.integers(1, 9), st.floats(0.05, 2))
def test_the_sum_by_parties_is_the_sum(passages, k, temperature):
    owners, scores, supports, likely = passages
    order = sorted(range(len(owners)), key=lambda one: (-scores[one], owners[one]))
    by_party = {name: [one for one in order if owners[one] == name] for name in sorted(set(owners))}
    told = {name: torch.tensor([scores[one] for one in mine]) for name, mine in by_party.items()}
    counts = taken(told, k)
    kept = [one for name, count in counts.items() for one in by_party[name][:count]]
    assert len(kept) == min(k, len(owners))
    assert min(scores[one] for one in kept) >= max(
        (scores[one] for one in range(len(owners)) if one not in kept), default=-2
    )

    # One store.
    prior = log_prior(torch.tensor([[scores[one] for one in kept]]).double(), temperature)[0]
    support = torch.tensor([supports[one] for one in kept]).double()
    given_one = torch.tensor([likely[one] for one in kept]).double()
    weights = (prior + support.log()).log_softmax(0)
    whole = weights[:, None] + given_one

    # Each party by itself.
    parts, said = [], []
    for name, count in counts.items():
        mine = [kept.index(one) for one in by_party[name][:count]]
        own = prior[mine].log_softmax(0)
        said.append((own.exp() * support[mine]).sum())
        joint = (own + support[mine].log()).log_softmax(0)[:, None] + given_one[mine]
        parts.append(joint.logsumexp(0))
    found = mixed(party_prior(told, counts, temperature), torch.stack(said), torch.stack(parts))
    assert torch.allclose(found.log_likelihoods, whole.logsumexp(0), atol=1e-9)
    assert found.support == pytest.approx(float((prior.exp() * support).sum()), abs=1e-9)
    shares = whole.softmax(0)
    for row, (name, count) in enumerate(counts.items()):
        mine = [kept.index(one) for one in by_party[name][:count]]
        assert torch.allclose(found.posterior[row], shares[mine].sum(0), atol=1e-9)


def test_the_best_of_all_are_taken_and_equals_go_by_name():
    scores = {
        "b": torch.tensor([0.9, 0.5]),
        "a": torch.tensor([0.9, 0.5, 0.1]),
        "c": torch.tensor([]),
    }
    assert taken(scores, 1) == {"a": 1}
    assert taken(scores, 3) == {"a": 2, "b": 1}
    assert taken(scores, 9) == {"a": 3, "b": 2}
    assert taken({"c": torch.tensor([])}, 5) == {}


def test_a_party_without_support_has_no_share():
    found = mixed(
        torch.tensor([0.5, 0.5]).double(),
        torch.tensor([0.0, 0.5]).double(),
        torch.tensor([[-1.0], [-3.0]]).double(),
    )
    assert found.support == pytest.approx(0.25)
    assert float(found.posterior[0, 0]) < 1e-7
    assert float(found.log_likelihoods[0]) == pytest.approx(-3.0, abs=1e-6)
    nothing = mixed(torch.ones(1).double(), torch.zeros(1).double(), -torch.ones(1, 1).double())
    assert math.isfinite(float(nothing.log_likelihoods[0]))
