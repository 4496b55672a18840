"""Cleaning of text that a parser took out of a layout, and the joining of its wrapped lines.

Only extracted text comes through here (pdf, docx, pptx, html, cells of tables). Text that a file
holds verbatim (txt, md) is never touched, so that its offsets stay the offsets of the file.
"""

import re

_LINE_END = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f\u00ad\ufeff\ufffe\uffff\ud800-\udfff]")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_CJK = re.compile(
    r"[\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff65\U00020000-\U0003ffff]"
)
_HAN = "[\u3400-\u4dbf\u4e00-\u9fff]"
_SPACED = re.compile(f"{_HAN} [A-Za-z0-9]|[A-Za-z0-9] {_HAN}")
_TIGHT = re.compile(f"{_HAN}[A-Za-z0-9]|[A-Za-z0-9]{_HAN}")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
HYPHEN_MARK = "\x02"
"""What PDFium puts for a hyphen at a line end, in place of the line end as well."""

_HYPHENS = ("-", "\u2010", "\u00ad", HYPHEN_MARK)


def clean(text: str) -> str:
    """Text with one kind of line end, no invisible control characters and no run of blank lines.

    CR, CRLF, form feeds and Unicode line separators become LF; NUL and other control characters,
    soft hyphens, byte order marks and lone surrogates are removed; blanks at line ends go; two or
    more blank lines become one. Idempotent.
    """
    if text.isprintable():  # nothing to do but at the end, as with most cells and lines
        return text.rstrip()
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text))


def one_line(text: str) -> str:
    """`text` cleaned, on one line, with every run of white space made one blank."""
    return " ".join(clean(text).split())


def storable(text: str) -> str:
    """Verbatim text whose NUL and lone surrogates, which UTF-8 stores refuse, became U+FFFD.

    One code point stands for one, so every offset stays what it was.
    """
    return _UNSTORABLE.sub("\ufffd", text)


def is_cjk(character: str) -> bool:
    """Whether a character is Han, kana or full-width punctuation, written without blanks."""
    return _CJK.match(character) is not None


def joint(left: str, right: str, *, around: str = "") -> str:
    """What belongs between two pieces of one sentence: nothing between Han, else one blank.

    Where Han meets Latin letters or digits, both are in use. `around`, some text by the same hand,
    shows which; without it, nothing stands between.
    """
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return ""
    match is_cjk(left[-1]), is_cjk(right[0]):
        case False, False:
            return " "
        case True, True:
            return ""
    return " " if len(_SPACED.findall(around)) > len(_TIGHT.findall(around)) else ""


def join_wrapped(left: str, right: str, *, around: str = "") -> str:
    """Two lines of one paragraph as one, with a word divided at the line end made whole.

    Args:
        left: The paragraph so far.
        right: The line that goes on.
        around: Text of the page, which shows its habits: a hyphenated word that also stands there
            undivided, as in "long-term", keeps its hyphen.
    """
    if not _is_divided(left, right):
        return left + joint(left, right, around=around) + right
    head, tail = _last_word(left[:-1]), _first_word(right)
    whole = tail[0].islower() and "-" not in head and f"{head}-{tail}" not in around
    return left[:-1] + ("" if whole else "-") + right


def _is_divided(left: str, right: str) -> bool:
    """Whether a hyphen stands between the two as inside a word: `pub-lish`, `B-2`, `3-4`."""
    return (
        len(left) > 1
        and left[-1] in _HYPHENS
        and left[-2].isalnum()
        and not is_cjk(left[-2])
        and right[:1].isalnum()
        and not is_cjk(right[0])
    )


def _last_word(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1] if text.strip() else ""


def _first_word(text: str) -> str:
    match = re.match(r"\w+", text)
    return match.group() if match else ""
