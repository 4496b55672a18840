"""Records and answers put together by hand, for tests that need no model."""

from collections.abc import Mapping
from typing import Any

from consilience.documents import Passage
from consilience.evaluation.overlap import BleuCounts
from consilience.evaluation.records import Reading, Record
from consilience.model import Answer, Citation


def passage(name: str, text: str, source: str = "") -> Passage:
    return Passage(name, text, "", source or f"{name}.md", None, 0, len(text))


def answer(text: str, *cited: Passage, read: tuple[Passage, ...] = (), **rest: Any) -> Answer:
    """An answer whose citations and other passages share it equally."""
    passages = dict.fromkeys([*(one.id for one in cited), *(one.id for one in read)])
    share = 1 / max(1, len(passages))
    return Answer(
        text,
        abstained=not text,
        confidence=rest.pop("confidence", 0.5),
        citations=tuple(Citation(one, share) for one in cited),
        posterior=dict.fromkeys(passages, share),
        **rest,
    )


def record(name: str, values: Mapping[str, float], **rest: Any) -> Record:
    """A record with these measures; whatever else is left out is plain."""
    plain: dict[str, Any] = {
        "question": f"What is {name}?",
        "answers": ("right",),
        "label": "",
        "language": "en",
        "unanswerable": False,
        "answer": "an answer",
        "abstained": False,
        "confidence": 0.5,
        "readings": (Reading("p1", "a.md", "A", "Text of a.", 0.75, True, "answer"),),
        "gold_ranks": (2,),
        "gold_total": 1,
        "bleu": BleuCounts((2, 1, 0, 0), (3, 2, 1, 0), 3, 4),
        "timings_ms": {"read": 2.0},
    }
    return Record(id=name, values=values, **{**plain, **rest})
