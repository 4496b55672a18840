"""Documents and answers with known places and numbers, for the fake server."""

from typing import Any

from tests.web.fake import Step, cited, hit

VISITS = "Visiting hours\n\nOn weekdays visitors may stay until 21:30, on Sundays until 20:00.\n"
PARKING = "Parking costs two pounds an hour. Staff park for nothing.\n"
FAR = "𠀀𪚥👩‍⚕️ before. " * 400 + "病房探视到𠮷点半🕤为止，请勿久留。" + " after 𝒜𝒷." * 900
QUOTE = "𠮷点半🕤"
"""Characters that take two units in a browser, far from the beginning of their document."""

TEXTS = {"visits.md": VISITS, "hospital/parking.html": PARKING, "探视.txt": FAR}


def place_of(text: str, part: str) -> dict[str, Any]:
    """Where a part of a text stands, as a quote."""
    start = text.index(part)
    return {"start": start, "end": start + len(part), "text": part}


def hits() -> list[dict[str, Any]]:
    """Three passages, the best of the answer not the first that was found."""
    start = FAR.index("病房")
    end = FAR.index("久留") + 3
    far = hit("far", FAR[start:end], title="探视", source="探视.txt", start=start, end=end)
    parking = hit("parking", PARKING[:33], title="", source="hospital/parking.html")
    visits = hit("visits", VISITS[16:81], title="Visiting hours", source="visits.md", start=16)
    return [parking, {**visits, "end": 81}, far]


SHARES = {"visits": 0.86, "parking": 0.102, "far": 0.038}
TOKENS = [
    ("until", {"visits": 0.94, "parking": 0.04, "far": 0.02}),
    ("21", {"visits": 0.9, "parking": 0.06, "far": 0.04}),
    (":", {"visits": 0.2, "parking": 0.7, "far": 0.1}),
    ("30", {"visits": 0.91, "parking": 0.05, "far": 0.04}),
]


def answer(**more: Any) -> dict[str, Any]:
    """An answer with known shares."""
    parking, visits, far = hits()
    found: dict[str, Any] = {
        "id": "ask-1",
        "answer": "Until 21:30",
        "abstained": False,
        "confidence": 0.93,
        "question": "Until when may visitors stay?",
        "citations": [
            cited(visits, SHARES["visits"], [place_of(VISITS, "until 21:30")]),
            cited(parking, SHARES["parking"], []),
        ],
        "timings_ms": {"retrieve": 12.0, "total": 412.0},
        "posterior": SHARES,
        "tokens": [{"text": text, "posterior": shares} for text, shares in TOKENS],
        "hits": [parking, visits, far],
    }
    return {**found, **more}


def of_far() -> dict[str, Any]:
    """An answer quoted from the document with characters of two units."""
    far = hits()[2]
    quote = place_of(FAR, QUOTE)
    shares = {"far": 0.97, "visits": 0.02, "parking": 0.01}
    tokens = [{"text": one, "posterior": shares} for one in QUOTE]
    question = "探视到几点？"
    found = {"answer": QUOTE, "question": question, "citations": [cited(far, 0.97, [quote])]}
    return answer(**found, posterior=shares, tokens=tokens)


def unanswered() -> dict[str, Any]:
    """What is not in the documents."""
    found = {"answer": "", "abstained": True, "confidence": 0.07, "citations": [], "tokens": []}
    return answer(**found, question="Who painted the ceiling?")


def told(found: dict[str, Any], pause: float = 0.0) -> list[Step]:
    """The events of an answer."""
    even = dict.fromkeys(SHARES, 1 / 3)
    return [
        (0.0, "start", {"id": found["id"]}),
        (pause, "retrieved", {"question": found["question"], "hits": found["hits"]}),
        (pause, "token", {"text": found["answer"][:5], "posterior": even}),
        (pause, "answer", found),
    ]


def slow(found: dict[str, Any]) -> list[Step]:
    """The events of an answer that stays unfinished for a minute."""
    return [*told(found)[:3], (60.0, "answer", found)]
