"""What was dear to find out, in a file that only grows: one JSON value a line.

A line is added when its value is known and is never written again, so that whoever is stopped, at
whatever moment, loses the line that he was writing and nothing else. What is left of that line is
cut off before the next one is added. What the values mean is not known here.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from consilience.errors import DamagedError, UsageError


class Lines:
    """The values of a file, and the way to add to it.

    Args:
        path: The file; it is made when there is something to add.
        mode: Who may read and write it, where it is made.
        durable: Whether a line has reached the disk when it was added.

    Attributes:
        path: The file.
        values: Those of the lines that were written to their end.

    Raises:
        DamagedError: One of these lines is not JSON.
    """

    def __init__(self, path: Path, *, mode: int = 0o666, durable: bool = False) -> None:
        self._opener, self._durable = partial(os.open, mode=mode), durable
        data = path.read_bytes() if path.is_file() else b""
        self.path, self._whole = path, data.rfind(b"\n") + 1
        # By the one byte that ends them: texts hold further characters that count as line ends.
        lines = data[: self._whole].split(b"\n")[:-1]
        self.values = [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]

    def add(self, value: Any) -> None:
        """Add a value; it is in the file when this returns.

        Raises:
            UsageError: The disk is full or may not be written to; the lines before stay.
        """
        # Answers may hold half characters, which are read back as they are.
        line = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
        try:
            with open(self.path, "ab", opener=self._opener) as file:
                file.truncate(self._whole)
                file.write(line)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(
                f"{self.path} could not be written: {error}",
                hint="make room on the disk and run the same command again; the lines before stay",
            ) from error
        self._whole += len(line)
        self.values.append(value)


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DamagedError(
            f"{path} line {number} is not JSON: {error}",
            hint="delete the file; what it held is asked for again",
        ) from error
