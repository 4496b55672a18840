"""The page: what stands on it in which order, its style, its one script, and the file.

It fetches nothing: no font, no style sheet, no picture, no script. A content security policy says
so to the browser too, and lets only the script run whose digest it names.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from consilience.errors import UsageError
from consilience.evaluation.report import figures
from consilience.evaluation.report.browser import browser
from consilience.evaluation.report.markup import Markup, element, joined, scrolled
from consilience.evaluation.report.style import SCRIPT, STYLE
from consilience.evaluation.report.words import WORDS, Language, Words

if TYPE_CHECKING:
    from consilience.evaluation.running import Evaluation

FILE = "index.html"
_TAGS = {"en": "en", "zh": "zh-Hans"}


def write_report(
    evaluation: "Evaluation", folder: str | Path, *, language: Language = "en", name: str = ""
) -> Path:
    """Write the report of an evaluation as one file that needs nothing else.

    Args:
        evaluation: What is shown.
        folder: Where `index.html` goes; made if it is missing.
        language: Of the page.
        name: What was evaluated, for the heading.

    Returns:
        The file.

    Raises:
        UsageError: The folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"{folder} is a file; a report needs a folder", hint="name a folder with --report"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    page = rendered(evaluation, language=language, name=name)
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def rendered(evaluation: "Evaluation", *, language: Language, name: str = "") -> str:
    """The page as text; arguments as `write_report`."""
    words = WORDS[language]
    title = f"{words.title} · {name}" if name else words.title
    head = element("head", element("meta", charset="utf-8"), _policy(), _viewport(), _style(title))
    body = element("body", element("main", *_content(evaluation, words, title)), _script())
    return f"<!doctype html>\n{element('html', head, body, lang=_TAGS[language])}\n"


def _content(evaluation: "Evaluation", words: Words, title: str) -> list[Markup]:
    records = evaluation.records
    plots = (
        figures.retrieval(records, words),
        figures.risk(records, words),
        figures.calibration(records, words),
        figures.lengths(records, words),
        figures.timings(evaluation, words),
    )
    return [
        element("h1", title),
        element("p", _summary(evaluation, words), class_="summary"),
        figures.metric_table(evaluation, words),
        element("div", *plots, class_="plots"),
        browser(records, words),
        _setup(evaluation, words),
    ]


def _summary(evaluation: "Evaluation", words: Words) -> str:
    records = evaluation.records
    return words.summary.format(
        n=len(records),
        answered=sum(not one.abstained for one in records),
        right=sum(one.correct for one in records),
    )


def _setup(evaluation: "Evaluation", words: Words) -> Markup:
    text = json.dumps(evaluation.setup, ensure_ascii=False, indent=2)
    told = scrolled(element("pre", text), words.setup)
    return element("details", element("summary", words.setup), told)


def _policy() -> Markup:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    rules = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    return element("meta", http_equiv="Content-Security-Policy", content=rules)


def _viewport() -> Markup:
    return joined(
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
    )


def _style(title: str) -> Markup:
    return joined(element("title", title), Markup(f"<style>{STYLE}</style>"))


def _script() -> Markup:
    return Markup(f"<script>{SCRIPT}</script>")
