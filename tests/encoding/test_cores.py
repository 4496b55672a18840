import threading

import pytest
import torch

from consilience.encoding.cores import one_core


@pytest.fixture(autouse=True)
def two_threads() -> "object":
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_calling_thread_has_one_core_and_gets_its_own_number_back() -> None:
    with one_core():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_other_threads_keep_theirs() -> None:
    found: list[int] = []
    with one_core():
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join(30)
    assert found == [2]
