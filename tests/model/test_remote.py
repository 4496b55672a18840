import math

import pytest
import torch

from consilience.errors import UsageError
from consilience.generation.base import Pair
from consilience.generation.endpoint import Endpoint
from consilience.generation.remote import RemoteGenerator, Writing
from consilience.model.remote import RemoteAnswer, RemoteOptions, answer_remotely
from tests.generation.services import (
    Behaviour,
    Service,
    in_turn,
    language_model,
    log_prob,
    says,
    serving,
    text,
)

QUESTION = "What is the fee?"
PASSAGES = ["The fee is 25.50.", "It is free of charge.", "The ward is open."]
PAIRS = [Pair(QUESTION, f"Title {row}", passage) for row, passage in enumerate(PASSAGES)]
PRIOR = torch.tensor([0.5, 0.3, 0.2]).log()


def first_words(prompt: str) -> str:
    """The candidate of a passage: its last word, and nothing for the third."""
    passage = prompt.split("Passage: ")[1].split("\n")[0]
    return "" if "ward" in passage else f" {passage.split()[-1].rstrip('.')}"


def remote(service: Service, **settings: object) -> RemoteGenerator:
    endpoint = Endpoint(service.address, key="", pause=lambda _: None)
    return RemoteGenerator(endpoint, "m", **settings)  # type: ignore[arg-type]


def answered(behave: Behaviour, *, pairs: list[Pair] = PAIRS, **settings: object) -> RemoteAnswer:
    options = settings.pop("options", None)
    with serving(behave) as service:
        return answer_remotely(
            remote(service, **settings),
            pairs,
            PRIOR[: len(pairs)],
            options=options,  # type: ignore[arg-type]
        )


class TestSequence:
    def test_it_is_the_sum_by_enumeration(self) -> None:
        found = answered(language_model(first_words))
        joint = {
            candidate: [
                math.exp(PRIOR[row] + log_prob(f"{_prompt(pair)}", f" {candidate}\n"))
                for row, pair in enumerate(PAIRS)
            ]
            for candidate in ("25.50", "charge")
        }
        best = max(joint, key=lambda one: sum(joint[one]))
        (other,) = set(joint) - {best}
        assert (found.fusion, found.text, found.read) == ("sequence", best, 3)
        assert found.log_likelihood == pytest.approx(math.log(sum(joint[best])), abs=1e-4)
        expected = torch.tensor(joint[best]) / sum(joint[best])
        torch.testing.assert_close(found.posterior, expected, atol=1e-4, rtol=1e-4)
        ((text_of_other, log_likelihood),) = found.alternatives
        assert text_of_other == other
        assert log_likelihood == pytest.approx(math.log(sum(joint[other])), abs=1e-4)
        assert "every candidate was scored under every passage" in found.reason

    def test_the_prior_decides_between_equals(self) -> None:
        """Both candidates are as likely under both passages but for the prior of the passages."""
        pairs = [Pair("q", "", "abc"), Pair("q", "", "abd")]
        found = answered(language_model(lambda prompt: " x"), pairs=pairs)
        likelihood = [log_prob(_prompt(pair), " x\n") for pair in pairs]
        weighed = (PRIOR[:2] + torch.tensor(likelihood)).softmax(0)
        torch.testing.assert_close(found.posterior, weighed, atol=1e-4, rtol=1e-4)
        assert found.alternatives == ()

    def test_no_candidate_at_all(self) -> None:
        found = answered(language_model(lambda prompt: " \n "))
        assert (found.text, found.fusion, found.posterior) == ("", "sequence", None)
        assert found.reason == "no passage led to a candidate"

    def test_several_candidates_a_passage(self) -> None:
        options = RemoteOptions(writing=Writing(n=3))
        assert answered(language_model(first_words), options=options).text in ("25.50", "charge")


def _prompt(pair: Pair) -> str:
    title = f"Title: {pair.title}\n" if pair.title else ""
    return f"{title}Passage: {pair.passage}\nQuestion: {pair.question}\nAnswer:"


class TestConcat:
    def test_when_the_service_cannot_score(self) -> None:
        behave = in_turn(says({"error": "no echo"}, 400), says(text(" 25.50 ")))
        with serving(behave) as service:
            found = answer_remotely(remote(service), PAIRS, PRIOR)
        assert (found.text, found.fusion, found.read) == ("25.50", "concat", 3)
        assert found.reason == "the service does not tell how likely a given answer is"
        assert found.posterior is None
        assert found.log_likelihood is None
        told = service.asked[-1].body["prompt"]
        assert told == (
            "Passage: [1] Title 0: The fee is 25.50.\n\n[2] Title 1: It is free of charge.\n\n"
            "[3] Title 2: The ward is open.\nQuestion: What is the fee?\nAnswer:"
        )

    def test_a_chat(self) -> None:
        found = answered(says({"choices": [{"message": {"content": "a"}}]}), interface="chat")
        assert (found.text, found.fusion) == ("a", "concat")
        assert found.reason == "a chat interface does not score given answers"

    def test_when_it_is_asked_for(self) -> None:
        options = RemoteOptions("concat", writing=Writing(n=3))
        found = answered(says(text("a", "b", "a")), options=options)
        assert (found.text, found.reason) == ("a", "it was asked for")
        assert found.alternatives == (("b", None),)

    def test_the_likeliest_passages_come_first_and_the_rest_is_left_out(self) -> None:
        options = RemoteOptions("concat", most_characters=41)
        with serving(says(text("a"))) as service:
            found = answer_remotely(
                remote(service), PAIRS, torch.tensor([0.2, 0.1, 0.7]).log(), options=options
            )
        assert found.read == 2
        told = service.asked[0].body["prompt"]
        assert "Passage: [1] Title 2: The ward is open.\n\n[2] Title 0\nQuestion: What is" in told

    def test_nothing_written(self) -> None:
        found = answered(says(text(" ")), options=RemoteOptions("concat"))
        assert (found.text, found.alternatives) == ("", ())


class TestRefused:
    def test_no_passages(self) -> None:
        generator = RemoteGenerator(Endpoint("http://localhost", key=""), "m")
        with pytest.raises(UsageError, match=r"0 passages and a prior of shape \[3\]"):
            answer_remotely(generator, [], PRIOR)
        with pytest.raises(UsageError, match=r"3 passages and a prior of shape \[1, 3\]"):
            answer_remotely(generator, PAIRS, PRIOR[None])

    def test_a_fusion_that_needs_distributions(self) -> None:
        with pytest.raises(UsageError, match="unknown fusion 'token' for a remote model"):
            RemoteOptions("token")  # type: ignore[arg-type]

    def test_room_for_nothing(self) -> None:
        with pytest.raises(UsageError, match="most_characters must be at least 1, received 0"):
            RemoteOptions(most_characters=0)
