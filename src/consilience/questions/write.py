"""Questions as JSON lines: the one format that this package writes.

What is empty is left out, but the language never is: one that is missing would be guessed when the
file is read again.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from consilience.questions.question import Question

_NAMES = tuple(field.name for field in fields(Question))


def write_questions(path: str | Path, questions: Iterable[Question]) -> int:
    """Write questions so that `read_questions` gives them back; how many there were.

    The file appears whole or not at all: a crash leaves what stood there before.

    Args:
        path: Where to; what is there is replaced.
        questions: Any number, taken one by one.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        count = _write(part, questions)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write(path: Path, questions: Iterable[Question]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for question in questions:
            file.write(json.dumps(record_of(question), ensure_ascii=False) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def record_of(question: Question) -> dict[str, object]:
    """A question as the object of one line."""
    values = asdict(question)
    return {name: values[name] for name in _NAMES if values[name] or name == "language"}
