"""`Service`: what the routes share, and reading the store on behalf of a subject.

Everything that blocks runs on a fixed number of threads, so that the event loop never waits and a
thread keeps its connection to the store. What a subject may not read leaves this module as an error
that says that there is no such thing. Knows models, stores and queues, but no HTTP; torch comes
with the model, when the service is opened.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Request

from consilience.errors import MissingError, UsageError
from consilience.serving.access import missing_document, missing_passage
from consilience.serving.asks import Asks
from consilience.serving.config import DEFAULT_CONFIG, ServeConfig
from consilience.serving.gates import Gates
from consilience.serving.journal import where_of, write_line
from consilience.serving.keys import KeyRing
from consilience.serving.metrics import Metrics
from consilience.serving.subjects import Subject, authorise
from consilience.store import Store, Where

if TYPE_CHECKING:
    from consilience.documents import Document, Passage
    from consilience.model import Rag
    from consilience.retrieval import Hit, Mode
    from consilience.serving.desk import Desk
    from consilience.serving.jobs import Jobs
    from consilience.store import SourceInfo

P = ParamSpec("P")
T = TypeVar("T")

NOWHERE = Where(sources=("\0",))
"""A filter that lets nothing through: no document has such a name."""

_THREADS = 16  # what is asked meanwhile is embedded together, so it pays to let many in


@dataclass(slots=True)
class Service:
    """What the routes share.

    Attributes:
        config: What the server was told.
        store: The knowledge base.
        rag: The model.
        desk: Where questions are asked; it owns the model's thread.
        jobs: Uploads and evaluations in the background.
        keys: Who may ask.
        gates: How many may ask at once.
        metrics: What is counted.
        path: The config file, which need not be there.
        overrides: What flags said, which wins over the file.
        asks: Questions in work over HTTP.
    """

    config: ServeConfig
    store: Store
    rag: "Rag"
    desk: "Desk"
    jobs: "Jobs"
    keys: KeyRing
    gates: Gates
    metrics: Metrics
    path: Path = DEFAULT_CONFIG
    overrides: Mapping[str, Any] = field(default_factory=dict)
    asks: Asks = field(default_factory=Asks)
    _threads: ThreadPoolExecutor = field(init=False)
    _ready: threading.Event = field(init=False, default_factory=threading.Event)
    _warming: threading.Thread | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that blocks on one of the threads, and wait for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))

    def passage(self, subject: Subject, id_: str) -> "Passage":
        """A passage that a subject may read; blocks.

        Raises:
            MissingError: There is none, or it is hidden.
        """
        try:
            found = self.store.passage(id_)
        except MissingError:
            raise missing_passage(id_) from None
        if not authorise(subject, "read", found):
            raise missing_passage(id_)
        return found

    def document(self, subject: Subject, source: str) -> "Document":
        """A document that a subject may read, with its text; blocks.

        Raises:
            MissingError: There is none, or it is hidden.
        """
        try:
            found = self.store.document(source)
        except MissingError:
            raise missing_document(source) from None
        if not authorise(subject, "read", found):
            raise missing_document(source)
        return found

    def sources(self, subject: Subject) -> "list[SourceInfo]":
        """The documents that a subject may read, by source; blocks."""
        return [one for one in self.store.sources() if authorise(subject, "read", one)]

    def where(self, subject: Subject, conditions: Mapping[str, str]) -> Where | None:
        """The filter that a request asks for; blocks when it must look into the store.

        To a subject with labels, a key of metadata that no document has is one that lets nothing
        through: the error would name the keys of documents that it may not read.

        Raises:
            UsageError: A field is unknown.
        """
        where = Where.of(conditions)
        if where.metadata and not subject.reads_everything:
            try:
                self.store.matching(where)
            except UsageError:
                return NOWHERE
        return where or None

    def search(
        self,
        subject: Subject,
        question: str,
        *,
        k: int | None = None,
        mode: "Mode | None" = None,
        conditions: Mapping[str, str] | None = None,
    ) -> "list[Hit]":
        """The best passages that a subject may read; blocks.

        Args:
            subject: Who searches.
            question: What for.
            k: How many; None for what was measured on the store.
            mode: How; None for what suits the model.
            conditions: The documents that are searched, by field.

        Raises:
            UsageError: As `Retriever.search`.
        """
        where, k = self.where(subject, conditions or {}), self.rag.tuning(self.store).proposed(k)
        retriever = self.rag.retriever(self.store, mode)
        found = retriever.search(question, k=k, access=subject.labels, where=where)
        return [hit for hit in found if authorise(subject, "read", hit.passage)]

    @property
    def model_name(self) -> str:
        """The model, by its name and not by where it lies."""
        return "shipped" if self.config.model is None else Path(self.config.model).name

    @property
    def state(self) -> str:
        """`loading` until the index has caught up with the store, `closing` at the end."""
        if self.gates.closing:
            return "closing"
        return "ok" if self._ready.is_set() else "loading"

    def watch(self) -> None:
        """Tell numbers of the store and of the gates whenever somebody asks for metrics."""
        self.metrics.watch("passages", "Passages in the store.", lambda: len(self.store))
        self.metrics.watch("generation", "The last change of the store.", self._generation)
        for kind, gate in self.gates.gates.items():
            self.metrics.watch(f"{kind}_inside", f"Requests inside: {kind}.", gate.count)

    def _generation(self) -> float:
        return float(self.store.sequence)

    def warm_up(self) -> None:
        """Get model and indexes ready in the background, so that the first search is quick."""
        self._warming = threading.Thread(target=self._warm, name="warm-up", daemon=True)
        self._warming.start()

    def _warm(self) -> None:
        try:
            self.rag.narrow()
            if len(self.store):
                self.rag.retriever(self.store).search("a", k=1)
        except Exception as error:  # noqa: BLE001 - the edge: the thread's own, and nobody waits
            if not self.gates.closing:  # else the store was closed beneath it, as is meant
                write_line({"event": "mistake", "thread": "warm-up", **where_of(error)})
        finally:
            self._ready.set()

    def close(self, grace: float = 10.0) -> None:
        """Stop taking requests, leave jobs to be resumed, and end what is still asked.

        Jobs come first: an evaluation whose questions were ended would count as failed.

        Args:
            grace: Seconds that running work has to come to a good place.
        """
        self.gates.close()
        self.jobs.close(grace)
        self.desk.close(0)
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._warming is not None:
            self._warming.join(grace)
        self.store.close()


def open_service(
    config: ServeConfig,
    *,
    path: Path = DEFAULT_CONFIG,
    overrides: Mapping[str, Any] | None = None,
) -> Service:
    """Open the store, load the model, and set up everything that routes share.

    Args:
        config: What the server is told.
        path: The file that it was read from, or that settings are to be written to.
        overrides: What flags said, by dotted key.

    Raises:
        ConsilienceError: As `Rag.load` and `Store.open`.
    """
    from consilience.model import Rag
    from consilience.serving.desk import Desk, DeskLimits
    from consilience.serving.jobs import open_jobs

    limits, rag = config.limits, Rag.load(config.model)
    with ExitStack() as opened:
        store = opened.enter_context(Store.open(config.store, encoder=rag.encoder))
        desk = Desk(rag, store, limits=DeskLimits(concurrent=limits.asks, waiting=limits.waiting))
        opened.callback(desk.close, 0)
        jobs = open_jobs(store, rag, desk=desk, config=config)
        opened.callback(jobs.close, 0)
        service = Service(
            config=config,
            store=store,
            rag=rag,
            desk=desk,
            jobs=jobs,
            keys=KeyRing(config.key_path),
            gates=Gates(limits),
            metrics=Metrics(),
            path=path,
            overrides=overrides or {},
        )
        service.watch()
        opened.pop_all()
    return service


async def service_of(request: Request) -> Service:
    """The service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(service_of)]
