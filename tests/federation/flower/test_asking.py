"""A question through the real relay and the real ClientApp: bytes in, bytes out, as in training."""

from contextlib import ExitStack
from functools import partial

import pytest

from consilience.federation.flower.agent import Agent
from consilience.federation.flower.parties import FlowerParties
from consilience.federation.inquiry import InquiryOptions, inquire
from consilience.federation.local import LocalParties
from consilience.federation.polling import ask_joined
from consilience.model import Rag
from tests.federation.asked import DOCUMENTS, QUESTIONS, write_town
from tests.federation.fakes import config_of
from tests.federation.flower.direct import DirectEngine, DirectGrid

OPTIONS = InquiryOptions(max_new_tokens=2, patience=50.0)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture
def way(town):
    """The parties' agents, a grid between, and the asker's side."""
    with ExitStack() as stack:
        residents = [town.party(name, "source") for name in sorted(DOCUMENTS)]
        agents = [stack.enter_context(Agent(party)) for party in residents]
        nodes = {100 + i: {"agent": str(one.address)} for i, one in enumerate(agents)}
        known = {100 + i: party.name for i, party in enumerate(residents)}
        grid = DirectGrid(nodes)
        parties = FlowerParties(partial(DirectEngine, grid=grid, known=known))
        stack.callback(parties.close)
        yield parties


def test_the_answer_is_that_of_parties_in_one_process(town, way, tmp_path):
    rag = Rag.load(town.model)
    local = LocalParties([town.party(name, "source") for name in DOCUMENTS], at_once=True)
    config = config_of(tmp_path, expected=3)
    for question in QUESTIONS[:2]:
        found = ask_joined(config, question, way, OPTIONS, rag=rag)
        wanted = inquire(question, rag, local, OPTIONS)
        assert found.to_dict() | {"timings_ms": {}} == wanted.to_dict() | {"timings_ms": {}}
        assert [one.answered for one in found.parties] == [True, True, True]
    local.close()


def test_who_is_known_and_does_not_come_is_named(town, way, tmp_path, monkeypatch):
    from consilience.federation import polling

    names = [*sorted(DOCUMENTS), "museum"]
    monkeypatch.setattr(polling, "keyed_parties", lambda config: names)
    rag, options = Rag.load(town.model), InquiryOptions(max_new_tokens=2, patience=4.0)
    found = ask_joined(config_of(tmp_path), QUESTIONS[0], way, options, rag=rag)
    reasons = {one.name: (one.answered, one.reason) for one in found.parties}
    assert reasons["museum"] == (False, "it is not here")
    assert reasons["bank"] == (True, "")
