"""A model behind an OpenAI-compatible service: text in, text out.

Such a service shows no distribution over a vocabulary, so this is no `Generator`: it writes
candidates and, when it can, tells how likely a given answer is after a given prompt. The room above
makes the sum over passages of that.

Whether it can is found out once, by asking: a prompt of a few words is sent to be echoed with the
log probabilities of its tokens and nothing written after it. Services that leave this out are many,
and none of them says so beforehand.

What is sent away: the question and the passages, each as often as there are candidates to score.
Nothing is sent until a method is called.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Literal, TypeVar

from consilience.errors import RemoteError, UsageError
from consilience.generation.base import Pair
from consilience.generation.endpoint import Choice, Endpoint
from consilience.generation.prompts import prompt_named

Interface = Literal["completions", "chat"]
INTERFACES: tuple[Interface, ...] = ("completions", "chat")
END = "\n"
"""What ends an answer: a prompt asks for one line."""

_PROMPTS: dict[Interface, str] = {"completions": "plain", "chat": "chat"}
_CANNOT = frozenset({400, 404, 405, 415, 422, 501})
"""Statuses by which a service says that it does not do what was asked."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Writing:
    """How candidates are written.

    Attributes:
        n: How many a passage.
        max_new_tokens: The longest candidate.
        temperature: 0 writes the likeliest token each time.
        seed: For services that take one.
    """

    n: int = 1
    max_new_tokens: int = 48
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, received {getattr(self, name)}",
                    hint=f"leave {name} out for its default",
                )
        if self.temperature < 0:
            raise UsageError(
                f"temperature must not be below 0, received {self.temperature}",
                hint="0 writes the likeliest token each time",
            )

    def body(self) -> dict[str, Any]:
        """The keys of a request."""
        keys = {"n": self.n, "max_tokens": self.max_new_tokens, "temperature": self.temperature}
        return keys if self.seed is None else keys | {"seed": self.seed}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that the service wrote.

    Attributes:
        text: Without spaces around it; empty when nothing was written.
        log_prob: Log p of it after its prompt in nats, as the service counts it; None when the
            service does not say.
    """

    text: str
    log_prob: float | None


class RemoteGenerator:
    """A model behind an endpoint.

    Args:
        endpoint: Where.
        model: The name that the service knows it by.
        interface: `completions` for one that continues a text, which can also score answers;
            `chat` for one that talks, which cannot.
        parallel: How many requests are under way at a time.

    Raises:
        UsageError: An unknown interface.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        interface: Interface = "completions",
        parallel: int = 4,
    ) -> None:
        if interface not in INTERFACES:
            raise UsageError(
                f"unknown interface {interface!r}", hint=f"choose one of: {', '.join(INTERFACES)}"
            )
        self.endpoint, self.model, self.interface = endpoint, model, interface
        self.parallel = max(1, parallel)
        self._worded = prompt_named(_PROMPTS[interface])
        self._scores: bool | None = None if interface == "completions" else False

    def prompt(self, pair: Pair) -> str:
        """The text that a passage and a question are sent as."""
        return self._worded(pair).text()

    def answers(
        self, pairs: Sequence[Pair], writing: Writing | None = None
    ) -> list[list[Candidate]]:
        """Candidates for every question over its passage.

        Raises:
            RemoteError: The service fails or answers nonsense.
        """
        asked = writing or Writing()
        return self._at_once(partial(self._written, writing=asked), pairs)

    def _written(self, pair: Pair, writing: Writing) -> list[Candidate]:
        body = {"model": self.model, **writing.body()}
        if self.interface == "chat":
            message = {"role": "user", "content": self.prompt(pair)}
            choices = self.endpoint.chat(body | {"messages": [message], "logprobs": True})
        else:
            told = {"prompt": self.prompt(pair), "stop": [END], "logprobs": 1}
            choices = self.endpoint.complete(body | told)
        return [Candidate(choice.text.strip(), _log_prob(choice)) for choice in choices]

    def can_score(self) -> bool:
        """Whether the service tells log p of given answers; asked once and remembered.

        Raises:
            RemoteError: The service fails for another reason than not knowing how.
        """
        if self._scores is None:
            self._scores = self._echoes()
        return self._scores

    def _echoes(self) -> bool:
        probe = "Question: one\nAnswer:"
        try:
            (echoed, *_) = self.endpoint.complete(self._to_echo(probe))
        except RemoteError as error:
            if error.status in _CANNOT:
                return False
            raise
        return echoed.text.strip() == probe and bool(echoed.log_probs and echoed.log_probs[1:])

    def score(self, pair: Pair, answer: str) -> float | None:
        """Log p(answer | question, passage) in nats, its end included.

        Returns:
            None when the service does not tell.

        Raises:
            RemoteError: As `scores`.
        """
        return self.scores([pair], [answer])[0][0] if self.can_score() else None

    def scores(self, pairs: Sequence[Pair], answers: Sequence[str]) -> list[list[float]]:
        """Log p of every answer after every prompt, `[pairs][answers]`, in nats.

            log p(y | x, d) = log p(x, d, y, end) - log p(x, d)

        Both texts are echoed. Their common tokens are left out of both sums and do not even round,
        and where the answer melts into the prompt's last token the difference is still right.

        Raises:
            RemoteError: The service fails or answers nonsense.
        """
        prompts = [self.prompt(pair) for pair in pairs]
        wholes = [_continued(prompt, answer) for prompt in prompts for answer in answers]
        echoed = self._at_once(self._echoed, [*prompts, *wholes])
        whole = iter(echoed[len(prompts) :])
        return [
            [self._difference(prompt, next(whole)) for _ in answers]
            for prompt in echoed[: len(prompts)]
        ]

    def _to_echo(self, text: str) -> dict[str, Any]:
        silent = {"max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0.0}
        return {"model": self.model, "prompt": text} | silent

    def _echoed(self, text: str) -> Choice:
        (echoed, *_) = self.endpoint.complete(self._to_echo(text))
        if not echoed.tokens:
            raise self.endpoint.nonsense("an echo without log probabilities", echoed.text)
        return echoed

    def _difference(self, prompt: Choice, whole: Choice) -> float:
        assert prompt.tokens is not None
        assert whole.tokens is not None
        pairs = zip(prompt.tokens, whole.tokens, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common == 0 or common == len(whole.tokens):
            raise self.endpoint.nonsense("an echo of another text", whole.text)
        return _sum(whole, common) - _sum(prompt, common)

    def _at_once(self, call: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """All results in order; the first failure calls off what has not begun."""
        with ThreadPoolExecutor(max_workers=self.parallel) as pool:
            running = [pool.submit(call, item) for item in items]
            try:
                return [one.result() for one in running]
            finally:
                for one in running:
                    one.cancel()


def _continued(prompt: str, answer: str) -> str:
    """A prompt with its answer and the end, spaced as the language writes."""
    space = "" if prompt.endswith("：") else " "
    return f"{prompt}{space}{answer}{END}"


def _sum(choice: Choice, start: int) -> float:
    """Log p of the tokens from a place on."""
    assert choice.log_probs is not None
    return sum(one for one in choice.log_probs[start:] if one is not None)


def _log_prob(choice: Choice) -> float | None:
    return None if choice.log_probs is None else _sum(choice, 0)
