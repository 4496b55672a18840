import pytest

from consilience.errors import RemoteError, UsageError
from consilience.generation.base import Pair
from consilience.generation.endpoint import Endpoint
from consilience.generation.remote import Candidate, RemoteGenerator, Writing
from tests.generation.services import (
    Behaviour,
    Service,
    characters,
    in_turn,
    language_model,
    log_prob,
    says,
    serving,
    text,
)

PAIRS = [
    Pair("What is the fee?", "Fees", "The fee is 25.50."),
    Pair("What is the fee?", "", "It is free."),
    Pair("费用是多少？", "", "费用为25.50元。"),
]


def generator(service: Service, **settings: object) -> RemoteGenerator:
    endpoint = Endpoint(service.address, key="", pause=lambda _: None)
    return RemoteGenerator(endpoint, "a-model", **settings)  # type: ignore[arg-type]


def by_prompt(prompt: str) -> str:
    """An answer that tells which prompt it followed."""
    return f" {len(prompt)} "


class TestAnswers:
    def test_one_for_each_pair_in_their_order(self) -> None:
        with serving(language_model(by_prompt)) as service:
            remote = generator(service)
            found = remote.answers(PAIRS)
            prompts = [remote.prompt(pair) for pair in PAIRS]
        assert [one.text for (one,) in found] == [str(len(prompt)) for prompt in prompts]
        assert prompts[2] == "段落：费用为25.50元。\n问题：费用是多少？\n回答："
        assert sorted(asked.body["prompt"] for asked in service.asked) == sorted(prompts)

    def test_what_is_asked(self) -> None:
        with serving(says(text("a", "b"))) as service:
            found = generator(service).answers(PAIRS[:1], Writing(2, 9, 0.7, seed=3))
        assert [one.text for one in found[0]] == ["a", "b"]
        (asked,) = service.asked
        assert {key: asked.body[key] for key in asked.body if key != "prompt"} == {
            "model": "a-model",
            "n": 2,
            "max_tokens": 9,
            "temperature": 0.7,
            "seed": 3,
            "stop": ["\n"],
            "logprobs": 1,
        }

    def test_a_chat(self) -> None:
        with serving(says({"choices": [{"message": {"content": " 25.50 "}}]})) as service:
            found = generator(service, interface="chat").answers(PAIRS[:1])
        assert found == [[Candidate("25.50", None)]]
        (asked,) = service.asked
        (message,) = asked.body["messages"]
        assert message["role"] == "user"
        assert message["content"].startswith("Answer the question from the passage below.")
        assert asked.path.endswith("/chat/completions")
        assert "seed" not in asked.body

    def test_log_p_where_the_service_tells(self) -> None:
        logprobs = {"tokens": ["a", "b"], "token_logprobs": [-0.25, -1.5]}
        with serving(says({"choices": [{"text": "ab", "logprobs": logprobs}]})) as service:
            assert generator(service).answers(PAIRS[:1]) == [[Candidate("ab", -1.75)]]

    def test_a_failure_is_raised_and_calls_off_the_rest(self) -> None:
        with serving(says({}, 400)) as service:
            remote = generator(service, parallel=1)
            with pytest.raises(RemoteError, match="status 400"):
                remote.answers(PAIRS * 20)
            assert len(service.asked) < 60

    def test_as_many_at_a_time_as_was_said(self) -> None:
        with serving(language_model(by_prompt)) as service:
            assert len(generator(service, parallel=8).answers(PAIRS * 5)) == 15


class TestScores:
    def test_they_are_those_of_the_model(self) -> None:
        answers = ["25.50", "free", "免费"]
        with serving(language_model(by_prompt)) as service:
            remote = generator(service)
            found = remote.scores(PAIRS, answers)
            prompts = [remote.prompt(pair) for pair in PAIRS]
            assert remote.score(PAIRS[0], "free") == pytest.approx(found[0][1])
        spaces = [" ", " ", ""]
        for row, (prompt, space) in enumerate(zip(prompts, spaces, strict=True)):
            for column, answer in enumerate(answers):
                expected = log_prob(prompt, f"{space}{answer}\n")
                assert found[row][column] == pytest.approx(expected, abs=1e-9)

    def test_every_prompt_is_echoed_once(self) -> None:
        with serving(language_model(by_prompt)) as service:
            generator(service).scores(PAIRS[:2], ["a", "b", "c"])
        assert len(service.asked) == 2 + 2 * 3
        silent = {"max_tokens": 0, "echo": True, "logprobs": 1}
        assert all(asked.body | silent == asked.body for asked in service.asked)

    def test_tokens_that_melt_across_the_seam(self) -> None:
        """The prompt's last token becomes another one: both its log probabilities count."""
        prompt = {"tokens": ["P", ":"], "token_logprobs": [None, -1.0]}
        whole = {"tokens": ["P", ": a", "\n"], "token_logprobs": [None, -4.0, -0.5]}
        echoes = [{"choices": [{"text": "", "logprobs": one}]} for one in (prompt, whole)]
        with serving(in_turn(*map(says, echoes))) as service:
            assert generator(service, parallel=1).scores(PAIRS[:1], ["a"]) == [[-4.5 - -1.0]]

    def test_an_echo_of_something_else_is_nonsense(self) -> None:
        def echo(*tokens: str) -> Behaviour:
            logprobs = {"tokens": list(tokens), "token_logprobs": [-1.0] * len(tokens)}
            return says({"choices": [{"text": "".join(tokens), "logprobs": logprobs}]})

        for prompt, whole in ((echo("P", ":"), echo("Q", "a")), (echo("P"), echo("P"))):
            with (
                serving(in_turn(prompt, whole)) as service,
                pytest.raises(RemoteError, match="an echo of another text; received: "),
            ):
                generator(service, parallel=1).scores(PAIRS[:1], ["a"])

    def test_an_echo_that_lost_its_log_probabilities_is_nonsense(self) -> None:
        with (
            serving(says(text("P:"))) as service,
            pytest.raises(RemoteError, match="an echo without log probabilities"),
        ):
            generator(service).scores(PAIRS[:1], ["a"])


class TestWhetherItCanScore:
    def test_it_is_asked_once(self) -> None:
        with serving(language_model(by_prompt)) as service:
            remote = generator(service)
            assert service.asked == []
            assert remote.can_score()
            assert remote.can_score()
            assert len(service.asked) == 1

    @pytest.mark.parametrize("status", [400, 404, 405, 415, 422, 501])
    def test_a_service_that_refuses_cannot(self, status: int) -> None:
        with serving(says({"error": "echo is not supported"}, status)) as service:
            remote = generator(service)
            assert not remote.can_score()
            assert remote.score(PAIRS[0], "a") is None
            assert len(service.asked) == 1

    def test_a_service_that_does_not_echo_cannot(self) -> None:
        tokens, log_probs = characters("something of its own")
        logprobs = {"tokens": tokens, "token_logprobs": log_probs}
        for choice in ({"text": "", "logprobs": logprobs}, {"text": "Question: one\nAnswer:"}):
            with serving(says({"choices": [choice]})) as service:
                assert not generator(service).can_score()

    @pytest.mark.parametrize("status", [401, 429, 503])
    def test_other_failures_are_failures(self, status: int) -> None:
        failing = [says({}, status)] * (1 if status == 401 else 3)
        with serving(in_turn(*failing, language_model(by_prompt))) as service:
            remote = generator(service)
            with pytest.raises(RemoteError, match=f"status {status}"):
                remote.can_score()
            assert remote.can_score()

    def test_a_chat_cannot_and_is_not_asked(self) -> None:
        with serving(says({})) as service:
            assert not generator(service, interface="chat").can_score()
            assert service.asked == []


class TestRefused:
    def test_an_unknown_interface(self) -> None:
        with pytest.raises(UsageError, match="unknown interface 'telepathy'"):
            RemoteGenerator(Endpoint("http://localhost"), "m", interface="telepathy")  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["n", "max_new_tokens"])
    def test_less_than_one(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"{name} must be at least 1, received 0"):
            Writing(**{name: 0})

    def test_a_temperature_below_zero(self) -> None:
        with pytest.raises(UsageError, match="temperature must not be below 0, received -1"):
            Writing(temperature=-1)
