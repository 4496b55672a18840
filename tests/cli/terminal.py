"""The command line as its callers have it: in this process, in a new one, on a terminal."""

import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consilience.cli.main import run

PROGRAM = "import sys; from consilience.cli.main import run; sys.exit(run())"
PATIENCE = 60.0
"""Seconds after which a test on a terminal gives up."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document on one line and nothing else."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


def consilience(*words: object) -> Outcome:
    """Run a command in this process, its streams being files in UTF-8."""
    out, err = io.BytesIO(), io.BytesIO()
    with (
        redirect_stdout(io.TextIOWrapper(out, encoding="utf-8")) as stdout,
        redirect_stderr(io.TextIOWrapper(err, encoding="utf-8")) as stderr,
    ):
        code = run([str(word) for word in words])
        stdout.flush()
        stderr.flush()
    return Outcome(code, out.getvalue().decode(), err.getvalue().decode())


def spawn(*words: object, program: str = PROGRAM, **extra: str) -> Outcome:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        env={**os.environ, **extra},
        timeout=PATIENCE,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


class Typist:
    """A process on a pseudo-terminal, and someone who types and reads there."""

    def __init__(self, words: Sequence[object], *, cwd: Path) -> None:
        self._own, theirs = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        os.close(theirs)
        self._unread = b""

    def read_until(self, wanted: str) -> str:
        """Everything new on the screen up to and with `wanted`."""
        deadline = time.monotonic() + PATIENCE
        end = wanted.encode()
        while end not in self._unread:
            ready, _, _ = select.select([self._own], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} did not appear in {self._unread!r}"
            self._unread += self._read()
        seen, _, self._unread = self._unread.partition(end)
        return (seen + end).decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._own, 4096)
        except OSError as error:  # the other end is closed
            raise AssertionError(f"the process ended after {self._unread!r}") from error

    def type(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def leave(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            os.close(self._own)
