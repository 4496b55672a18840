"""What a party shows of an answer that was chosen, as far as its file lets it.

    answer      the shares of its passages, and the answer as its own text spells it
    source      also where each passage comes from
    sentence    also the sentences in which the answer's words stand, and where

The spelling is checked by whoever asked: it must be the answer that was chosen, letter case and
traditional characters aside.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from consilience.documents import Passage
from consilience.federation.exchange import Evidence, Shown
from consilience.federation.part import Ids
from consilience.model.answer import Quote
from consilience.model.answering import Quotes, spelling
from consilience.model.reading import Reading
from consilience.retrieval import Hit
from consilience.text import split_sentences


def shown(
    hits: Sequence[Hit], reading: Reading, answer: Ids, shares: Tensor, *, tells: str
) -> Shown:
    """What is shown.

    Args:
        hits: The passages.
        reading: The same, read.
        answer: That was chosen.
        shares: p(d | x, y) among these passages, `[passages]`.
        tells: As `AskingSettings.tells`.
    """
    ids = [one for one in answer if one != reading.generator.end]
    quotes = Quotes(hits, reading, ids)
    evidence = tuple(
        _evidence(hit.passage, quotes[row] if tells == "sentence" else (), tells)
        for row, hit in enumerate(hits)
    )
    return Shown(shares.double(), _spelled(quotes, shares, len(ids)), evidence)


def _spelled(quotes: Quotes, shares: Tensor, length: int) -> tuple[int, str] | None:
    """By the passage with the largest share that has the answer's words."""
    for row in shares.argsort(descending=True).tolist():
        if text := spelling(quotes[row], length):
            return row, text
    return None


def _evidence(passage: Passage, quotes: Sequence[Quote], tells: str) -> Evidence:
    if tells not in ("source", "sentence"):
        return Evidence()
    text = " ".join(_sentences(passage, quotes)) or None
    return Evidence(passage.source, passage.title, passage.page, text, tuple(quotes))


def _sentences(passage: Passage, quotes: Sequence[Quote]) -> Iterator[str]:
    """Those in which a quote stands."""
    places = [(quote.start - passage.start, quote.end - passage.start) for quote in quotes]
    for span in split_sentences(passage.text):
        if any(start < span.end and span.start < end for start, end in places):
            yield passage.text[span.start : span.end].strip()
