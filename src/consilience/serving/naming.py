"""What an uploaded file may be called: its name is something to show, and never a place.

Files lie on disk under the digest of their bytes. The name that came with one is made plain here:
the folders before it are dropped, in whatever way they are written, and with them everything that
could be mistaken for a path; marks that turn the direction of writing go, as they make a name read
as another; characters that cannot be shown are refused.
"""

import re
import unicodedata

from consilience.errors import UsageError

LONGEST_NAME = 200
"""Characters of a name."""

_MARKS = re.compile(
    "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u200b\u2060-\u2064\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Marks of direction and others without width; the joiners stay, as scripts and emoji need them."""

_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})


def display_name(given: str) -> str:
    r"""The name under which an upload is known.

    Args:
        given: As the browser or the program sent it.

    Raises:
        UsageError: There is no name, it is too long, or it holds characters that are no text.

    Example:
        >>> display_name("C:\\reports\\..\\2026.pdf")
        '2026.pdf'
    """
    last = re.split(r"[/\\]", given)[-1]
    name = " ".join(_MARKS.sub("", _shown(last)).split())
    name = unicodedata.normalize("NFC", name)
    if name.strip(". ") == "":
        raise _refused("a file came without a name")
    if len(name) > LONGEST_NAME:
        raise _refused(f"the name of a file has {len(name)} characters, allowed are {LONGEST_NAME}")
    return name


def _shown(name: str) -> str:
    for place, character in enumerate(name, start=1):
        if unicodedata.category(character) in _REFUSED:
            raise _refused(
                f"the name of a file holds U+{ord(character):04X} at place {place}, "
                "which cannot be shown"
            )
    return name


def _refused(message: str) -> UsageError:
    return UsageError(message, hint="rename the file, and send it again")
