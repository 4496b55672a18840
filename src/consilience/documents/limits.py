"""How much one file may cost before its reader is stopped.

Only numbers live here. What enforces them is `confinement` (inside the child process), `sandbox`
(the clock outside it) and `builder` (the length of the text).
"""

from dataclasses import dataclass, fields

from consilience.errors import UsageError

MEGABYTE = 1024 * 1024
LEAST_MEMORY = 128 * MEGABYTE
"""The interpreter and the largest parsing library together take about 75 MB of address space."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The most that reading one file may take.

    Attributes:
        memory_bytes: Address space of the child process, in bytes; at least 128 MB.
        cpu_seconds: Processor time spent on the file, in whole seconds.
        wall_seconds: Time on the clock spent on the file, in seconds.
        file_bytes: Size of the file, in bytes; a larger file is refused before it is opened.
        text_chars: Length of the text of one document, in code points.

    Raises:
        UsageError: A limit below one, or less memory than a reader needs to start.
    """

    memory_bytes: int = 512 * MEGABYTE
    cpu_seconds: int = 20
    wall_seconds: int = 60
    file_bytes: int = 200 * MEGABYTE
    text_chars: int = 20_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = LEAST_MEMORY if field.name == "memory_bytes" else 1
            if value < least:
                raise UsageError(
                    f"the limit {field.name} is {value}", hint=f"set it to {least} or more"
                )


DEFAULT_LIMITS = ReadLimits()
"""What a file may cost where nobody says otherwise."""


def megabytes(size: int) -> str:
    """A size in bytes as people read it, in whole megabytes where it is large enough."""
    return f"{size // MEGABYTE} MB" if size >= MEGABYTE else f"{size} bytes"
