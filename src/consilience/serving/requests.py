"""What requests look like: types are strict, unknown fields are mistakes, and lengths are bounded.

The bounds written here are the largest that settings can ask for; those of the server are checked
by `checked`. Knows nothing of how a question is answered.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from consilience.errors import UsageError
from consilience.serving.config import Limits

FusionName = Literal["sequence", "token", "fid", "attention", "average", "concat"]
"""As `consilience.model.fusion.Fusion`, which needs torch; a test compares them."""

ModeName = Literal["bm25", "dense", "hybrid"]
"""As `consilience.retrieval.Mode`; a test compares them."""

MOST_BEAMS = 16

Conditions = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=200)], Annotated[str, Field(max_length=1000)]
    ],
    Field(max_length=20, description='Only these documents: {"contributor": "ward 3"}.'),
]
QuestionText = Annotated[str, Field(min_length=1, max_length=4000)]


class Strict(BaseModel):
    """A body that has these fields and no others, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class PastTurn(Strict):
    """A question that was asked before, and what was answered."""

    question: QuestionText
    answer: Annotated[str, Field(max_length=20_000)]


class SearchRequest(Strict):
    """What is looked for."""

    question: QuestionText
    k: Annotated[int, Field(ge=1, le=1000)] | None = None
    mode: ModeName | None = None
    where: Conditions = Field(default_factory=dict)


class AskRequest(Strict):
    """What is asked, and how it is to be answered."""

    question: QuestionText
    history: Annotated[list[PastTurn], Field(max_length=1000)] = Field(default_factory=list)
    k: Annotated[int, Field(ge=1, le=1000)] | None = None
    mode: ModeName | None = None
    fusion: FusionName = "sequence"
    beams: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 3
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 48
    quote: bool = False
    abstain: bool = True
    explain: bool = False
    where: Conditions = Field(default_factory=dict)
    stream: bool = False


def check_search(body: SearchRequest, limits: Limits) -> None:
    """Hold a search against the limits of the server.

    Raises:
        UsageError: One is passed; the message names all that are.
    """
    _check(
        ("question has {} characters, at most {}", len(body.question), limits.longest_question),
        ("k is {}, at most {}", body.k, limits.k),
    )


def check_ask(body: AskRequest, limits: Limits) -> None:
    """Hold a question against the limits of the server.

    Raises:
        UsageError: One is passed; the message names all that are.
    """
    _check(
        ("question has {} characters, at most {}", len(body.question), limits.longest_question),
        ("history has {} turns, at most {}", len(body.history), limits.history),
        ("k is {}, at most {}", body.k, limits.k),
        ("max_new_tokens is {}, at most {}", body.max_new_tokens, limits.max_new_tokens),
    )


def _check(*bounds: tuple[str, int | None, int]) -> None:
    passed = [
        text.format(found, most)
        for text, found, most in bounds
        if found is not None and found > most
    ]
    if passed:
        raise UsageError(
            "; ".join(passed), hint="ask for less, or let an admin raise the limits of the server"
        )
