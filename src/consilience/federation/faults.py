"""What a party tells of an error: enough to mend it, and nothing of its documents.

A traceback that leaves a party has files, line numbers and names of functions, never source or
values. The text of an error leaves only where nobody's text can be in it: raised by a module that
knows settings and messages alone, and naming no place of the party's disk; or standing in the code
word for word. Of any other error the kind leaves; the whole of it is in the party's own log.
"""

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import consilience
from consilience.errors import ConsilienceError

OWN_LOG = "the party's own log says more"

_SPEAKING = (
    "consilience.federation.config",
    "consilience.federation.consent",
    "consilience.federation.contracts",
    "consilience.federation.exchange",
    "consilience.federation.messages",
    "consilience.federation.parcels",
    "consilience.federation.party",
    "consilience.federation.payload",
    "consilience.federation.recipe",
    "consilience.federation.privacy.accounting",
    "consilience.federation.privacy.ledger",
    "consilience.federation.secure",
    "consilience.federation.terms",
    "consilience.federation.travelling",
    "consilience.training.config",
    "consilience.training.settings",
)
"""Modules that never see a question or a passage."""

_A_PLACE = re.compile(r"[/\\]|\.(json|jsonl|key|lock|safetensors|yaml)\b")
"""What a path has and a sentence has not; names of weights with a slash stay behind with it."""

_PLACES = (
    Path(consilience.__file__).parent.parent,
    Path(sysconfig.get_path("purelib")),
    Path(sysconfig.get_path("stdlib")),
)


def message_of(error: BaseException) -> str:
    """What may be said of an error to others."""
    if not isinstance(error, ConsilienceError):
        return f"{type(error).__name__}; {OWN_LOG}"
    said = [text for text in (error.message, error.hint) if text and _may_leave(text, error)]
    if not said or said[0] is not error.message:
        said.insert(0, f"an error of the kind {error.kind}")
        said.append(OWN_LOG)
    return "; ".join(said)


def trace_of(error: BaseException) -> str:
    """The way to an error, from its first cause: types, files, lines and functions."""
    lines: list[str] = []
    for one in reversed(list(_chain(error))):
        lines.append(type(one).__name__)
        lines += [
            f"  {_place(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(one.__traceback__)
        ]
    return "\n".join(lines)


def whole_of(error: BaseException) -> str:
    """All that Python says of an error; it stays with the party."""
    return "".join(traceback.format_exception(error))


def _may_leave(text: str, error: BaseException) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    raised = frames[-1][0]
    module = str(raised.f_globals.get("__name__", ""))
    speaking = any(module == one or module.startswith(f"{one}.") for one in _SPEAKING)
    return (speaking and not _A_PLACE.search(text)) or _stands_in(text, raised.f_code)


def _stands_in(text: str, code: CodeType) -> bool:
    """Whether a text is a constant of this code, so that no value can be in it."""
    return any(isinstance(one, str) and one == text for one in code.co_consts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _place(file: str) -> str:
    """A file as seen from the folder that it was installed in; no folders of this machine."""
    for place in _PLACES:
        if Path(file).is_relative_to(place):
            return Path(file).relative_to(place).as_posix()
    return Path(file).name
