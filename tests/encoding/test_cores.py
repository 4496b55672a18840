import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from consilience.encoding import cores
from consilience.encoding.cores import on_all_cores, one_core

SECONDS = 30


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 2)


def test_pieces_are_worked_on_at_the_same_time_and_come_back_in_order() -> None:
    both = threading.Barrier(2)

    def work(piece: int) -> int:
        both.wait(SECONDS)
        return piece * piece

    assert on_all_cores(work, [3, 1, 4, 1]) == [9, 1, 16, 1]


def test_each_piece_has_one_core_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    assert on_all_cores(lambda _: torch.get_num_threads(), [0, 1, 2]) == [1, 1, 1]
    assert torch.get_num_threads() == before


def test_a_thread_on_one_core_spreads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with one_core():
        assert torch.get_num_threads() == 1
        found = on_all_cores(lambda _: threading.current_thread(), [0, 1])
    assert found == [threading.current_thread()] * 2


@pytest.mark.parametrize("inferring", [True, False])
def test_inference_mode_is_that_of_the_caller(inferring: bool) -> None:
    with torch.inference_mode(inferring):
        found = on_all_cores(lambda _: torch.is_inference_mode_enabled(), [0, 1])
    assert found == [inferring] * 2


def test_the_first_piece_that_fails_is_heard_once_all_have_ended() -> None:
    ended = threading.Event()
    failed = threading.Event()

    def work(piece: int) -> None:
        if piece:
            assert failed.wait(SECONDS)
            ended.set()
        failed.set()
        raise ValueError(piece)

    with pytest.raises(ValueError, match="0"):
        on_all_cores(work, [0, 1])
    assert ended.is_set()


def test_a_thread_that_outlives_the_pool_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = ThreadPoolExecutor(2)
    ended.shutdown()
    monkeypatch.setattr(cores, "_pool", lambda _: ended)
    assert on_all_cores(abs, [-1, -2]) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_process_has_threads_of_its_own() -> None:
    on_all_cores(abs, [-1, -2])
    threads = cores._pool(2)
    child = os.fork()
    if not child:
        os._exit(0 if cores._pool(2) is not threads else 1)
    assert os.waitpid(child, 0)[1] == 0
