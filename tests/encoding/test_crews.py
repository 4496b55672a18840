"""Handing out, on workers that die when they are told to; no process and no network."""

from collections.abc import Callable, Hashable, Sequence

import pytest

from consilience.encoding.crews import AHEAD, ATTEMPTS, Batch, LostError, Team
from consilience.errors import BusyError, ConsilienceError, MissingError

Answer = Callable[[int, Batch], object]


class Here:
    """A crew whose workers do what `answer` says, the last ticket first."""

    def __init__(self, answer: Answer, *, starts: Callable[[int], bool] = lambda _: True) -> None:
        self.answer, self.starts = answer, starts
        self.alive: set[int] = set()
        self.tickets: dict[Hashable, tuple[int, Batch | None]] = {}
        self.most: dict[int, int] = {}
        self.hired: list[int] = []

    def hire(self, number: int) -> Hashable:
        self.alive.add(number)
        self.hired.append(number)
        return self._ticket(number, None)

    def give(self, number: int, batch: Batch) -> Hashable:
        assert number in self.alive
        ticket = self._ticket(number, batch)
        at = sum(n == number and b is not None for n, b in self.tickets.values())
        self.most[number] = max(self.most.get(number, 0), at)
        return ticket

    def _ticket(self, number: int, batch: Batch | None) -> Hashable:
        ticket = (number, len(self.tickets), tuple(batch[1]) if batch else None, len(self.hired))
        self.tickets[ticket] = number, batch
        return ticket

    def first(self, tickets: Sequence[Hashable], *, patience: float | None) -> Hashable | None:
        able = [one for one in tickets if self.tickets[one][1] or self.starts(self.tickets[one][0])]
        if not able:
            assert patience is not None
            return None
        return able[-1]

    def result(self, ticket: Hashable) -> object:
        number, batch = self.tickets.pop(ticket)
        if number not in self.alive:
            raise LostError(f"on machine {number}")
        return None if batch is None else self.answer(number, batch)

    def dismiss(self, number: int) -> None:
        self.alive.remove(number)


def batches(count: int) -> list[Batch]:
    return [("passages", [f"text {number}"]) for number in range(count)]


def told(_: int, batch: Batch) -> object:
    return batch[1][0]


def test_results_come_in_the_order_of_the_batches() -> None:
    crew = Here(told)
    team = Team(crew, size=3)
    assert team.results(batches(20)) == [f"text {number}" for number in range(20)]
    assert crew.hired == [0, 1, 2]
    assert team.lost == 0


def test_no_worker_has_more_than_it_is_at_and_the_next() -> None:
    crew = Here(told)
    Team(crew, size=2).results(batches(30))
    assert set(crew.most.values()) == {AHEAD}


def test_workers_are_kept_from_call_to_call_and_no_more_than_there_is_work_for() -> None:
    crew = Here(told)
    team = Team(crew, size=4)
    team.results(batches(1))
    assert crew.hired == [0]
    team.results(batches(9))
    assert crew.hired == [0, 1, 2, 3]
    team.close()
    assert crew.alive == set()


def test_what_a_dead_worker_had_is_done_again_by_another() -> None:
    deaths = iter([True])

    def dying(number: int, batch: Batch) -> object:
        if batch[1][0] == "text 3" and next(deaths, False):
            raise LostError(f"on machine {number}")
        return batch[1][0]

    crew = Here(dying)
    team = Team(crew, size=1)
    assert team.results(batches(6)) == [f"text {number}" for number in range(6)]
    assert team.lost == 1
    assert crew.hired == [0, 1]
    assert crew.alive == {1}


def test_a_batch_that_kills_every_worker_is_given_up() -> None:
    def killing(number: int, batch: Batch) -> object:
        if batch[1][0] == "text 1":
            raise LostError(f"on machine {number}")
        return batch[1][0]

    crew = Here(killing)
    team = Team(crew, size=2)
    with pytest.raises(ConsilienceError) as error:
        team.results(batches(4))
    assert error.value.message.startswith(
        f"workers died {ATTEMPTS} times over the same 1 texts, the last on machine "
    )
    assert error.value.hint == "They may need more memory than there is: name fewer workers."
    assert team.lost == ATTEMPTS
    assert crew.alive == set()


def test_workers_that_never_start_are_given_up() -> None:
    crew = Here(told)
    crew.dismiss = lambda number: crew.alive.discard(number)  # type: ignore[method-assign]
    real = crew.hire

    def stillborn(number: int) -> Hashable:
        ticket = real(number)
        crew.alive.discard(number)
        return ticket

    crew.hire = stillborn  # type: ignore[method-assign]
    with pytest.raises(ConsilienceError) as error:
        Team(crew, size=2).results(batches(4))
    assert error.value.message.startswith(f"workers died {ATTEMPTS} times at their start, the last")
    assert error.value.hint == (
        "Every machine needs this version of consilience and room for the model."
    )
    assert len(crew.hired) <= ATTEMPTS + 1


def test_a_worker_that_is_slow_to_come_holds_nobody_up() -> None:
    crew = Here(told, starts=lambda number: number == 0)
    team = Team(crew, size=2)
    assert team.results(batches(5)) == [f"text {number}" for number in range(5)]
    assert set(crew.most) == {0}


def test_a_cluster_without_room_is_told() -> None:
    crew = Here(told, starts=lambda _: False)
    with pytest.raises(BusyError) as error:
        Team(crew, size=2, patience=7).results(batches(3))
    assert error.value.message == "no worker was ready within 7 seconds"
    assert "ray://HOST:PORT?actors=8" in error.value.hint
    assert crew.alive == set()


def test_what_a_worker_says_is_wrong_is_told_and_nothing_is_left_under_way() -> None:
    def missing(_: int, batch: Batch) -> object:
        if batch[1][0] == "text 2":
            raise MissingError("no model", hint="name another")
        return batch[1][0]

    crew = Here(missing)
    team = Team(crew, size=2)
    with pytest.raises(MissingError, match=r"^no model$"):
        team.results(batches(5))
    assert crew.alive == set()
    assert team.lost == 0
    crew.answer = told
    assert team.results(batches(2)) == ["text 0", "text 1"]
