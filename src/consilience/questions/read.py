"""From a file to questions: which format it is, and every bad line at once.

UTF-8, with or without gzip, told by its first bytes. A bad line does not end the reading: all are
looked at, and the error names the first ten, so that a file is put right in one go.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from consilience.errors import DocumentError, MissingError
from consilience.questions.context import Context
from consilience.questions.fields import Fields, shown, unreadable
from consilience.questions.formats import FORMATS, Format, recognised
from consilience.questions.open_sets import contexts_with
from consilience.questions.question import Question

Item = TypeVar("Item")

_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"
_SHAPE = (
    'one JSON object per line, such as {"question": "…", "answers": ["…"]}, '
    "or a file of SQuAD, CMRC 2018, DRCD, DPR or KILT"
)


def read_questions(path: str | Path, *, faults: list[str] | None = None) -> list[Question]:
    """The questions of a file, whichever of the known formats it is in.

    JSON lines with the keys of `Question`, SQuAD 1.1 and 2.0, CMRC 2018, DRCD, DPR and KILT are
    told apart by what they hold. A question without a language gets that of its characters.

    Args:
        path: A file in UTF-8, or one of gzip that holds it.
        faults: Where to note what is wrong and go on without; by default it is an error.

    Raises:
        MissingError: There is no such file.
        DocumentError: Lines that are not questions, each with its number, its key and what was
            received; or a file without a single question.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "questions.jsonl"
        >>> _ = path.write_text('{"question": "Who may apply?", "answers": ["staff"]}', "utf-8")
        >>> read_questions(path)[0].answers
        ('staff',)
    """
    return _read(Path(path), lambda form, item: form.question(item), faults)


def read_contexts(path: str | Path) -> list[Context]:
    """Every passage that a file of questions holds, once, in its order.

    For DPR these are the positive and the negative passages under the ids that `read_questions`
    puts into `positive_ids` and `negative_ids`; elsewhere the contexts of the questions, under
    `context_id`.

    Raises:
        MissingError: There is no such file.
        DocumentError: As `read_questions`.
    """
    found: dict[str, Context] = {}
    for contexts in _read(Path(path), lambda _, item: contexts_with(item), None):
        for context in contexts:
            found.setdefault(context.id, context)
    return list(found.values())


def _read(
    path: Path, take: Callable[[Format, Fields], Item], noted: list[str] | None
) -> list[Item]:
    """What `take` makes of every question's object."""
    faults: list[str] = []
    found: list[Item] = []
    for form, item in _items(_content(path), faults):
        try:
            found.append(take(form, item))
        except DocumentError as error:
            faults.append(error.message)
    if faults and noted is None:
        raise unreadable(path.name, faults, hint=_SHAPE)
    if not found:
        raise DocumentError(f"{path.name}: holds no question", hint=_SHAPE)
    if noted is not None:
        noted += faults
    return found


def _items(data: bytes, faults: list[str]) -> Iterator[tuple[Format, Fields]]:
    """The object of every question with the format of the file; what fails is noted."""
    form: Format | None = None
    for top in _objects(data, faults):
        form = form or FORMATS[recognised(top.values)]
        try:
            for item in form.items(top):
                yield form, item
        except DocumentError as error:
            faults.append(error.message)


def _objects(data: bytes, faults: list[str]) -> Iterator[Fields]:
    for place, value in _values(data, faults):
        if isinstance(value, dict):
            yield Fields(place, value)
        else:
            faults.append(f"{place}: expected an object, received {shown(value)}")


def _values(data: bytes, faults: list[str]) -> Iterator[tuple[str, object]]:
    """Each JSON value with its place: those of a list, or of every line."""
    if _is_one_value(data):
        try:
            whole = _parsed(data)
        except DocumentError as error:
            faults.append(f"the file: {error.message}")
            return
        for number, value in enumerate(whole if isinstance(whole, list) else [whole], start=1):
            yield f"record {number}", value
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", _parsed(line)
            except DocumentError as error:
                faults.append(f"line {number}: {error.message}")


def _is_one_value(data: bytes) -> bool:
    """Whether the file is one JSON value over several lines, or a list."""
    first = data.lstrip().split(b"\n", 1)[0].strip()
    begins_only = first.startswith(b"{") and not first.endswith(b"}")
    return first.startswith(b"[") or (begins_only and b'\n{"' not in data)


def _parsed(written: bytes) -> object:
    try:
        return json.loads(written.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 (byte 0x{written[error.start]:02x})") from error
    except RecursionError:
        raise DocumentError("nested too deep") from None
    except ValueError as error:
        raise DocumentError(f"not JSON ({error})") from error


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise MissingError(
            f"there is no file of questions at {path}",
            hint="Give the path of a file; what is there: ls " + str(path.parent),
        )
    data = path.read_bytes()
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, ValueError) as error:
            raise DocumentError(f"{path.name}: damaged gzip ({error})") from error
    return data.removeprefix(_MARK)
