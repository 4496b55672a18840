"""Questions over tables, made from what is known of countries, sights, restaurants and hotels.

A price list is not read as a sentence is: the answer stands beside a name, in a row that another
name picks. The rows are written as `consilience.documents` writes those of spreadsheets and pages,
so that what is learned here is what a user's tables look like to the model. Questions name the row
and the column in the words of people; some ask for what the rows do not tell.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixture import Reading, read_rows

LONGEST = 60
"""Characters of a value that is asked for."""

EMPTY = frozenset({"", "na", "none", "none."})
"""Values that say nothing."""

OURS = frozenset({"名称", "领域"})
"""Fields that are written as the name of a row, or not at all."""

MOST_ROWS = 5
"""Rows of a list; more would not fit into what is read at once."""

MISSING = 0.15
"""The share of questions that the rows do not answer."""

ASKED = {
    "en": ("What is the {f} of {e}?", "What {f} does {e} have?", "{e}: what is the {f}?"),
    "zh": ("{e}的{f}是什么？", "{e}的{f}是多少？", "请问{e}的{f}？"),
}
"""How any field is asked for."""

WORDED = {
    "门票": ("{e}的门票多少钱？", "去{e}要花多少钱？"),
    "价格": ("住{e}一晚多少钱？", "{e}怎么收费？"),
    "人均消费": ("在{e}吃一顿人均多少钱？", "{e}人均要花多少？"),
    "电话": ("{e}的电话号码是多少？", "怎么联系{e}？"),
    "地址": ("{e}在哪里？", "{e}的地址在哪儿？"),
    "地铁": ("去{e}坐地铁到哪一站？", "离{e}最近的地铁口是哪个？"),
    "游玩时间": ("在{e}要玩多久？", "逛{e}需要多长时间？"),
    "营业时间": ("{e}几点营业？", "什么时候可以去{e}？"),
    "total population": ("How many people live in {e}?",),
    "coastline": ("How long is the coast of {e}?",),
    "capital": ("Which city is the capital of {e}?",),
    "highest point": ("Which is the highest mountain of {e}?",),
    "agricultural land": ("How much of {e} is used for farming?",),
    "forest": ("How much of {e} is covered by trees?",),
}
"""How people ask for some of them."""

NAME = {"en": "Name", "zh": "名称"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one thing.

    Attributes:
        name: Of it.
        fields: Values by what they are of.
    """

    name: str
    fields: dict[str, str]


def countries(data: Path) -> list[Entry]:
    """Countries in English."""
    found = []
    for row in read_rows(data / "factbook" / "corpus.jsonl.gz"):
        pairs = [line.partition(": ") for line in str(row["text"]).splitlines()]
        fields = {_named(key): _bare(value) for key, _, value in pairs if value}
        found.append(Entry(str(row["title"]), _short(fields)))
    return found


def sights(data: Path) -> list[Entry]:
    """Sights, restaurants and hotels in Chinese."""
    return [
        Entry(str(row["title"]), _short({k: _told(v) for k, v in row["fields"].items()}))
        for row in read_rows(data / "crosswoz" / "corpus.jsonl.gz")
    ]


def _named(key: str) -> str:
    """A field as people call it: `Population > total` is the total population."""
    *above, last = key.lower().split(" > ")
    return f"{last} {above[-1]}" if above and last in {"total", "male", "female"} else last


def _bare(value: str) -> str:
    """A value without the year of its estimate."""
    return re.sub(r" \([^()]*\)$", "", value.strip())


def _told(value: object) -> str:
    return "、".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(fields: dict[str, str]) -> dict[str, str]:
    """The fields that can be asked for; the name is not among them."""
    return {name: value for name, value in fields.items() if _can_be_asked(name, value)}


def _can_be_asked(name: str, value: str) -> bool:
    telling = value.isprintable() and ": " not in value and value.lower() not in EMPTY
    return telling and len(value) <= LONGEST and name not in OURS and name.count(" ") < 5


def over_tables(entries: Sequence[Entry], language: str, *, times: int, seed: int) -> list[Reading]:
    """Questions over forms of one entry and over lists of several, as many of each."""
    rng, usable = random.Random(seed), [one for one in entries if len(one.fields) >= 3]
    made = []
    for entry in usable * times:
        others = rng.sample(usable, min(len(usable), 7))
        made += [_over_form(entry, language, rng), *_over_list(entry, others, language, rng)]
    return made


def _over_form(entry: Entry, language: str, rng: random.Random) -> Reading:
    """A question over some fields of one entry, whose name is the title."""
    names = list(entry.fields)
    first = rng.randrange(max(1, len(names) - 7))
    shown = names[first : first + rng.randint(3, 8)]
    hidden = [name for name in names if name not in shown]
    field = rng.choice(hidden if hidden and rng.random() < MISSING else shown)
    lines = [(name, entry.fields[name]) for name in shown]
    return _reading(_asked(entry.name, field, language, rng), entry.name, [lines], 0, field)


def _over_list(
    entry: Entry, others: Sequence[Entry], language: str, rng: random.Random
) -> Iterator[Reading]:
    """A question over rows of several entries with the same few fields."""
    common = [e for e in others if e.name != entry.name and len(e.fields.keys() & entry.fields) > 1]
    columns = [name for name in entry.fields if all(name in e.fields for e in common[:3])]
    if len(common) < 3 or not columns:
        return
    columns = rng.sample(columns, min(len(columns), rng.randint(1, 3)))
    more = [one for one in common[3:] if all(column in one.fields for column in columns)]
    rows = [entry, *common[:3], *more][:MOST_ROWS]
    if rng.random() < MISSING:
        rows = rows[1:]
    rng.shuffle(rows)
    field = rng.choice(columns)
    cells = [
        [(NAME[language], one.name), *((column, one.fields[column]) for column in columns)]
        for one in rows
    ]
    place = rows.index(entry) if entry in rows else -1
    yield _reading(_asked(entry.name, field, language, rng), "", cells, place, field)


def _asked(name: str, field: str, language: str, rng: random.Random) -> str:
    ways = (*ASKED[language], *WORDED.get(field, ()) * 3)
    return rng.choice(ways).format(e=name, f=field)


def _reading(
    question: str, title: str, rows: list[list[tuple[str, str]]], place: int, field: str
) -> Reading:
    """A reading over rows; the answer is a field of the row at `place`, if it is there."""
    text, start, end = "", -1, -1
    for number, row in enumerate(rows):
        # One row is a form, a field a line; of several, each is a line.
        for position, (name, value) in enumerate(row):
            text += ("\n" if len(rows) == 1 else "; ") if position else ""
            text += f"{name[0].upper()}{name[1:]}: "
            if number == place and name == field:
                start, end = len(text), len(text) + len(value)
            text += value
        text += "\n"
    return Reading(question, title, text.rstrip("\n"), start, end)


def table_readings(data: Path, *, seed: int = 13) -> list[Reading]:
    """Questions over tables in both languages, Chinese less often, since its fields are fewer."""
    made = over_tables(countries(data), "en", times=12, seed=seed)
    made += over_tables(sights(data), "zh", times=1, seed=seed)
    random.Random(seed).shuffle(made)
    return made
