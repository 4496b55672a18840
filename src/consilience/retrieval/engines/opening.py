"""From a URL to an engine, and from an engine to what a store is here: what is searched and cited.

Every search reads one commit of the copy, checks that it may be believed and ranks with the same
rankers' sum as a store's own indexes. No store is needed; the numbers of the search came with the
copy. Engines are imported when their URL is opened.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self, get_args

from consilience.documents import Passage
from consilience.encoding import Encoder, QuestionVectors
from consilience.errors import MissingError, UsageError
from consilience.retrieval.base import Hit, Retriever
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import (
    Answer,
    Engine,
    Limits,
    Published,
    Vector,
    View,
    asked,
    typed,
    unpublished,
)
from consilience.retrieval.engines.published import require_encoder, require_readable
from consilience.retrieval.hybrid import HybridRanker, HybridWeights
from consilience.retrieval.opening import Mode
from consilience.retrieval.ranking import EVERYTHING, PassageRetriever, Ranker, Ranking, Scope
from consilience.retrieval.tuning import SETTING, Tuning
from consilience.store import VectorRows, Where
from consilience.store.where import METADATA, unknown_field


def open_engine(url: str, *, limits: Limits | None = None) -> Engine:
    """The engine of a URL; it is asked nothing yet.

    Args:
        url: `postgresql://…`; the password may be in the environment, see `address.PASSWORD`.
        limits: How long it is waited for; None for the defaults.

    Raises:
        UsageError: The URL is none of an engine.
        DependencyError: The packages of the engine are not installed.
    """
    address = Address.parse(url)
    return _OPENED[address.engine](address, limits)


def _postgres(address: Address, limits: Limits | None) -> Engine:
    from consilience.retrieval.engines.postgres import PostgresEngine

    return PostgresEngine(address, limits=limits)


def _elastic(address: Address, limits: Limits | None) -> Engine:
    from consilience.retrieval.engines.elastic import elastic_engine

    return elastic_engine(address, limits)


def _qdrant(address: Address, limits: Limits | None) -> Engine:
    from consilience.retrieval.engines.qdrant import qdrant_engine

    return qdrant_engine(address, limits)


def _milvus(address: Address, limits: Limits | None) -> Engine:
    from consilience.retrieval.engines.milvus import milvus_engine

    return milvus_engine(address, limits)


_OPENED: Mapping[str, Callable[[Address, Limits | None], Engine]] = {
    "postgresql": _postgres,
    "elasticsearch": _elastic,
    "opensearch": _elastic,
    "qdrant": _qdrant,
    "milvus": _milvus,
}
"""The closed table of engines."""


def open_engine_retriever(
    url: str,
    *,
    mode: Mode = "hybrid",
    encoder: Encoder | None = None,
    weights: HybridWeights | None = None,
) -> Retriever:
    """A retriever over the copy at a URL, which it follows from commit to commit.

    Args:
        url: As for `open_engine`.
        mode: `bm25` by words, `dense` by vectors, `hybrid` by both.
        encoder: The encoder of the copy's vectors; not needed for `bm25`.
        weights: How `hybrid` trusts its halves where that was not measured on the store.

    Raises:
        UsageError: The URL is none of an engine, the mode is unknown, or it needs an encoder.
        DependencyError: The packages of the engine are not installed.
    """
    return Copy.open(url).retriever(mode, encoder=encoder, weights=weights)


class Copy:
    """A published copy of a store. Threads may share it.

    Args:
        engine: That holds it.

    Example:
        with Copy.open("postgresql://reader@db.example/knowledge") as copy:
            copy.retriever("bm25").search("opening hours", k=5)
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, limits: Limits | None = None) -> Self:
        """The copy at a URL; nothing is asked of it yet. Raises as `open_engine`."""
        return cls(open_engine(url, limits=limits))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the engine. Harmless when done again."""
        self._engine.close()

    @property
    def shown(self) -> str:
        """Its address without password."""
        return self._engine.shown

    @property
    def state(self) -> Published:
        """Which commit of which store it is now.

        Raises:
            MissingError: Nothing has been published there.
            RemoteError: The engine fails or refuses.
        """
        state = self._engine.state()
        if state is None:
            raise unpublished(self.shown)
        return state

    @property
    def settings(self) -> dict[str, Any]:
        """What was found out about searching the store, as it was published. Raises as `state`."""
        return {SETTING: dict(self.state.tuning)}

    def passage(self, id: str) -> Passage:  # noqa: A002 the field's name in every contract
        """The passage of that id.

        Raises:
            MissingError: There is none.
            RemoteError: The engine fails or refuses.
        """
        found = self.read(lambda view: view.passages([*view.numbers([id]).values()]))
        if not found:
            raise MissingError(
                f"there is no passage {id!r} in {self.shown}",
                hint=f"consilience search WORDS --engine {typed(self.shown)} shows them with ids.",
            )
        return next(iter(found.values()))

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id, as `Store.numbers`. Raises as `state`."""
        return self.read(lambda view: view.numbers(ids))

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number, as `Store.vectors`. Raises as `state`."""
        return self.read(lambda view: view.vectors(numbers))

    def retriever(
        self,
        mode: Mode = "hybrid",
        *,
        encoder: Encoder | None = None,
        weights: HybridWeights | None = None,
    ) -> Retriever:
        """A retriever over this copy; see `open_engine_retriever`."""
        if mode not in get_args(Mode):
            raise UsageError(
                f"there is no retrieval mode {mode!r}", hint=f"One of: {', '.join(get_args(Mode))}."
            )
        if mode != "bm25" and encoder is None:
            raise UsageError(
                f"the mode {mode} needs an encoder, received None",
                hint="Pass encoder=consilience.encoding.load_encoder(), or take the mode bm25.",
            )
        return CopyRetriever(self, mode, encoder, weights or HybridWeights())

    def read(self, ask: Callable[[View], Answer]) -> Answer:
        """The answer of `ask` on one commit that this version may believe; see `Engine.read`."""

        def believed(view: View) -> Answer:
            recipe = self._engine.recipe(Tuning.parse(view.state.tuning))
            require_readable(view.state, recipe, self.shown)
            return ask(view)

        return self._engine.read(believed)


class CopyRetriever:
    """The `Retriever` over a copy.

    Args:
        copy: What is searched.
        mode: How.
        encoder: Of its vectors; None for `bm25`.
        weights: The dense half's share where that was not measured on the store.
    """

    def __init__(
        self, copy: Copy, mode: Mode, encoder: Encoder | None, weights: HybridWeights
    ) -> None:
        self._copy = copy
        self._mode = mode
        self._encoder = encoder
        self._questions = None if encoder is None else QuestionVectors(encoder)
        self._weights = weights

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` best passages of one commit; see `Retriever.search`.

        Raises:
            UsageError: An empty question, `k` below 1, or a filter on a field that is not there.
            FingerprintError: The copy's vectors are another encoder's.
            MissingError: Nothing has been published there.
            VersionError: Another version of this package made the copy.
            RemoteError: The engine fails or refuses.
        """
        halves = _Halves(self._questions)

        def ask(view: View) -> list[Hit]:
            if self._encoder is not None:
                require_encoder(view.state, self._encoder, self._copy.shown)
            retriever = PassageRetriever(view, self._ranker(view, halves))
            hits = retriever.search(question, k=k, access=access, where=where)
            if where and not hits:
                _require_keys(view.state, where)
            return hits

        return self._copy.read(ask)

    def _ranker(self, view: View, halves: "_Halves") -> Ranker:
        if self._mode == "bm25":
            return _Lexical(view, halves)
        if self._mode == "dense":
            return _Dense(view, halves)
        weights = Tuning.parse(view.state.tuning).weights(self._weights)
        return HybridRanker(_Lexical(view, halves), _Dense(view, halves), weights)


class _Halves:
    """What a question is for the two halves, worked out once however often they are asked."""

    def __init__(self, questions: QuestionVectors | None) -> None:
        self._questions = questions
        self._tokens: dict[str, Mapping[str, int]] = {}

    def tokens(self, question: str) -> Mapping[str, int]:
        """Its tokens with how often each occurs."""
        if question not in self._tokens:
            self._tokens[question] = asked(question)
        return self._tokens[question]

    def vector(self, question: str) -> Vector:
        """Its vector, `[dimension]`."""
        assert self._questions is not None
        return self._questions.of(question)


class _Lexical:
    """A `Ranker` by the words of one view."""

    def __init__(self, view: View, halves: _Halves) -> None:
        self._view = view
        self._halves = halves

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        return self._view.rank_lexical(self._halves.tokens(question), depth=depth, scope=scope)


class _Dense:
    """A `Ranker` by the vectors of one view."""

    def __init__(self, view: View, halves: _Halves) -> None:
        self._view = view
        self._halves = halves

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        if not self._view.state.passages:
            return []
        return self._view.rank_dense(self._halves.vector(question), depth=depth, scope=scope)


def _require_keys(state: Published, where: Where) -> None:
    for key in sorted(where.by_key().keys() - set(state.keys)):
        raise unknown_field(f"{METADATA}{key}", state.keys)
