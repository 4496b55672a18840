"""`consilience add`: take documents in, show how far it is, and say what could not be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from consilience.cli.flags import DEFAULT_STORE, BackendName, ModelFlag, Output, StoreFlag
from consilience.cli.opening import again, load_named_encoder
from consilience.cli.progress import shown
from consilience.cli.screen import Screen, safe
from consilience.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from consilience.encoding import Encoder
    from consilience.encoding.ray_workers import RayEncoder
    from consilience.encoding.spreading import Spread
    from consilience.encoding.workers import WorkerEncoder
    from consilience.store import AddReport, Store

EXAMPLES = (
    "consilience add handbook/ report.pdf",
    "consilience add 规章制度/ --contributor 人事处 --access staff",
    "consilience add handbook/ --prune --store knowledge",
)

_MACHINES = 16  # that a cluster is taken to have where nobody says

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 and the number of the signal."""


@dataclass(frozen=True, slots=True)
class Intake:
    """How documents are taken in."""

    contributor: Annotated[
        str, Option(metavar="NAME", help="Who brings the documents in.", show_default=False)
    ] = ""
    access: Annotated[
        list[str] | None,
        Option(
            metavar="LABEL",
            help="Only readers who hold this label see them; may be repeated.",
            show_default="everyone",
        ),
    ] = None
    prune: Annotated[
        bool, Option("--prune", help="Remove what is gone from the folders named.")
    ] = False
    re_embed: Annotated[
        bool, Option("--re-embed", help="First make all vectors anew with the model.")
    ] = False
    workers: Annotated[
        str,
        Option(
            metavar="N|ray[:N]|ray://HOST:PORT",
            help="Embed in so many processes at once, or in actors of Ray, on the machines of a "
            "cluster; Ray needs the extra simulation.",
        ),
    ] = "1"
    encoder_backend: Annotated[
        BackendName,
        Option(help="What computes vectors; openvino needs the extra of that name."),
    ] = "torch"
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show failures only.")] = False

    @property
    def spread(self) -> "Spread":
        """How embedding is spread.

        Raises:
            UsageError: It is written in none of the ways.
        """
        from consilience.encoding.spreading import Spread

        return Spread.parse(self.workers)

    @property
    def batch(self) -> int:
        """How many passages are embedded at a time: enough that no process waits for another."""
        spread = self.spread
        return 64 if spread.alone else 128 * (spread.count or _MACHINES)


def add(
    paths: Annotated[
        list[Path] | None,
        Argument(metavar="PATH…", show_default=False),
    ] = None,
    *,
    intake: Intake,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    model: ModelFlag = None,
) -> int:
    """Take documents in: read, split and index them.

    PATH is a file or a folder with everything below it. New files are added,
    changed ones replaced, unchanged ones left alone. A file that cannot be
    read is named with the reason and stops nothing else.
    """
    if not paths and not intake.re_embed:
        raise UsageError(
            "no file or folder was named", hint="name at least one: consilience add PATH"
        )
    screen = Screen(output)
    with _encoder(model, intake, screen) as encoder, _opened(store, encoder, intake) as opened:
        renewed = _re_embed(opened, encoder, intake, screen) if intake.re_embed else 0
        report = _take_in(opened, paths or [], intake, screen)
    whole = replace(report, embedded=report.embedded + renewed)
    _tell(whole, intake, screen)
    if exit_code(whole) == 0 and not (screen.json or intake.quiet):
        screen.next("ask", screen.words.an_example, *again(store, model))
    return exit_code(whole)


@contextmanager
def _encoder(model: str | None, intake: Intake, screen: Screen) -> Iterator["Encoder | None"]:
    """The encoder that was asked for; None for the store's own, loaded only if it is needed."""
    if not intake.spread.alone:
        with _spread(model, intake) as encoder:
            yield encoder
        if encoder.lost:
            screen.note(screen.words.workers_lost.format(count=encoder.lost))
    elif model is None and not intake.re_embed and intake.encoder_backend == "torch":
        yield None
    else:
        with screen.working(screen.words.loading):
            one = loaded(model, intake.encoder_backend)
        yield one


def _spread(model: str | None, intake: Intake) -> "WorkerEncoder | RayEncoder":
    """The encoder in several processes, or in actors of Ray, which the weights are sent to."""
    spread, backend = intake.spread, intake.encoder_backend
    if not spread.ray:
        from consilience.encoding.workers import WorkerEncoder

        return WorkerEncoder(partial(loaded, model, backend), workers=spread.count)
    from consilience.encoding.backends import on_backend
    from consilience.encoding.ray_workers import RayEncoder, RayOptions, require_ray

    require_ray()
    options = RayOptions(spread.address, spread.count)
    ready = None if backend == "torch" else partial(on_backend, backend=backend)
    return RayEncoder(load_named_encoder(model), options, ready=ready)


def loaded(model: str | None, backend: BackendName) -> "Encoder":
    """The encoder of a model, run by a backend; a process of `--workers` finds it by this name."""
    encoder = load_named_encoder(model)
    if backend == "torch":
        return encoder
    from consilience.encoding.backends import on_backend

    return on_backend(encoder, backend)


def _opened(path: Path, encoder: "Encoder | None", intake: Intake) -> "Store":
    """The store, made if need be; its vectors are left unchecked where they are to be replaced."""
    from consilience.store import Store

    if intake.re_embed:
        return Store.open(path, create=False)
    return Store.open(path, encoder=encoder)


def _re_embed(store: "Store", encoder: "Encoder | None", intake: Intake, screen: Screen) -> int:
    """Make all vectors anew; how many texts were embedded."""
    assert encoder is not None
    with shown(screen, quiet=intake.quiet) as listener:
        report = store.re_embed(encoder, batch=intake.batch, progress=listener)
    if not (screen.json or intake.quiet):
        counts = {"embedded": report.embedded, "passages": report.passages}
        screen.line(screen.words.re_embedded.format(**counts))
    return report.embedded


def _take_in(store: "Store", paths: list[Path], intake: Intake, screen: Screen) -> "AddReport":
    """Add; what Ctrl-C cuts short is a report like any other."""
    from consilience.store import AddInterruptedError, AddOptions

    access = tuple(intake.access or ())
    options = AddOptions(
        contributor=intake.contributor, access=access, prune=intake.prune, batch=intake.batch
    )
    with shown(screen, quiet=intake.quiet or not paths) as listener:
        try:
            return store.add(*paths, options=options, progress=listener)
        except AddInterruptedError as interruption:
            return interruption.report


def _tell(report: "AddReport", intake: Intake, screen: Screen) -> None:
    if screen.json:
        screen.document(as_document(report))
        return
    for failure in report.failed:
        told = {"path": safe(failure.path), "reason": safe(failure.reason)}
        screen.note(screen.words.failed.format(**told))
    if report.cancelled:
        screen.note((screen.words.interrupted, "bold"))
    if not intake.quiet:
        screen.line(screen.words.added.format(**_counts(report)))
    if report.cancelled:
        screen.note(screen.words.go_on)


def as_document(report: "AddReport") -> dict[str, Any]:
    """The JSON form of a report."""
    return asdict(report)


def exit_code(report: "AddReport") -> int:
    """130 after Ctrl-C, 7 when a file failed, else 0."""
    if report.cancelled:
        return INTERRUPTED
    return DocumentError.code if report.failed else 0


def _counts(report: "AddReport") -> dict[str, int]:
    names = ("added", "updated", "unchanged", "removed", "failed")
    return {name: len(getattr(report, name)) for name in names} | {"passages": report.passages}
