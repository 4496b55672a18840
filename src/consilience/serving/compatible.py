"""The shapes of OpenAI's chat API, to and from questions and answers.

The last message is the question, those before it the conversation. What this server cannot heed is
never dropped in silence: a parameter that would change the answer is refused by name, and system
messages, which every client sends, are counted under `consilience.ignored`. Evidence travels in
fields that the API does not have: `citations` of the message, and `consilience` beside it.

Shapes: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from consilience.errors import UsageError
from consilience.serving.requests import Conditions, FusionName, ModeName, Strict
from consilience.text import language_of

if TYPE_CHECKING:
    from consilience.model import Answer

UNHEARD = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Parameters that change no answer anywhere."""

NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "logprobs": (False,),
        "modalities": (["text"],),
        "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
    }
)
"""Parameters that are not heeded, with the values at which that makes no difference."""

WITHHELD = MappingProxyType({"zh": "文档中没有答案。", "en": "The documents do not say."})
"""What stands for an answer that was withheld, in a protocol that has no word for it."""


class Loose(BaseModel):
    """A body of which clients send more than they are asked for."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class TextPart(Loose):
    """One part of a message."""

    type: str
    text: Annotated[str, Field(max_length=1_000_000)] = ""


class Message(Loose):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None


class Extension(Strict):
    """How passages are found and summed over; the fields of `POST /v1/ask`."""

    k: Annotated[int, Field(ge=1, le=1000)] = 5
    mode: ModeName | None = None
    fusion: FusionName = "sequence"
    where: Conditions = Field(default_factory=dict)
    quote: bool = False
    explain: bool = False


class StreamOptions(Loose):
    """What a stream tells beside the answer."""

    include_usage: bool = False


class ChatRequest(Loose):
    """What a client of OpenAI's chat API sends."""

    model: Annotated[str, Field(max_length=500)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=2001)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=100_000)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=100_000)] = None
    n: Annotated[int | None, Field(ge=1, le=16)] = None
    seed: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = None
    stop: Annotated[list[str], Field(max_length=4)] | str | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    consilience: Extension = Field(default_factory=Extension)


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation as a question with what came before it.

    Attributes:
        question: The last message.
        turns: Earlier questions with their answers, the oldest first.
        ignored: Roles of the messages that no answer heeds.
    """

    question: str
    turns: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]


def talk_of(messages: Sequence[Message]) -> Talk:
    """The question of a conversation.

    Raises:
        UsageError: The last message is not the user's, or a part is not text.
    """
    said = [(one.role, _text(one)) for one in messages]
    if said[-1][0] != "user":
        raise UsageError(
            f"the last message is of the role {said[-1][0]!r}", hint="end with the user's question"
        )
    turns: list[tuple[str, str]] = []
    for role, text in said[:-1]:
        if role == "user":
            turns.append((text, ""))
        elif role == "assistant" and turns:
            asked, answered = turns[-1]
            turns[-1] = (asked, " ".join(filter(None, [answered, text])))
    ignored = dict.fromkeys(role for role, _ in said if role not in ("user", "assistant"))
    return Talk(said[-1][1], tuple(turns), tuple(ignored))


def _text(message: Message) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    other = [part.type for part in content if part.type != "text"]
    if other:
        raise UsageError(f"a message has a part of the type {other[0]!r}", hint="only text is read")
    return "\n".join(part.text for part in content)


def check_parameters(request: ChatRequest) -> None:
    """Refuse what would change the answer and is not heeded here.

    Raises:
        UsageError: It names every such parameter.
    """
    extra = request.model_extra or {}
    refused = sorted(
        name
        for name, value in extra.items()
        if name not in UNHEARD and value is not None and value not in NEUTRAL.get(name, ())
    )
    if refused:
        raise UsageError(
            f"not heeded here: {', '.join(name[:50] for name in refused[:10])}",
            hint="leave these parameters out",
        )
    if request.stream and (request.n or 1) > 1:
        raise UsageError(f"a stream has one answer, received n={request.n}", hint="leave n out")


def searching(request: ChatRequest) -> dict[str, Any]:
    """How the answer is searched, as fields of `AskOptions`; None leaves the default.

    A temperature above zero, or `top_p` below one, asks for a sample; otherwise the most probable
    answer is searched for.
    """
    drawn = bool(request.temperature) or (request.temperature is None and request.top_p is not None)
    stops = [request.stop] if isinstance(request.stop, str) else request.stop
    return {
        "sample": drawn or None,
        "temperature": (request.temperature or 1.0) if drawn else None,
        "top_p": request.top_p if drawn else None,
        "seed": request.seed,
        "returned": request.n,
        "stop": tuple(stops) if stops else None,
        "max_new_tokens": request.max_completion_tokens or request.max_tokens,
    }


@dataclass(frozen=True, slots=True)
class Frame:
    """What every object of one completion has in common.

    Attributes:
        id: Of the question in work.
        created: Seconds since 1970.
        model: The model's name.
    """

    id: str
    created: int
    model: str

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        """A piece of a stream."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return self._object("chat.completion.chunk") | {"choices": [choice]}

    def usage_chunk(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """The last piece of a stream whose client asked for the usage."""
        return self._object("chat.completion.chunk") | {"choices": [], "usage": dict(usage)}

    def completion(
        self, answer: "Answer", *, beside: Mapping[str, Any], usage: Mapping[str, int], most: int
    ) -> dict[str, Any]:
        """A whole completion.

        Args:
            answer: With its further answers, each of which is a choice.
            beside: The field `consilience`.
            usage: Tokens.
            most: Tokens that an answer may have.
        """
        texts = [spoken(answer), *(one.text for one in answer.alternatives)]
        choices = [
            {
                "index": place,
                "message": message_of(text, answer),
                "logprobs": None,
                "finish_reason": finish_of(answer, most) if place == 0 else "stop",
            }
            for place, text in enumerate(texts)
        ]
        whole = {"choices": choices, "usage": dict(usage), "consilience": dict(beside)}
        return self._object("chat.completion") | whole

    def _object(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def message_of(text: str, answer: "Answer") -> dict[str, Any]:
    """A message of the assistant with its citations."""
    return {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "citations": [one.to_dict() for one in answer.citations],
    }


def spoken(answer: "Answer") -> str:
    """The text of an answer; of one that was withheld, a sentence in the question's language."""
    if not answer.abstained:
        return answer.text
    return WITHHELD["zh" if language_of(answer.question) == "zh" else "en"]


def finish_of(answer: "Answer", most: int) -> str:
    """Why an answer ended: it was complete, or `most` tokens were reached."""
    return "length" if len(answer.tokens) >= most else "stop"


def beside_answer(
    answer: "Answer", *, ignored: Sequence[str], hits: Sequence[Mapping[str, Any]], explain: bool
) -> dict[str, Any]:
    """What the protocol has no field for.

    Args:
        answer: The answer.
        ignored: Roles of messages that were not heeded.
        hits: The passages that it was summed over.
        explain: Whether the posterior of every token is told.
    """
    found = answer.to_dict(explain=explain)
    kept = ("question", "abstained", "confidence", "citations", "timings_ms", "posterior", "tokens")
    told = {name: found[name] for name in kept if name in found}
    return told | {"hits": list(hits), "ignored": list(ignored)}
