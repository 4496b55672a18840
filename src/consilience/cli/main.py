"""The command `consilience`: which verbs there are, and the one place where errors become text.

Every way out of a verb passes through `run`: its exit code is that of the error's kind, what people
read goes to standard error, and with `--json` the error is the one document on standard output.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import click
import typer
from typer.main import get_command

from consilience.cli import (
    add,
    ask,
    compare,
    demo,
    distil,
    doctor,
    evaluate,
    federate,
    keys,
    publish,
    remove,
    search,
    serve,
    show,
    train,
)
from consilience.cli.flags import Output, flattened, with_settings
from consilience.cli.messages import Language
from consilience.cli.screen import Screen, accept_any_text, one_line
from consilience.errors import ConsilienceError, UsageError
from consilience.federation.config import FederationConfig
from consilience.serving.config import ServeConfig
from consilience.training.config import TrainConfig
from consilience.version import __version__

NAME = "consilience"

VERBS = (
    (add.add, add.EXAMPLES),
    (ask.ask, ask.EXAMPLES),
    (search.search, search.EXAMPLES),
    (show.show, show.EXAMPLES),
    (remove.remove, remove.EXAMPLES),
    (publish.publish, publish.EXAMPLES),
    (with_settings(train.train, TrainConfig), train.EXAMPLES),
    (with_settings(distil.distil, TrainConfig), distil.EXAMPLES),
    (with_settings(federate.federate, FederationConfig), federate.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (with_settings(serve.serve, ServeConfig), serve.EXAMPLES),
    (keys.keys, keys.EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
    (demo.demo, demo.EXAMPLES),
)
"""The closed table of verbs, each with the commands that end its help."""

EXAMPLES = (
    "consilience demo",
    "consilience add handbook/ 规章制度/",
    'consilience ask "谁可以申请差旅补助？"',
)


class InternalError(ConsilienceError):
    """A mistake of this package."""

    code = 1
    kind = "internal"


class InterruptedByUserError(ConsilienceError):
    """Ctrl-C."""

    code = add.INTERRUPTED
    kind = "interrupted"


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `consilience`; None for those of this process.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    accept_any_text()
    try:
        code = _outcome(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _hang_up()


def command() -> click.Command:
    """All verbs as one click command."""
    app = typer.Typer(
        name=NAME,
        rich_markup_mode="rich",
        suggest_commands=False,  # click has suggestions of its own
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True, epilog=_epilog(EXAMPLES))(_root)
    for verb, examples in VERBS:
        app.command(epilog=_epilog(examples))(flattened(verb))
    return get_command(app)


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Answers from your own documents, with the passages they rest on."""
    if version:
        sys.stdout.write(f"{NAME} {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def _epilog(examples: Sequence[str]) -> str:
    """Examples as typer keeps them on lines of their own."""
    return "\n\n".join(("Examples:", *examples))


def _outcome(words: list[str]) -> int:
    """Run a verb; what it raises is told to whoever called and becomes an exit code."""
    try:
        return _invoke(words)
    except BrokenPipeError:
        raise
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the edge: nothing is above
        failure = as_failure(error)
        _tell(failure, Screen(_output_of(words)))
        return failure.code


def _invoke(words: list[str]) -> int:
    app = command()
    if f"_{NAME.upper()}_COMPLETE" in os.environ:
        app.main(prog_name=NAME)  # the shell asks for completions; this exits
    with app.make_context(NAME, words) as context:
        return int(app.invoke(context) or 0)


def as_failure(error: BaseException) -> ConsilienceError:
    """Any exception as an error that has a kind, a code and a hint."""
    match error:
        case ConsilienceError():
            return error
        case click.ClickException():
            return _usage(error)
        case KeyboardInterrupt():
            return InterruptedByUserError(
                "interrupted", hint="what was finished is kept; run the same command again"
            )
    return InternalError(
        f"{type(error).__name__}: {error}",
        hint="this is a mistake in consilience; report it with the output of the same command "
        "after: export CONSILIENCE_DEBUG=1",
    )


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else NAME
    return UsageError(error.format_message(), hint=f"{path} --help")


def _tell(failure: ConsilienceError, screen: Screen) -> None:
    if os.environ.get("CONSILIENCE_DEBUG"):
        traceback.print_exc()
    if screen.json:
        screen.document({"error": failure.to_dict()})
        return
    screen.note((f"{screen.words.error}: ", "bold red"), one_line(failure.message))
    if failure.hint:
        screen.note((f"{screen.words.hint}: ", "dim"), one_line(failure.hint))


def _output_of(words: Sequence[str]) -> Output:
    """The flags of speech among words that may be wrong in every other way."""
    return Output(json="--json" in words, lang=_language_of(words))


def _language_of(words: Sequence[str]) -> Language | None:
    table: dict[str, Language] = {"en": "en", "zh": "zh"}
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        name, _, joined = flag.partition("=")
        if name == "--lang" and (joined or value) in table:
            return table[joined or value]
    return None


def _hang_up() -> int:
    """Whoever read standard output has gone: end without a word, now and at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
