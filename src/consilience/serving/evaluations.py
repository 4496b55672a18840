"""Evaluations: uploaded questions asked of the served model, one by one, with a report at the end.

    evaluations/ID/
      evaluation.json    what it is called, who asked for it, and what came out
      questions          the file, as it came
      run.jsonl          every question as it is answered
      report/index.html  the page

Questions go to the desk like everybody's, one at a time, and wait when it is full, so that people
who ask are not kept waiting by a long evaluation. What is interrupted goes on where it stopped. An
id from a request is only ever looked up among the folders that are there.
"""

import gzip
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from consilience.errors import DamagedError, MissingError, UsageError
from consilience.evaluation import Evaluation, EvaluationOptions, Scoring, evaluate, write_report
from consilience.questions import read_questions
from consilience.serving.backlog import Backlog, CancelledError, Told
from consilience.serving.config import Limits
from consilience.serving.errors import OverloadedError, StoppedError
from consilience.serving.files import write_whole
from consilience.serving.job import Job, now
from consilience.serving.naming import display_name
from consilience.serving.requests import AskRequest, ModeName
from consilience.serving.subjects import Subject, authorise
from consilience.serving.uploads import PART, Form, Uploaded
from consilience.serving.words import Language

if TYPE_CHECKING:
    from consilience.model import Answer, AskOptions, Rag
    from consilience.retrieval import Mode
    from consilience.store import Store

LONGEST_QUESTIONS = 20_000_000
"""Bytes of a file of questions, unpacked; a hundred thousand of them have about as many."""

MOST = 500
"""Evaluations that are kept; further ones are refused until some are deleted."""

MOST_QUESTIONS = 100_000
"""Questions of one evaluation."""

LINK_SECONDS = 60.0
"""How long the address of a report can be opened without a key."""

LONGEST_LINK = 100
"""Characters of the name of such an address."""

_PAUSE = 0.5  # seconds before a desk that was full is asked again
_GZIP = b"\x1f\x8b"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Plan:
    """How questions are asked, and which.

    Attributes:
        name: For people.
        k: Passages.
        mode: How they are found; None for what suits the model.
        limit: Only the first so many; None for all.
        language: Of the report.
    """

    name: str
    k: int
    mode: "Mode | None"
    limit: int | None
    language: Language


@dataclass(frozen=True, slots=True)
class Link:
    """A name under which a report can be opened without a key.

    Attributes:
        name: Nobody can guess it.
        seconds: How long.
    """

    name: str
    seconds: float


class Ticket(Protocol):
    """A question that was handed in."""

    def pieces(self) -> Iterator[Any]:
        """What becomes of it; the last piece has the answer."""
        ...

    def cancel(self) -> None:
        """It is not wanted any more."""
        ...


class Asked(Protocol):
    """Where questions are handed in."""

    def submit(self, question: str, options: "AskOptions") -> Ticket:
        """Hand one in; raises OverloadedError when there is no room."""
        ...


class Evaluations:
    """All evaluations of a server.

    Args:
        folder: Where they are kept.
        store: The knowledge base.
        rag: The model.
        desk: Where questions are handed in.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        store: "Store",
        rag: "Rag",
        *,
        desk: Asked,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._store, self._rag, self._desk = folder, store, rag, desk
        self._clock = clock
        self._links: dict[str, tuple[str, float]] = {}
        self._writing = threading.Lock()
        self._tidy()

    def incoming(self) -> Path:
        """The folder for files that are coming in."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._folder

    def prepare(self, subject: Subject, file: Uploaded, plan: Plan) -> Job:
        """Take in a file of questions, and make the job that asks them.

        Raises:
            UsageError: There are too many evaluations, or too much is in the file.
            DocumentError: Lines that are not questions; nothing is kept.
        """
        if len(self._ids()) >= MOST:
            raise UsageError(f"{MOST} evaluations are kept already", hint="delete some")
        held = None if subject.labels is None else tuple(sorted(subject.labels))
        job = Job("evaluation", plan.name, subject.id, held, asdict(plan), total_bytes=file.size)
        place = self._folder / job.id
        place.mkdir(mode=0o700)
        try:
            os.replace(file.path, place / "questions")
            _unpack(place / "questions")
            count = len(read_questions(place / "questions")[: plan.limit])
            self._write(job, questions=count)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return replace(job, total=count)

    def __call__(self, job: Job, told: Told) -> Job:
        """Ask the questions of a job, and write the report.

        Raises:
            CancelledError: It was told to stop; what was answered is kept.
            ConsilienceError: As `evaluate`.
        """
        place = self._place(job.id)
        began = self._clock()

        def progress(done: int, total: int) -> None:
            seconds = self._clock() - began
            told.progress(
                done=done,
                total=total,
                done_bytes=job.total_bytes * done // total,
                rate=done / seconds if seconds > 0 else 0.0,
                seconds_left=seconds * (total - done) / done,
            )

        found = self._evaluated(job, place, told, progress)
        language, name = job.options["language"], job.options["name"]
        with self._writing:
            if told.cancelled():
                raise CancelledError  # what was deleted meanwhile must not come back
            write_report(found, place / "report", language=language, name=name)
            self._write(job, questions=found.n, result=found.to_dict())
        return job

    def submit(self, subject: Subject, job: Job, backlog: Backlog) -> Job:
        """Queue a job that was prepared; where there is no room for it, nothing of it is kept.

        Raises:
            OverloadedError: Too much is waiting.
        """
        try:
            return backlog.submit([job])[0]
        except BaseException:
            shutil.rmtree(self.known(subject, job.id))
            raise

    def listed(self, subject: Subject, backlog: Backlog) -> list[dict[str, Any]]:
        """What a subject may know of, the newest first: its own, and an admin all."""
        states = {job.id: job.state for job in backlog.seen_by(subject)}
        found = [self._read(id_) for id_ in self._ids()]
        seen = [one for one in found if _sees(subject, one)]
        told = [_told(one, states.get(one["id"])) for one in seen]
        return sorted(told, key=lambda one: str(one["created"]), reverse=True)

    def report(self, subject: Subject, id_: str) -> str:
        """The page of an evaluation.

        Raises:
            MissingError: There is none, or none that the subject may know of.
        """
        return self._page(self.known(subject, id_))

    def known(self, subject: Subject, id_: str) -> Path:
        """The folder of an evaluation that a subject may know of.

        Raises:
            MissingError: There is none, or it is another's.
        """
        if not _sees(subject, self._read(id_)):
            raise _missing()
        return self._place(id_)

    def remove(self, subject: Subject, id_: str, backlog: Backlog) -> None:
        """Delete an evaluation and all that belongs to it.

        Raises:
            MissingError: There is none, or it is another's.
        """
        place = self.known(subject, id_)
        backlog.withdraw([id_])
        with self._writing:
            shutil.rmtree(place)
        backlog.forget(id_)

    def link(self, subject: Subject, id_: str) -> Link:
        """A name under which a report can be opened without a key, for a while.

        A browser that opens a page cannot send a key along.

        Raises:
            MissingError: There is no such report.
        """
        self.report(subject, id_)
        now = self._clock()
        self._links = {name: one for name, one in self._links.items() if one[1] > now}
        link = Link(secrets.token_urlsafe(32), LINK_SECONDS)
        self._links[link.name] = (id_, now + link.seconds)
        return link

    def linked(self, name: str) -> str:
        """The page behind such a name.

        Raises:
            MissingError: It was never given out, or is no longer valid.
        """
        id_, until = self._links.get(name, ("", 0.0))
        if until <= self._clock():
            raise MissingError(
                "this address of a report is not valid, or not any more",
                hint="open the report anew",
            )
        return self._page(self._place(id_))

    def _page(self, place: Path) -> str:
        try:
            return (place / "report" / "index.html").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise _missing() from None

    def _evaluated(
        self, job: Job, place: Path, told: Told, progress: Callable[[int, int], None]
    ) -> Evaluation:
        """Go on with what was answered, or begin anew where store or model are others by now."""
        questions = read_questions(place / "questions")[: job.options["limit"]]
        run = place / "run.jsonl"
        ask = partial(
            evaluate,
            *(self._rag, self._store, questions, self._options(job, told)),
            run=run,
            progress=progress,
        )
        if not run.exists():
            return ask()
        try:
            return ask()
        except (UsageError, DamagedError):
            run.unlink()
            return ask()

    def _options(self, job: Job, told: Told) -> EvaluationOptions:
        from consilience.model import AskOptions

        held = None if job.held is None else frozenset(job.held)
        ask = AskOptions(k=job.options["k"], mode=job.options["mode"], access=held)
        installed = all(find_spec(name) is not None for name in ("rouge_score", "sacrebleu"))

        def through(question: str, _: "Store", how: "AskOptions") -> "Answer":
            return self._answer(told, question, how)

        return EvaluationOptions(ask=ask, scoring=Scoring(overlap=installed), through=through)

    def _answer(self, told: Told, question: str, how: "AskOptions") -> "Answer":
        """The desk's answer, waited for in line; a desk that is full or closing is asked again."""
        while not told.cancelled():
            with suppress(OverloadedError, StoppedError):
                answer = _last(self._desk.submit(question, how), told)
                if answer is not None:
                    return answer
            told.wait(_PAUSE)
        raise CancelledError

    def _tidy(self) -> None:
        """Delete what an earlier process had begun to take in."""
        for path in self.incoming().iterdir():
            if path.suffix == PART:
                path.unlink(missing_ok=True)
            elif _ID.fullmatch(path.name) and not (path / "evaluation.json").exists():
                shutil.rmtree(path, ignore_errors=True)

    def _ids(self) -> list[str]:
        """Every evaluation that is there."""
        if not self._folder.is_dir():
            return []
        with os.scandir(self._folder) as entries:
            return [
                entry.name
                for entry in entries
                if _ID.fullmatch(entry.name)
                and entry.is_dir(follow_symlinks=False)
                and (self._folder / entry.name / "evaluation.json").is_file()
            ]

    def _place(self, id_: str) -> Path:
        if id_ not in self._ids():
            raise _missing()
        return self._folder / id_

    def _read(self, id_: str) -> dict[str, Any]:
        path = self._place(id_) / "evaluation.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DamagedError(
                f"{path} is damaged: {error}", hint=f"rm -r {path.parent}"
            ) from error
        return found

    def _write(self, job: Job, *, questions: int, result: Mapping[str, Any] | None = None) -> None:
        told = {
            "id": job.id,
            "name": job.options["name"],
            "owner": job.owner,
            "created": job.created,
            "questions": questions,
            "finished": None if result is None else now(),
            "result": result,
            **{name: job.options[name] for name in ("k", "mode", "limit", "language")},
        }
        write_whole(self._folder / job.id / "evaluation.json", json.dumps(told))


def _last(ticket: Ticket, told: Told) -> "Answer | None":
    """The answer at the end of what is written; None when it is not wanted any more."""
    answer: Answer | None = None
    for piece in ticket.pieces():
        if told.cancelled():
            ticket.cancel()
            return None
        answer = getattr(piece, "answer", None) or answer
    return answer


def _told(found: Mapping[str, Any], state: str | None) -> dict[str, Any]:
    """An evaluation as it is listed; without its owner, and of its result the figures."""
    result = found["result"] or {}
    kept = {key: value for key, value in found.items() if key not in ("owner", "result")}
    over = "done" if found["result"] else "failed"
    figures = {key: result.get(key, {}) for key in ("metrics", "intervals", "counts")}
    return {**kept, "state": state or over, "report": bool(found["result"]), **figures}


def _sees(subject: Subject, found: Mapping[str, Any]) -> bool:
    """Whether a subject may know of an evaluation: it quotes passages that its owner may read."""
    return authorise(subject, "admin") or subject.id == found["owner"]


def _missing() -> MissingError:
    return MissingError("there is no such evaluation", hint="GET /v1/evaluations lists them")


def _unpack(path: Path) -> None:
    """Unpack a file of gzip, to no more than `LONGEST_QUESTIONS`.

    Raises:
        UsageError: It holds more, or is damaged.
    """
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    if not packed:
        return
    try:
        with gzip.open(path) as opened:
            data = opened.read(LONGEST_QUESTIONS + 1)
    except (EOFError, OSError, ValueError) as error:
        raise UsageError(f"the gzip file is damaged: {error}", hint="pack it again") from error
    if len(data) > LONGEST_QUESTIONS:
        raise UsageError(
            f"the file holds more than {LONGEST_QUESTIONS} bytes of questions",
            hint="evaluate a part of them",
        )
    path.write_bytes(data)


def plan_of(form: Form, limits: Limits, language: Language) -> Plan:
    """What a form asks for.

    Raises:
        UsageError: A field is unknown, or has a value that cannot be.
    """
    unknown = sorted(form.fields.keys() - {"name", "k", "mode", "limit"})
    if unknown:
        raise UsageError(
            f"there is no field {unknown[0][:60]!r}", hint="fields are data, name, k, mode, limit"
        )
    mode = form.one("mode") or None
    if mode is not None and mode not in get_args(ModeName):
        raise UsageError(f"mode is {mode[:60]!r}", hint=f"one of {', '.join(get_args(ModeName))}")
    name = form.one("name")
    return Plan(
        name=display_name(name) if name else form.files[0].name,
        k=_number(form, "k", limits.k) or AskRequest.model_fields["k"].default,
        mode=mode,  # type: ignore[arg-type]
        limit=_number(form, "limit", MOST_QUESTIONS),
        language=language,
    )


def _number(form: Form, name: str, most: int) -> int | None:
    given = form.one(name).strip()
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= most):
        raise UsageError(f"{name} is {given[:60]!r}", hint=f"a number from 1 to {most}")
    return int(given)
