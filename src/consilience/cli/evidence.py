"""An answer on the screen: its words, the passages it rests on, and how much rests on each.

Draws what `consilience.model.Answer` says and computes nothing of it: the bars are the posterior,
the marked words are the quotes, the places are those of the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from consilience.cli.screen import Part, Screen, assembled, one_line, safe

if TYPE_CHECKING:
    from consilience.documents import Passage
    from consilience.model import Answer, Citation
    from consilience.retrieval.engines import Copy
    from consilience.store import Store
    from consilience.text import Span

CONTEXT = 120
"""Characters of a sentence that are shown on either side of what is quoted from it."""

EXCERPT = 200
"""Characters of a passage that are shown where nothing is quoted from it."""

MOST_PLACES = 4
"""Stretches of a source that are named, of an answer that was pieced together from more."""

QUOTED = "bold underline"
_INDENT = 5


def passages_of(answer: "Answer", store: "Store | Copy") -> dict[str, "Passage"]:
    """The passages that were summed over, by id, as they were ranked.

    One that has been removed from the store in the meantime is left out.
    """
    from consilience.errors import MissingError

    found = {citation.passage.id: citation.passage for citation in answer.citations}
    for name in answer.posterior:
        if name not in found:
            try:
                found[name] = store.passage(name)
            except MissingError:
                continue
    return {name: found[name] for name in answer.posterior if name in found}


def draw(
    answer: "Answer", passages: Mapping[str, "Passage"], screen: Screen, *, explain: bool = False
) -> None:
    """Print an answer with its evidence.

    Args:
        answer: What is shown.
        passages: Of `passages_of`.
        screen: Where to.
        explain: Whether to show where each token comes from.
    """
    if answer.abstained:
        _draw_abstention(passages, screen)
    else:
        _draw_answer(answer, passages, screen)
        if explain and passages:
            _draw_tokens(answer, _by_share(answer, passages), screen)
    screen.line()
    screen.line((_summary(answer, screen), "dim"))


def place_of(passage: "Passage") -> str:
    """Where a passage is: `source`, or `source:page` where there are pages."""
    page = "" if passage.page is None else f":{passage.page}"
    return f"{one_line(passage.source)}{page}"


def _draw_answer(answer: "Answer", passages: Mapping[str, "Passage"], screen: Screen) -> None:
    screen.line((one_line(answer.text), "bold green"))
    screen.heading(screen.words.sources)
    cited = {citation.passage.id: citation for citation in answer.citations}
    for number, name in enumerate(_by_share(answer, passages), start=1):
        share = answer.posterior[name]
        screen.line(
            (f"{number:>2} ", "dim"),
            (screen.bar(share), "cyan"),
            f" {share:>4.0%}  ",
            place_of(passages[name]),
            (_characters(cited[name], screen) if name in cited else "", "dim"),
        )
        if name in cited:
            _draw_quote(cited[name], screen)


def _draw_abstention(passages: Mapping[str, "Passage"], screen: Screen) -> None:
    screen.line((screen.words.not_in_documents, "bold yellow"))
    if not passages:
        return
    screen.heading(screen.words.nearest)
    for number, passage in enumerate(passages.values(), start=1):
        screen.line((f"{number:>2} ", "dim"), place_of(passage))
        draw_excerpt(passage, screen)


def draw_excerpt(passage: "Passage", screen: Screen) -> None:
    """Print the beginning of a passage, indented below what names it."""
    _draw_indented([_excerpt(passage)], screen)


def marked(text: str, screen: Screen) -> tuple[str, str]:
    """Safe text, set off from the text around it: by style, or by stars where there is none."""
    return (text if screen.out.color_system else f"**{text}**"), QUOTED


def _excerpt(passage: "Passage") -> str:
    cut = " …" if len(passage.text) > EXCERPT else ""
    return f"{one_line(passage.text[:EXCERPT])}{cut}"


def _draw_quote(citation: "Citation", screen: Screen) -> None:
    pieces = quoted_sentences(citation)
    _draw_indented([marked(text, screen) if quoted else text for text, quoted in pieces], screen)


def _draw_indented(parts: Sequence[Part], screen: Screen) -> None:
    from rich.padding import Padding

    screen.out.print(Padding(assembled(*parts), (0, 0, 0, _INDENT), expand=False))


def _characters(citation: "Citation", screen: Screen) -> str:
    """Which characters of the source are quoted, counted from 0, the end not included."""
    places = dict.fromkeys(f"{quote.start}–{quote.end}" for quote in citation.quotes)
    shown = [*places][:MOST_PLACES] + ["…"] * (len(places) > MOST_PLACES)
    return f"  {screen.words.characters.format(places=', '.join(shown))}" if shown else ""


def quoted_sentences(citation: "Citation") -> list[tuple[str, bool]]:
    """The sentences of a passage that are quoted, in pieces, each with whether it is a quote.

    Where nothing is quoted, the beginning of the passage. All pieces are safe for a terminal.
    """
    text, marks = citation.passage.text, sorted(_marks(citation))
    sentences = [list(_pieces(text, span, marks)) for span in _sentences(text, marks)]
    for earlier in sentences[:-1]:
        earlier.append((" ", False))
    whole = [piece for sentence in sentences for piece in sentence]
    return whole or [(_excerpt(citation.passage), False)]


Marks = Sequence[tuple[int, int]]
"""Half-open stretches of a passage's text, ascending."""


def _marks(citation: "Citation") -> Iterator[tuple[int, int]]:
    offset = citation.passage.start
    for quote in citation.quotes:
        if quote.start < quote.end:
            yield quote.start - offset, quote.end - offset


def _sentences(text: str, marks: Marks) -> list["Span"]:
    from consilience.text import split_sentences

    return [
        span
        for span in split_sentences(text)
        if any(start < span.end and span.start < end for start, end in marks)
    ]


def _pieces(text: str, span: "Span", marks: Marks) -> Iterator[tuple[str, bool]]:
    inside = [(max(a, span.start), min(b, span.end)) for a, b in marks]
    inside = [(start, end) for start, end in inside if start < end]
    first = max(span.start, inside[0][0] - CONTEXT)
    last = min(span.end, inside[-1][1] + CONTEXT)
    cuts = sorted({first, last, *(cut for mark in inside for cut in mark)})
    if first > span.start:
        yield "… ", False
    for start, end in pairwise(cuts):
        quoted = any(a <= start and end <= b for a, b in inside)
        yield _shown(text[start:end]), quoted
    if last < span.end:
        yield " …", False


def _shown(text: str) -> str:
    """Text for a terminal, line breaks as spaces, and the spaces at its ends kept."""
    return safe(text.replace("\n", " ").replace("\t", " "))


def _by_share(answer: "Answer", passages: Mapping[str, "Passage"]) -> list[str]:
    """Ids of passages, the largest share of the answer first."""
    return sorted(passages, key=lambda name: -answer.posterior[name])


def _draw_tokens(answer: "Answer", order: Sequence[str], screen: Screen) -> None:
    """Each token with the number of its best passage in the list above."""
    screen.heading(screen.words.tokens)
    for token in answer.tokens:
        best = max(order, key=lambda name: token.posterior.get(name, 0.0))
        share = token.posterior.get(best, 0.0)
        screen.line(
            (f"{order.index(best) + 1:>2} ", "dim"),
            (screen.bar(share), "cyan"),
            f" {share:>4.0%}  ",
            one_line(token.text),
        )


def _summary(answer: "Answer", screen: Screen) -> str:
    took = answer.timings_ms
    find, whole = took.get("retrieve", 0.0), took.get("total", 0.0)
    parts = (
        screen.words.confidence.format(confidence=answer.confidence),
        screen.words.timings.format(retrieve=find, write=whole - find),
    )
    return " · ".join(parts)
