"""`consilience ask`: an answer, the passages it rests on, and how much rests on each.

With a question it answers once; without one, on a terminal, it keeps a conversation.
"""

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from consilience.cli.evidence import draw, passages_of
from consilience.cli.flags import (
    DEFAULT_STORE,
    AccessFlag,
    DiversityFlag,
    EngineFlag,
    FusionName,
    ModelFlag,
    ModeName,
    Output,
    PerContributorFlag,
    QuoteFlag,
    RerankFlag,
    StoreFlag,
    WhereFlag,
)
from consilience.cli.history import Line, append_turn, read_history
from consilience.cli.opening import (
    again,
    checked_filter,
    checked_question,
    load_rag,
    open_searched,
)
from consilience.cli.screen import Screen, one_line
from consilience.errors import UsageError

if TYPE_CHECKING:
    from consilience.model import Answer, AskOptions, Rag
    from consilience.retrieval.engines import Copy
    from consilience.store import Store

EXAMPLES = (
    'consilience ask "Until when may visitors stay?"',
    'consilience ask "谁可以申请差旅补助？" --fusion token --explain',
    "consilience ask --history talk.jsonl",
)

QUIT = frozenset({":quit", ":q"})


@dataclass(frozen=True, slots=True)
class Manner:
    """How a question is answered."""

    fusion: Annotated[
        FusionName,
        Option(help="Where the sum over passages stands: whole answers, tokens, attention, …"),
    ] = "sequence"
    k: Annotated[
        int | None,
        Option(
            "--k",
            min=1,
            help="How many passages are summed over.",
            show_default="what was tuned, or 5",
        ),
    ] = None
    beams: Annotated[int, Option(min=1, help="Answers kept at each step; 1 is greedy.")] = 3
    max_new_tokens: Annotated[int, Option(min=1, help="The longest answer, in tokens.")] = 48
    quote: QuoteFlag = False
    answers: Annotated[int, Option(min=1, help="How many answers.")] = 1
    sample: Annotated[bool, Option("--sample", help="Draw answers instead of searching.")] = False
    temperature: Annotated[float, Option(help="Of --sample: lower is closer to the search.")] = 1.0
    top_p: Annotated[float, Option(help="Of --sample: the share of tokens drawn among.")] = 1.0
    seed: Annotated[int, Option(min=0, help="Of --sample: the same seed, the same answers.")] = 0
    mode: Annotated[
        ModeName | None,
        Option("--mode", help="By words, by meaning, or by both.", show_default="the model's"),
    ] = None
    explain: Annotated[bool, Option("--explain", help="Show where each token comes from.")] = False
    history: Annotated[
        Path | None,
        Option(metavar="FILE", help="Keep the conversation in this file.", show_default=False),
    ] = None
    access: AccessFlag = None
    where: WhereFlag = None
    rerank: RerankFlag = None
    per_contributor: PerContributorFlag = None
    diversity: DiversityFlag = None

    def __post_init__(self) -> None:
        drawn = {"--temperature": self.temperature, "--top-p": self.top_p, "--seed": self.seed}
        plain = {"--temperature": 1.0, "--top-p": 1.0, "--seed": 0}
        for flag, value in drawn.items():
            if value != plain[flag] and not self.sample:
                raise UsageError(f"{flag} does nothing without --sample", hint="add --sample")


@dataclass(slots=True)
class Conversation:
    """Questions and answers over one store, each heard with what was said before.

    Attributes:
        rag: Answers.
        store: From which.
        manner: How.
        turns: What was said so far.
    """

    rag: "Rag"
    store: "Store | Copy"
    manner: Manner
    turns: list[Line] = field(default_factory=list)

    def ask(self, question: str) -> "Answer":
        """Answer, and remember it here and in the history file."""
        answer = self.rag.ask(question, self.store, self._options())
        turn = Line(question, answer.text)
        self.turns.append(turn)
        if self.manner.history is not None:
            append_turn(self.manner.history, turn)
        return answer

    def _options(self) -> "AskOptions":
        from consilience.model import AskOptions, Turn
        from consilience.retrieval import Refinement

        manner = self.manner
        return AskOptions(
            k=manner.k,
            mode=manner.mode,
            refinement=Refinement(manner.rerank, manner.per_contributor, manner.diversity),
            fusion=manner.fusion,
            beams=manner.beams,
            max_new_tokens=manner.max_new_tokens,
            quote=manner.quote,
            returned=manner.answers,
            sample=manner.sample,
            temperature=manner.temperature,
            top_p=manner.top_p,
            seed=manner.seed,
            history=tuple(Turn(turn.question, turn.answer) for turn in self.turns),
            access=manner.access,
            where=checked_filter(manner.where),
        )


def ask(
    question: Annotated[
        str | None,
        Argument(metavar="[QUESTION]", show_default=False),
    ] = None,
    *,
    manner: Manner,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    model: ModelFlag = None,
    engine: EngineFlag = None,
) -> int:
    """Answer a question, with the passages that the answer rests on.

    Without QUESTION, on a terminal, questions are asked in turn; `:quit` or Ctrl-D ends.
    """
    screen = Screen(output)
    _require_someone(question, screen)
    if question is not None:
        checked_question(question)
    checked_filter(manner.where)
    turns = [] if manner.history is None else read_history(manner.history)
    with open_searched(store, engine) as opened:
        with screen.working(screen.words.loading):
            rag = load_rag(model)
        conversation = Conversation(rag, opened, manner, turns)
        if question is None:
            return _converse(conversation, screen)
        answer = conversation.ask(question)
        show(answer, conversation, screen)
    if not screen.json and engine is None:
        _suggest(question, answer, screen, again(store))
    return 0


def show(answer: "Answer", conversation: Conversation, screen: Screen) -> None:
    """Print an answer: as its JSON document, or with its evidence drawn."""
    explain = conversation.manner.explain
    if screen.json:
        screen.document(answer.to_dict(explain=explain))
    else:
        draw(answer, passages_of(answer, conversation.store), screen, explain=explain)
        _draw_alternatives(answer, screen)


def _draw_alternatives(answer: "Answer", screen: Screen) -> None:
    """Further answers, each with its probability as a whole."""
    if answer.alternatives:
        screen.heading(screen.words.alternatives)
    for one in answer.alternatives:
        chance = "" if one.log_likelihood is None else f"{exp(one.log_likelihood):>7.1%}  "
        screen.line((chance, "dim"), one_line(one.text))


def _suggest(question: str, answer: "Answer", screen: Screen, flags: list[str]) -> None:
    """Where to look further: at the passage that carries the answer, or at what else there is."""
    if answer.citations:
        screen.next("show", answer.citations[0].passage.id, *flags)
    else:
        screen.next("search", question, "--mode", "bm25", "--k", "20", *flags)


def _require_someone(question: str | None, screen: Screen) -> None:
    """A conversation needs a person at a terminal on both ends."""
    if question is not None:
        return
    if screen.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "no question was given, and there is no terminal to ask for one",
            hint='consilience ask "…"',
        )


def _converse(conversation: Conversation, screen: Screen) -> int:
    screen.line((screen.words.welcome, "dim"))
    while (question := heard(screen)) is not None:
        if question:
            _answer_or_explain(conversation, question, screen)
    return 0


def heard(screen: Screen) -> str | None:
    """The next line that is typed, without the spaces around it; None to end the conversation."""
    # Gives `input` line editing and a memory of earlier lines; not every Python was built with it.
    with suppress(ImportError):
        import readline  # noqa: F401

    try:
        line = input(screen.words.prompt).strip()
    except EOFError:
        screen.line()
        return None
    return None if line in QUIT else line


def _answer_or_explain(conversation: Conversation, question: str, screen: Screen) -> None:
    """A question that cannot be asked is no reason to end the conversation."""
    try:
        answer = conversation.ask(checked_question(question))
    except UsageError as error:
        screen.note((f"{screen.words.error}: ", "bold red"), error.message)
        return
    show(answer, conversation, screen)
    screen.line()
