"""`consilience federate ask`: one answer out of the stores of several parties, on the screen.

Draws what `consilience.federation.federated_answer` says: whose the answer is, and of each passage
as much as its party shows. That the question leaves this machine is said before it does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from consilience.cli.flags import ModelFlag, ModeName
from consilience.cli.opening import checked_question
from consilience.cli.screen import Screen, one_line
from consilience.errors import UsageError
from consilience.federation.config import FederationConfig
from consilience.training.settings import read_settings

if TYPE_CHECKING:
    from consilience.federation.federated_answer import FederatedAnswer, Source
    from consilience.federation.inquiry import InquiryOptions

SETTINGS = frozenset({"output", "recipe", "parties", "expected", "listen", "keys"})
"""The settings of a federation that a question has to do with."""

_INDENT = "     "


@dataclass(frozen=True, slots=True)
class Inquiring:
    """How parties are asked."""

    k: Annotated[
        int, Option("--k", min=1, help="Of ask: passages of all parties that are summed over.")
    ] = 5
    beams: Annotated[
        int, Option("--beams", min=1, help="Of ask: answers that each passage proposes.")
    ] = 3
    max_new_tokens: Annotated[
        int, Option("--max-new-tokens", min=1, help="Of ask: the longest answer, in tokens.")
    ] = 48
    mode: Annotated[
        ModeName,
        Option("--mode", help="Of ask: only dense scores can be compared between stores."),
    ] = "dense"
    model: ModelFlag = None
    asker: Annotated[
        str, Option("--asker", metavar="NAME", help="Of ask: who asks, for the parties' books.")
    ] = "coordinator"
    patience: Annotated[
        float,
        Option("--patience", min=0.1, help="Of ask: seconds that a party has for each message."),
    ] = 60.0

    def given(self) -> Iterator[str]:
        """The flags that are not as they are left alone."""
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                yield f"--{field.name.replace('_', '-')}"

    def options(self) -> "InquiryOptions":
        """As the asker takes them."""
        from consilience.federation.inquiry import InquiryOptions

        return InquiryOptions(
            k=self.k,
            beams=self.beams,
            max_new_tokens=self.max_new_tokens,
            mode=self.mode,
            asker=self.asker,
            patience=self.patience,
        )


def ask_parties(
    path: Path,
    question: str,
    overrides: Mapping[str, str],
    *,
    how: Inquiring,
    demo: bool,
    screen: Screen,
) -> None:
    """Ask the parties that a federation's file names, or those that join."""
    checked_question(question)
    config = read_settings(FederationConfig, path, overrides, verb="federate")
    if config.parties and demo:
        raise UsageError(
            "--demo does nothing where parties names files: they are all on this machine",
            hint="leave it out, or take parties out of the file",
        )
    if not screen.json:
        screen.note((screen.words.question_leaves, "dim"))
    with screen.working(screen.words.loading):
        answer = _asked(config, question, how, demo=demo)
    show(answer, screen)


def _asked(
    config: FederationConfig, question: str, how: Inquiring, *, demo: bool
) -> "FederatedAnswer":
    from consilience.federation.polling import ask_here, ask_joined, asking_model

    if config.parties:
        return ask_here(config, question, how.options(), model=how.model)
    from consilience.federation.flower import coordinate

    rag = asking_model(config, how.model)
    return coordinate(
        config,
        lambda way: ask_joined(config, question, way, how.options(), rag=rag),
        demo=demo,
    )


def show(answer: "FederatedAnswer", screen: Screen) -> None:
    """Print an answer: as its JSON document, or with whose it is."""
    if screen.json:
        screen.document(answer.to_dict())
        return
    words = screen.words
    if answer.abstained:
        screen.line((words.not_in_documents, "bold yellow"))
    else:
        screen.line((one_line(answer.text), "bold green"))
        screen.heading(words.sources)
        for number, source in enumerate(answer.sources, start=1):
            _draw_source(number, source, screen)
        _draw_parties(answer, screen)
    screen.line()
    for party in answer.parties:
        if party.reason:
            screen.line(f"{words.lost} {one_line(party.name)}: {one_line(party.reason)}")
    screen.line((_summary(answer, screen), "dim"))


def _draw_source(number: int, source: "Source", screen: Screen) -> None:
    screen.line(
        (f"{number:>2} ", "dim"),
        (screen.bar(source.posterior), "cyan"),
        f" {source.posterior:>4.0%}  ",
        f"{one_line(source.party)} · {_place(source, screen)}",
    )
    if source.evidence.text:
        screen.line(f"{_INDENT}{one_line(source.evidence.text)}")


def _place(source: "Source", screen: Screen) -> str:
    """Where a passage is, as far as its party says."""
    shown = source.evidence
    if shown.source is None:
        return screen.words.passage_number.format(number=source.number)
    page = "" if shown.page is None else f":{shown.page}"
    return f"{one_line(shown.source)}{page}"


def _draw_parties(answer: "FederatedAnswer", screen: Screen) -> None:
    screen.heading(screen.words.parties_heading)
    for party in sorted(answer.parties, key=lambda party: -party.posterior):
        if party.answered:
            bar = (screen.bar(party.posterior), "cyan")
            screen.line("   ", bar, f" {party.posterior:>4.0%}  {one_line(party.name)}")


def _summary(answer: "FederatedAnswer", screen: Screen) -> str:
    words, parties = screen.words, answer.parties
    told = words.parties_answered.format(
        answered=sum(party.answered for party in parties),
        asked=len(parties),
        seconds=answer.timings_ms.get("total", 0.0) / 1000,
    )
    return f"{words.confidence.format(confidence=answer.confidence)} · {told}"
