"""The log: in order, nothing lost at the end, and nobody waits for whoever reads it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from consilience.serving.log import Log


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def numbers(texts: list[str]) -> list[int]:
    return [json.loads(line)["n"] for line in "".join(texts).splitlines()]


def test_lines_come_by_themselves_whole_and_in_order() -> None:
    texts: list[str] = []
    log = Log(texts.append, together=0.01)
    for n in range(300):
        log.line({"n": n})
        if n == 150:
            until(lambda: bool(texts))  # some were written before the rest is there
    until(lambda: len(numbers(texts)) == 300)
    assert numbers(texts) == list(range(300))
    assert 1 < len(texts) < 300  # those that came together were written together
    assert all(text.endswith("\n") for text in texts)


def test_a_reader_that_stands_still_holds_nobody_up_and_is_told_what_it_missed() -> None:
    stands, texts = threading.Event(), []

    def write(text: str) -> None:
        stands.wait(30)
        texts.append(text)

    log = Log(write, together=0.001, room=5)
    log.line({"n": 0})
    until(lambda: not log._waiting)  # in the hands of the writer, who waits
    for n in range(1, 9):
        log.line({"n": n})
    log.flush(patience=0.01)
    assert texts == []
    stands.set()
    until(lambda: len(texts) == 2)
    told = [json.loads(line) for line in "".join(texts).splitlines()]
    assert told == [*({"n": n} for n in range(6)), {"event": "dropped", "lines": 3}]


def test_a_reader_that_is_gone_is_no_mistake() -> None:
    texts: list[str] = []

    def write(text: str) -> None:
        texts.append(text)
        raise BrokenPipeError if len(texts) == 1 else ValueError

    log = Log(write, together=60)
    for n in range(2):
        log.line({"n": n})
        log.flush()
    assert numbers(texts) == [0, 1]


def test_threads_may_write_together() -> None:
    texts: list[str] = []
    log = Log(texts.append, together=0.001)
    threads = [
        threading.Thread(
            target=lambda start: [log.line({"n": start + n}) for n in range(200)],
            args=(1000 * place,),
        )
        for place in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(numbers(texts)) == 1600)
    assert sorted(numbers(texts)) == [1000 * place + n for place in range(8) for n in range(200)]


def test_the_end_of_the_process_writes_what_waits() -> None:
    program = (
        "from consilience.serving.log import Log\n"
        "log = Log(together=60)\n"
        "for n in range(3): log.line({'n': n})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert numbers([done.stderr]) == [0, 1, 2]
