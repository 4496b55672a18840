"""Processes that are started here, and ended by their number: with their own children, at the end.

Each is the head of a session of its own, so that Ctrl-C at a terminal reaches whoever started it
first and it can be ended in order. It notices itself when its parent is killed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consilience.errors import DependencyError

_PATIENCE = 15.0  # seconds to end in order
_TAIL = 4000  # bytes of a log that are looked at
_SECRETIVE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}
_LOCAL = "127.0.0.1,localhost,::1"


def environment(home: Path, **more: str) -> dict[str, str]:
    """What Flower's processes are given: nothing of another Flower, nothing that calls home.

    Args:
        home: Folder that is Flower's own.
        more: Further variables.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    scripts = sysconfig.get_path("scripts")
    kept["PATH"] = os.pathsep.join([scripts, kept.get("PATH", os.defpath)])
    kept["NO_PROXY"] = kept["no_proxy"] = ",".join(filter(None, [_LOCAL, kept.get("NO_PROXY")]))
    return kept | _SECRETIVE | {"FLWR_HOME": str(home)} | more


def program(name: str) -> str:
    """The path of one of Flower's programs.

    Raises:
        DependencyError: It is not there.
    """
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise DependencyError(
            f"the program {name} is missing", hint="pip install 'consilience[federation]'"
        )
    return found


def module(name: str) -> list[str]:
    """The command that runs one of our own modules."""
    return [sys.executable, "-m", f"consilience.federation.flower.{name}"]


@dataclass(slots=True)
class Child:
    """A process, with what it said."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        told: Mapping[str, Any] | None = None,
    ) -> "Child":
        """Start it.

        Args:
            command: Program and arguments.
            environment: All its variables.
            log: What it says is written there.
            told: Its first line of standard input, in JSON.
        """
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if told is not None else file,
                stderr=file,
                start_new_session=True,
            )
        child = cls(process, log)
        if told is not None:
            child._tell(told)
        return child

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def answer(self) -> dict[str, Any] | None:
        """Its first line of standard output; None when it ended without one."""
        if self.process.stdout is None:
            return None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        return None

    def said(self) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL))
            return file.read().decode("utf-8", errors="replace")

    def stop(self) -> None:
        """End it and what it started; again does nothing."""
        self._ask_to_end()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._end_the_rest()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def kill(self) -> None:
        """End it and what it started at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.stop()

    def _tell(self, told: Mapping[str, Any]) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # it died at once; its log says why
                self.process.stdin.write(json.dumps(told).encode() + b"\n")
                self.process.stdin.flush()

    def _ask_to_end(self) -> None:
        if self.alive:
            self.process.terminate()

    def _end_the_rest(self) -> None:
        """Its own children notice that it has gone; those that do not are ended with its group."""
        ends = time.monotonic() + _PATIENCE
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < ends:
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)
            os.killpg(self.process.pid, signal.SIGKILL)
