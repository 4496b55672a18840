"""`consilience doctor`: whether the installation, the model and the knowledge base are sound.

Every check is one line with what was found and, where something is wrong, the command that puts it
right. Nothing is repaired here but the derived indexes, which repair themselves when asked.
"""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consilience.cli.flags import DEFAULT_STORE, ModelFlag, Output, StoreFlag
from consilience.cli.opening import open_store
from consilience.cli.screen import Screen, one_line
from consilience.errors import ConsilienceError, DamagedError, MissingError

if TYPE_CHECKING:
    from consilience.store import Store

EXAMPLES = (
    "consilience doctor",
    "consilience doctor --store knowledge --lang zh",
    "consilience doctor --model my-model/ --json",
)

_REQUIREMENT = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it is as it must be.
        message: What was found.
        fix: The command or the step that puts it right; empty when it is right.
    """

    name: str
    ok: bool
    message: str
    fix: str = ""


def doctor(*, output: Output, store: StoreFlag = DEFAULT_STORE, model: ModelFlag = None) -> int:
    """Check the installation, the model and the knowledge base.

    Every problem comes with the command that puts it right. The exit code is 4 when there is one.
    """
    screen = Screen(output)
    checks: list[Check] = []
    for check in examined(store, model):
        checks.append(check)
        if not screen.json:
            _draw(check, screen)
    problems = sum(not check.ok for check in checks)
    if screen.json:
        screen.document({"ok": not problems, "checks": [asdict(check) for check in checks]})
    else:
        words = screen.words
        screen.line(words.problems.format(count=problems) if problems else words.all_well)
    return DamagedError.code if problems else 0


def examined(store: Path, model: str | None) -> Iterator[Check]:
    """All checks, one after the other."""
    import platform

    yield Check("python", True, f"{platform.python_version()} on {platform.platform()}")
    yield from _packages()
    yield _processor()
    yield _model(model)
    yield from _knowledge_base(store, model)


def _packages() -> Iterator[Check]:
    """What this package requires, as its own metadata says."""
    from importlib import metadata

    try:
        requirements = metadata.requires("consilience") or []
    except metadata.PackageNotFoundError:
        yield Check("consilience", False, "not installed", "pip install -e .")
        return
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        if "extra" not in marker:
            yield _package(wanted.strip())


def _package(requirement: str) -> Check:
    from importlib import metadata

    name = _REQUIREMENT.match(requirement)
    assert name is not None, requirement
    try:
        return Check(name[0], True, metadata.version(name[0]))
    except metadata.PackageNotFoundError:
        fix = f"pip install {shlex.quote(requirement)}"
        return Check(name[0], False, "not installed", fix)


def _processor() -> Check:
    try:
        import torch

        from consilience.encoding.compact import fastest_dtype
    except (ImportError, OSError) as error:
        return Check("processor", False, f"torch does not load: {error}", "pip install torch")
    numbers = str(fastest_dtype()).removeprefix("torch.")
    found = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, computes in {numbers}"
    return Check("processor", True, found)


def _model(model: str | None) -> Check:
    from consilience.encoding.folder import open_folder
    from consilience.model.loading import is_checkpoint

    try:
        if is_checkpoint(model):
            return Check("model", True, _checkpoint(str(model)))
        folder = open_folder(Path(model) if model is not None else None)
    except ConsilienceError as error:
        return _failed("model", error)
    digest = folder.digests["model.safetensors"][:12]
    return Check("model", True, f"{folder.path}, weights sha256 {digest}")


def _checkpoint(name: str) -> str:
    """What a checkpoint of transformers holds; it is read whole, for it has no digests."""
    from consilience.model.checkpoints import ARCHITECTURES, load_transformers_rag

    rag = load_transformers_rag(name)
    readers = (rag.question_encoder, rag.passage_encoder, rag.generator_model)
    held = (type(part).__name__ for part in readers if part is not None)
    return f"{name}, {ARCHITECTURES[rag.architecture]} of transformers: {', '.join(held)}"


def _knowledge_base(path: Path, model: str | None) -> Iterator[Check]:
    """The store and what is derived from it; where no store was named, there need not be one."""
    try:
        opened = open_store(path)
    except MissingError as error:
        unnamed = path == DEFAULT_STORE
        yield Check("store", unnamed, error.message, "" if unnamed else error.hint)
        return
    except ConsilienceError as error:
        yield _failed("store", error, fix=_anew(path))
        return
    with closing(opened):
        checks = list(_content(opened, path))
        yield from checks
        if all(check.ok for check in checks):
            yield _lexical_index(opened)
            yield _vectors(opened, model)


def _content(store: "Store", path: Path) -> Iterator[Check]:
    problems = store.check()
    for problem in problems:
        message = f"{problem.subject}: {problem.message}"
        yield Check("store", False, message, _anew(path))
    if not problems:
        stats = store.stats()
        found = f"{path}: documents {stats.documents}, passages {stats.passages}"
        yield Check("store", True, f"{found}, generation {stats.sequence}")


def _anew(path: Path) -> str:
    """The way back to a sound store: the documents are not in it, so they can be added again."""
    old, beside = shlex.quote(str(path)), shlex.quote(f"{path}.damaged")
    return f"mv {old} {beside} && consilience add PATH --store {old}"


def _lexical_index(store: "Store") -> Check:
    """Ask it something: it takes in what it lacks, or is built anew, before it answers."""
    from consilience.retrieval import open_retriever

    try:
        open_retriever(store, mode="bm25").search("index", k=1)
    except ConsilienceError as error:
        derived = shlex.quote(str(store.path / "derived"))
        return _failed("lexical index", error, fix=f"rm -r {derived}")
    return Check("lexical index", True, f"has reached generation {store.sequence}")


def _vectors(store: "Store", model: str | None) -> Check:
    """Whether the vectors are those of the model."""
    from consilience.cli.opening import load_named_encoder
    from consilience.store import require_fingerprint

    try:
        require_fingerprint(store, load_named_encoder(model))
    except ConsilienceError as error:
        return _failed("vectors", error)
    return Check("vectors", True, f"{store.dimension} dimensions, made by this model")


def _failed(name: str, error: ConsilienceError, *, fix: str = "") -> Check:
    return Check(name, False, error.message, fix or error.hint)


def _draw(check: Check, screen: Screen) -> None:
    words = screen.words
    verdict = (words.ok, "green") if check.ok else (words.problem, "bold red")
    screen.line(verdict, f"  {check.name}: {one_line(check.message)}")
    if check.fix:
        screen.line((f"    {words.next}: ", "dim"), one_line(check.fix))
