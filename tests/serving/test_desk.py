"""Many askers, one model: order, company, cancelling, mishaps, limits, and the end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from consilience import Document, Rag, Store
from consilience.errors import RemoteError, UsageError
from consilience.generation import Pair
from consilience.generation.endpoint import Endpoint
from consilience.generation.remote import Candidate, RemoteGenerator, Writing
from consilience.model import Answer, AskOptions, Piece
from consilience.model.answering import Asked, Clock
from consilience.model.decoding import Streams
from consilience.model.reading import Reading
from consilience.serving.desk import Desk, DeskLimits, Retrieved, Ticket
from consilience.serving.errors import OverloadedError, StoppedError
from consilience.store import Where
from tests.model.test_cohort import same

DOCUMENTS = [
    Document("The fee of the card is 25.50.", "card.txt", "Card", contributor="bank"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊", contributor="ward"),
    Document("Visit hours of the ward: 10 to 12.", "ward.txt", "Ward", contributor="ward"),
    Document("The exam is in the bank.", "exam.txt", "Exam", contributor="bank"),
]
QUESTIONS = [
    "what is the fee of the card?",
    "门诊的时间？",
    "when are the visit hours?",
    "where is the exam?",
]
SHORT = AskOptions(k=3, max_new_tokens=6, mode="dense", abstain=False)
LONG = AskOptions(k=3, beams=1, max_new_tokens=40, min_new_tokens=40, mode="dense", abstain=False)


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


@contextmanager
def opened(rag: Rag, store: Store, **limits: Any) -> Iterator[Desk]:
    desk = Desk(rag, store, limits=DeskLimits(**limits))
    try:
        yield desk
    finally:
        desk.close()
    assert not any(thread.is_alive() for thread in desk._threads)


def answer_of(ticket: Ticket) -> Answer:
    *_, last = ticket.pieces()
    assert isinstance(last, Piece)
    assert last.answer is not None
    return last.answer


@dataclass
class Watched:
    """A model whose stages can be held, watched, and made to fail.

    Attributes:
        rag: What it is made of.
        held: Reading waits for it.
        reading: Set whenever something is about to be read.
        read_in_order: Questions, as they were read.
        broken: Questions that cannot be read.
    """

    rag: Rag
    held: threading.Event = field(default_factory=threading.Event)
    reading: threading.Event = field(default_factory=threading.Event)
    read_in_order: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def opened(self) -> Rag:
        """A model of the same parts whose reading is watched."""
        watched, real = Rag(self.rag.parts), self.rag.read

        def read(asked: Asked, options: AskOptions, clock: Clock) -> Reading:
            self.reading.set()
            assert self.held.wait(20)
            self.read_in_order.append(asked.question)
            if asked.question in self.broken:
                raise UsageError(f"{asked.question} cannot be read", hint="ask something else")
            return real(asked, options, clock)

        watched.read = read  # type: ignore[method-assign]
        return watched


@pytest.fixture
def watched(rag: Rag) -> Iterator[Watched]:
    found = Watched(rag)
    yield found
    found.held.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class TestAnswers:
    def test_passages_come_first_and_then_the_answer_token_by_token(
        self, rag: Rag, store: Store
    ) -> None:
        with opened(rag, store) as desk:
            first, *pieces = desk.submit(QUESTIONS[0], SHORT).pieces()
        assert isinstance(first, Retrieved)
        assert first.question == QUESTIONS[0]
        expected = list(rag.stream(QUESTIONS[0], store, SHORT))
        assert [hit.passage.id for hit in first.hits] == list(expected[-1].posterior)
        assert [one.text for one in pieces if isinstance(one, Piece)] == [
            one.text for one in expected
        ]

    @pytest.mark.parametrize(
        "way",
        [
            {},
            {"fusion": "token", "beams": 1},
            {"fusion": "fid"},
            {"fusion": "concat"},
            {"search": "thorough"},
            {"search": "fast"},
            {"returned": 2},
            {"sample": True, "returned": 2},
        ],
        ids=str,
    )
    def test_many_at_once_get_what_each_gets_alone(
        self, rag: Rag, store: Store, way: dict[str, Any]
    ) -> None:
        options = AskOptions(k=3, max_new_tokens=6, mode="dense", **way)
        with opened(rag, store) as desk:
            tickets = [(q, desk.submit(q, options)) for q in QUESTIONS * 3]
            for question, ticket in tickets:
                same(answer_of(ticket), rag.ask(question, store, options))

    def test_questions_that_are_asked_in_different_ways_share_the_desk(
        self, rag: Rag, store: Store
    ) -> None:
        ways = [
            SHORT,
            LONG,
            AskOptions(fusion="token", mode="dense"),
            AskOptions(k=1, mode="dense"),
        ]
        with opened(rag, store) as desk:
            tickets = [(q, how, desk.submit(q, how)) for q in QUESTIONS for how in ways]
            for question, how, ticket in tickets:
                same(answer_of(ticket), rag.ask(question, store, how))

    def test_history_and_filters_go_along(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            found = answer_of(desk.submit("the bank", SHORT, where=Where(contributors=("ward",))))
            told = answer_of(
                desk.submit("the bank", AskOptions(where=Where(sources=("card.txt",))))
            )
        sources = {store.passage(name).source for name in found.posterior}
        assert sources <= {"门诊.txt", "ward.txt"}
        assert {store.passage(name).source for name in told.posterior} == {"card.txt"}

    def test_without_passages_it_abstains(self, rag: Rag, tmp_path: Path) -> None:
        with Store.open(tmp_path / "empty", encoder=rag.encoder) as empty, opened(rag, empty) as at:
            first, last = at.submit("who?").pieces()
        assert isinstance(first, Retrieved)
        assert not first.hits
        assert isinstance(last, Piece)
        assert last.answer is not None
        assert last.answer.abstained

    def test_the_time_that_was_waited_is_told(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            timings = answer_of(desk.submit(QUESTIONS[0], SHORT)).timings_ms
        stages = ("wait", "retrieve", "turn", "read", "write", "cite", "total")
        assert tuple(timings) == stages
        assert timings["total"] == pytest.approx(sum(timings[one] for one in stages[:-1]), abs=0.1)

    def test_an_event_loop_can_wait_for_it(self, rag: Rag, store: Store) -> None:
        async def ask(desk: Desk, question: str) -> Answer:
            events = [event async for event in desk.submit(question, SHORT).apieces()]
            assert isinstance(events[0], Retrieved)
            last = events[-1]
            assert isinstance(last, Piece)
            assert last.answer is not None
            return last.answer

        async def ask_all(desk: Desk) -> list[Answer]:
            return await asyncio.gather(*(ask(desk, question) for question in QUESTIONS * 2))

        with opened(rag, store) as desk:
            found = asyncio.run(ask_all(desk))
        for question, answer in zip(QUESTIONS * 2, found, strict=True):
            same(answer, rag.ask(question, store, SHORT))

    def test_two_hundred_at_once_and_none_is_dropped(self, rag: Rag, store: Store) -> None:
        with opened(rag, store, concurrent=16, waiting=200) as desk:
            tickets = [desk.submit(QUESTIONS[i % 4], SHORT) for i in range(200)]
            texts = [answer_of(ticket).text for ticket in tickets]
            assert desk.load == (0, 0)
        expected = [rag.ask(question, store, SHORT).text for question in QUESTIONS]
        assert texts == expected * 50


class TestCompany:
    def test_what_waits_is_written_together(
        self, watched: Watched, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        begin = Streams.__init__

        def note(self: Streams, *args: Any, **kwargs: Any) -> None:
            begin(self, *args, **kwargs)
            sizes.append(len(self.open))

        monkeypatch.setattr(Streams, "__init__", note)
        with opened(watched.opened(), store) as desk:
            first = desk.submit(QUESTIONS[0], LONG)
            assert watched.reading.wait(20)
            others = [desk.submit(question, LONG) for question in QUESTIONS]
            until(lambda: len(desk._ready) == 4)
            watched.held.set()
            for ticket in (first, *others):
                answer_of(ticket)
        assert sizes == [1, 4]

    def test_the_first_come_are_read_first(self, watched: Watched, store: Store) -> None:
        with opened(watched.opened(), store, lookers=1) as desk:
            tickets = [desk.submit(question, SHORT) for question in QUESTIONS]
            until(lambda: len(desk._ready) == 3)
            watched.held.set()
            for ticket in tickets:
                answer_of(ticket)
        assert watched.read_in_order == QUESTIONS

    def test_no_more_are_read_than_may_be(self, watched: Watched, store: Store) -> None:
        desk_of: list[Desk] = []
        most = []
        rag = watched.opened()
        real = rag.read

        def read(*args: Any) -> Reading:
            most.append(desk_of[0]._scribe.busy)
            return real(*args)

        rag.read = read  # type: ignore[method-assign]
        watched.held.set()
        with opened(rag, store, concurrent=2) as desk:
            desk_of.append(desk)
            for ticket in [desk.submit(question, LONG) for question in QUESTIONS * 2]:
                answer_of(ticket)
        assert max(most) == 1

    def test_a_document_that_was_removed_meanwhile_answers_nothing(
        self, watched: Watched, store: Store
    ) -> None:
        """A question far behind is looked up shortly before its turn, not when it is asked."""
        with opened(watched.opened(), store, concurrent=1, lookers=1) as desk:
            tickets = [desk.submit(QUESTIONS[0], SHORT) for _ in range(4)]
            until(lambda: len(desk._waiting) == 2)
            store.remove("card.txt")
            watched.held.set()
            found = [answer_of(ticket) for ticket in tickets]
        sources = [{hit.passage.source for hit in one.citations} for one in found]
        assert "card.txt" in sources[0]
        assert "card.txt" not in sources[3]


class TestStopping:
    def test_a_stop_stops_and_the_rest_goes_on(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            stopped, other = desk.submit(QUESTIONS[0], LONG), desk.submit(QUESTIONS[1], LONG)
            pieces = stopped.pieces()
            next(pieces)
            next(pieces)
            stopped.cancel()
            with pytest.raises(StoppedError, match="stopped before it was answered"):
                list(pieces)
            same(answer_of(other), rag.ask(QUESTIONS[1], store, LONG))
            until(lambda: desk._scribe.busy == 0)
            assert desk.load == (0, 0)

    def test_its_rows_leave_the_batch_at_the_next_step(
        self, watched: Watched, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dropped = []
        drop = Streams.drop

        def note(self: Streams, question: int) -> None:
            dropped.append(question)
            drop(self, question)

        monkeypatch.setattr(Streams, "drop", note)
        watched.held.set()
        with opened(watched.opened(), store) as desk:
            ticket = desk.submit(QUESTIONS[0], LONG)
            pieces = ticket.pieces()
            next(pieces)
            next(pieces)
            ticket.cancel()
            until(lambda: desk._scribe.busy == 0)
        assert dropped == [0]

    def test_what_waits_is_never_read(self, watched: Watched, store: Store) -> None:
        with opened(watched.opened(), store, concurrent=1) as desk:
            first = desk.submit(QUESTIONS[0], SHORT)
            assert watched.reading.wait(20)
            waiting = [desk.submit(question, SHORT) for question in QUESTIONS[1:]]
            until(lambda: len(desk._ready) == 1)
            for ticket in waiting:
                ticket.cancel()
            assert desk.load == (1, 0)
            watched.held.set()
            answer_of(first)
        assert watched.read_in_order == QUESTIONS[:1]

    def test_what_has_ended_stays_as_it_is(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            ticket = desk.submit(QUESTIONS[0], SHORT)
            until(lambda: desk.load == (0, 0))
            ticket.cancel()
            assert answer_of(ticket).text == rag.ask(QUESTIONS[0], store, SHORT).text

    def test_a_task_that_goes_away_takes_no_thread_with_it(self, rag: Rag, store: Store) -> None:
        async def leave(desk: Desk) -> None:
            events = desk.submit(QUESTIONS[0], LONG).apieces()
            await anext(events)

        with opened(rag, store) as desk:
            asyncio.run(leave(desk))
            same(answer_of(desk.submit(QUESTIONS[1], SHORT)), rag.ask(QUESTIONS[1], store, SHORT))

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_what_takes_too_long_fails(
        self, watched: Watched, store: Store, asynchronous: bool
    ) -> None:
        async def last(ticket: Ticket) -> None:
            async for _ in ticket.apieces():
                pass

        with opened(watched.opened(), store, seconds=0.2) as desk:
            ticket = desk.submit(QUESTIONS[0], SHORT)
            with pytest.raises(OverloadedError, match=r"not answered within 0\.2 s"):
                asyncio.run(last(ticket)) if asynchronous else list(ticket.pieces())
            assert desk.load == (0, 0)


class TestMishaps:
    def test_a_question_that_cannot_be_asked_is_told_so(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            bad = desk.submit("  ", SHORT), desk.submit("a" * 4001, SHORT)
            good = desk.submit(QUESTIONS[0], SHORT)
            with pytest.raises(UsageError, match="the question is empty"):
                list(bad[0].pieces())
            with pytest.raises(UsageError, match="4001 characters; 4000 are read at most"):
                list(bad[1].pieces())
            answer_of(good)

    def test_what_cannot_be_read_harms_nobody_else(self, watched: Watched, store: Store) -> None:
        watched.broken.add(QUESTIONS[1])
        with opened(watched.opened(), store) as desk:
            tickets = [desk.submit(question, SHORT) for question in QUESTIONS]
            watched.held.set()
            with pytest.raises(UsageError, match="cannot be read"):
                list(tickets[1].pieces())
            for place in (0, 2, 3):
                same(answer_of(tickets[place]), watched.rag.ask(QUESTIONS[place], store, SHORT))

    @pytest.mark.parametrize("at", [0, 2])
    def test_a_mishap_of_a_whole_cohort_finds_whom_it_belongs_to(
        self, watched: Watched, store: Store, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        """Whatever holds the question fails at a step; alone, only that question does."""
        rag = watched.opened()
        generator: Any = rag.model.generator
        words = generator.tokens.encode([QUESTIONS[2]])[0].ids
        step, steps = type(generator).step, type(generator).begin

        def require(memory: Any, written: int) -> None:
            rows = memory.source.ids[:, 1 : 1 + len(words)].tolist()
            if words in rows and written >= at:
                raise MemoryError("no room for this question")

        def begin(self: Any, memory: Any) -> Any:
            require(memory, 0)
            return steps(self, memory)

        def go_on(self: Any, memory: Any, state: Any, ids: Any, parents: Any) -> Any:
            require(memory, state.steps)
            return step(self, memory, state, ids, parents)

        monkeypatch.setattr(type(generator), "begin", begin)
        monkeypatch.setattr(type(generator), "step", go_on)
        with opened(rag, store) as desk:
            first = desk.submit(QUESTIONS[0], LONG)
            assert watched.reading.wait(20)
            tickets = [desk.submit(question, LONG) for question in QUESTIONS]
            until(lambda: len(desk._ready) == 4)
            watched.held.set()
            with pytest.raises(MemoryError, match="no room for this question"):
                list(tickets[2].pieces())
            answer_of(first)
            for place in (0, 1, 3):
                events = list(tickets[place].pieces())
                texts = [one.text for one in events if isinstance(one, Piece)]
                streamed = list(watched.rag.stream(QUESTIONS[place], store, LONG))
                assert texts == [one.text for one in streamed]

    def test_what_cannot_be_cited_harms_nobody_else(
        self, rag: Rag, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from consilience.model import cohort

        cite = cohort.answered

        def fail(asked: Asked, *rest: Any) -> Answer:
            if asked.question == QUESTIONS[1]:
                raise UsageError("nothing can be cited", hint="")
            return cite(asked, *rest)

        monkeypatch.setattr(cohort, "answered", fail)
        with opened(rag, store) as desk:
            tickets = [desk.submit(question, SHORT) for question in QUESTIONS]
            with pytest.raises(UsageError, match="nothing can be cited"):
                list(tickets[1].pieces())
            for place in (0, 2, 3):
                answer_of(tickets[place])

    def test_a_fusion_that_the_model_does_not_have_is_refused(self, rag: Rag, store: Store) -> None:
        with opened(rag, store) as desk:
            ticket = desk.submit(QUESTIONS[0], AskOptions(fusion="attention", mode="dense"))
            with pytest.raises(UsageError, match="not trained with attention"):
                list(ticket.pieces())
            answer_of(desk.submit(QUESTIONS[0], SHORT))


class TestLimits:
    def test_a_full_desk_refuses_at_once_and_takes_again_what_has_room(
        self, watched: Watched, store: Store
    ) -> None:
        with opened(watched.opened(), store, concurrent=1, waiting=2) as desk:
            tickets = [desk.submit(QUESTIONS[0], SHORT) for _ in range(3)]
            with pytest.raises(OverloadedError, match="3 questions are in work or waiting") as told:
                desk.submit(QUESTIONS[1], SHORT)
            assert told.value.retry_after > 0
            tickets[2].cancel()
            tickets[2] = desk.submit(QUESTIONS[1], SHORT)
            watched.held.set()
            for ticket in tickets:
                answer_of(ticket)

    def test_limits_can_be_changed_while_it_is_open(self, watched: Watched, store: Store) -> None:
        with opened(watched.opened(), store, concurrent=1, waiting=0) as desk:
            first = desk.submit(QUESTIONS[0], SHORT)
            with pytest.raises(OverloadedError):
                desk.submit(QUESTIONS[1], SHORT)
            desk.limits = DeskLimits(concurrent=2, waiting=0)
            second = desk.submit(QUESTIONS[1], SHORT)
            watched.held.set()
            answer_of(first)
            answer_of(second)


class TestTheEnd:
    def test_what_was_taken_may_finish(self, watched: Watched, store: Store) -> None:
        with opened(watched.opened(), store) as desk:
            tickets = [desk.submit(question, SHORT) for question in QUESTIONS]
            closing = threading.Thread(target=desk.close, args=(20.0,))
            closing.start()
            until(lambda: desk._closing)
            with pytest.raises(OverloadedError, match="about to stop"):
                desk.submit(QUESTIONS[0], SHORT)
            watched.held.set()
            for ticket in tickets:
                answer_of(ticket)
            closing.join(20)
            assert not any(thread.is_alive() for thread in [closing, *desk._threads])

    def test_what_does_not_finish_in_time_is_stopped(self, watched: Watched, store: Store) -> None:
        desk = Desk(watched.opened(), store)
        tickets = [desk.submit(question, LONG) for question in QUESTIONS]
        assert watched.reading.wait(20)
        closing = threading.Thread(target=desk.close)
        closing.start()
        for ticket in tickets:
            with pytest.raises(StoppedError, match="the server is stopping"):
                list(ticket.pieces())
        watched.held.set()
        closing.join(20)
        desk.close()
        assert not any(thread.is_alive() for thread in [closing, *desk._threads])


class Elsewhere(RemoteGenerator):
    """A model behind an endpoint that answers, or has gone; it notes which threads asked it."""

    def __init__(self) -> None:
        super().__init__(Endpoint("http://127.0.0.1:9"), "none")
        self.threads: set[str] = set()

    def can_score(self) -> bool:
        return False

    def answers(
        self, pairs: Sequence[Pair], writing: Writing | None = None
    ) -> list[list[Candidate]]:
        self.threads.add(threading.current_thread().name)
        if "exam" in pairs[0].question:
            raise RemoteError("the service has gone", hint="ask later")
        return [[Candidate("25.50", -0.5)] for _ in pairs]


def test_a_model_elsewhere_is_asked_by_the_lookers(store: Store) -> None:
    generator = Elsewhere()
    with opened(Rag.of(generator), store, concurrent=3) as desk:
        assert len(desk._threads) == 4
        good, bad = desk.submit("the card"), desk.submit("the exam")
        with pytest.raises(RemoteError, match="the service has gone"):
            list(bad.pieces())
        assert answer_of(good).text == "25.50"
    assert generator.threads == {"desk-looker"}
