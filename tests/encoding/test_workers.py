"""Encoders in several processes: same vectors, and what happens when a process dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from consilience.encoding import Vectors
from consilience.encoding.workers import CHUNK, WorkerEncoder
from consilience.errors import ConsilienceError, MissingError, UsageError
from tests.processes import require_end

TEXTS = [f"text {number}" for number in range(3 * CHUNK + 5)]


class Counting:
    """Vectors that tell the text, its side, and how many texts came with it."""

    fingerprint = "counting-0001"
    dimension = 4

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        return self._encode(passages, 0.0)

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        return self._encode(questions, 1.0)

    def _encode(self, texts: Sequence[str], side: float) -> Vectors:
        rows = [(float(text.split()[1]), len(texts), side, 0.0) for text in texts]
        return np.array(rows, np.float32)


class Dying(Counting):
    """Kills its process over one of the texts, as often as there are files left in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _encode(self, texts: Sequence[str], side: float) -> Vectors:
        lives = sorted(self._folder.iterdir())
        if "text 70" in texts and lives:
            lives[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._encode(texts, side)


def missing() -> Counting:
    raise MissingError("no model in nowhere", hint="name another")


def telling(folder: Path) -> Counting:
    """Leaves its process's number and number of threads in a folder."""
    (folder / str(os.getpid())).write_text(os.environ["OMP_NUM_THREADS"])
    return Counting()


def test_the_rows_come_in_the_order_of_the_texts_in_whole_chunks() -> None:
    with WorkerEncoder(Counting, workers=2, threads=1) as encoder:
        passages = encoder.encode_passages(TEXTS)
        questions = encoder.encode_questions(TEXTS[:2])
        assert (encoder.fingerprint, encoder.dimension) == ("counting-0001", 4)
        assert encoder.encode_passages([]).shape == (0, 4)
    assert passages[:, 0].tolist() == list(range(len(TEXTS)))
    assert passages[:, 1].tolist() == [CHUNK] * (3 * CHUNK) + [5] * 5
    assert questions.tolist() == [[0, 2, 1, 0], [1, 2, 1, 0]]
    assert encoder.lost == 0


def test_work_of_a_process_that_dies_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    with WorkerEncoder(partial(Dying, tmp_path), workers=2, threads=1) as encoder:
        vectors = encoder.encode_passages(TEXTS)
    assert vectors[:, 0].tolist() == list(range(len(TEXTS)))
    assert encoder.lost == 2


def test_texts_over_which_every_process_dies_are_given_up(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    with (
        WorkerEncoder(partial(Dying, tmp_path), workers=1, threads=1) as encoder,
        pytest.raises(ConsilienceError) as error,
    ):
        encoder.encode_passages(TEXTS[:80])
    assert encoder.lost == 4
    assert error.value.message == "the processes that embed died 4 times over the same texts"
    assert error.value.hint == "They may need more memory than there is: name fewer --workers."


def test_what_goes_wrong_in_a_process_is_told_as_what_it_is() -> None:
    with WorkerEncoder(missing, workers=1) as encoder, pytest.raises(MissingError) as error:
        encoder.encode_passages(["text 1"])
    assert (error.value.message, error.value.hint) == ("no model in nowhere", "name another")
    assert encoder.lost == 0


def test_processors_are_shared(tmp_path: Path) -> None:
    with WorkerEncoder(partial(telling, tmp_path), workers=1, threads=3) as encoder:
        encoder.encode_passages(TEXTS)
    (told,) = tmp_path.iterdir()
    assert told.read_text() == "3"


def test_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^workers must be at least 1, received 0$"):
        WorkerEncoder(Counting, workers=0)


def test_processes_end_with_the_one_that_made_them(tmp_path: Path) -> None:
    script = (
        "import functools, pathlib, time\n"
        "from tests.encoding.test_workers import telling\n"
        "from consilience.encoding.workers import WorkerEncoder\n"
        "if __name__ == '__main__':\n"
        f"    load = functools.partial(telling, pathlib.Path({str(tmp_path)!r}))\n"
        "    encoder = WorkerEncoder(load, workers=1)\n"
        "    encoder.encode_passages(['text 1'])\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    file = tmp_path.parent / "parent.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    (worker,) = (int(path.name) for path in tmp_path.iterdir())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    require_end(worker)
