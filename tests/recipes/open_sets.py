"""A folder of data sets as the recipe of the shipped model reads it, of made-up sentences."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

Row = dict[str, Any]

TOWNS = ["Aber", "Bolo", "Cati", "Dorn", "Elva", "Fern", "Gola", "Hume"]
THINGS = ["library", "harbour", "school", "bridge", "museum", "market"]
SHIPS = ["图书馆", "港口", "学校", "大桥", "博物馆", "市场"]
KEPT_BACK = 0.03 * 2**32
"""Below this digest a paragraph is kept back, as in the recipe."""


def is_kept_back(context: str) -> bool:
    digest = hashlib.sha256(re.sub(r"\s", "", context).encode()).hexdigest()
    return int(digest[:8], 16) < KEPT_BACK


def contexts(make: Any, wanted: int, *, kept: bool, seed: int) -> Iterator[tuple[str, str]]:
    """Paragraphs with the number that each tells, kept back or not as wanted."""
    found = 0
    for number in count(1000 * seed + 1000):
        if found == wanted:
            return
        context = make(number)
        if is_kept_back(context) is kept:
            found += 1
            yield context, str(number)


def english(number: int) -> str:
    town, thing = TOWNS[number % 8], THINGS[number % 6]
    return f"The {thing} of {town} was built long ago. It cost {number} coins. People like it well."


def chinese(number: int) -> str:
    return f"城里的{SHIPS[number % 6]}很有名。它一共花了{number}元。人们都喜欢去那里看看。"


def reading(name: str, part: str, make: Any, ask: str, *, seed: int) -> list[Row]:
    """Rows of a reading set; the train part has some that are kept back."""
    parts = [(14, False), (6, True)] if part == "train" else [(4, False)]
    rows = []
    for wanted, kept in parts:
        for place, (context, number) in enumerate(contexts(make, wanted, kept=kept, seed=seed)):
            row = {
                "question": ask.format(number),
                "context": context,
                "title": f"Place_{place % 3}",
            }
            start = context.index(number)
            rows.append(row | {"answers": [number], "answer_starts": [start]})
    return rows


def write(data: Path, name: str, rows: list[Row]) -> None:
    path = data / f"{name}.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_open_sets(data: Path) -> Path:
    """Write every set that the recipe names."""
    en, zh = "What did the place that cost {} have?", "花了{}元的地方是多少？"
    for place, part in enumerate(("train", "dev")):
        for offset, name in enumerate(("squad_v11", "qed_nq")):
            rows = reading(name, part, english, en, seed=1 + 10 * place + offset)
            write(data, f"{name}/{part}", rows)
        for offset, name in enumerate(("cmrc2018", "drcd")):
            rows = reading(name, part, chinese, zh, seed=4 + 10 * place + offset)
            write(data, f"{name}/{part}", rows)
        none = reading("none", part, english, "Who sold {} ships?", seed=7 + 10 * place)
        none = [row | {"answers": [], "answer_starts": []} for row in none]
        write(data, f"squad_v2_unanswerable/{part}", none)
        yes = reading("boolq", part, english, "is {} much?", seed=8 + 10 * place)
        write(data, f"boolq/{part}", [row | {"answer": "yes"} for row in yes])
        write(data, f"xquad_en_zh/{part}", both_ways(40 + 20 * place))
    write_pairs(data)
    write_experts(data)
    write_tables(data)
    write_plain(data)
    write_tasks(data)
    return data


def both_ways(first: int) -> list[Row]:
    return [
        {
            "title": "Place",
            "context_en": english(n),
            "context_zh": chinese(n),
            "question_en": f"How much was it, {n}?",
            "question_zh": f"{n}是多少？",
            "answers_en": [str(n)],
            "answers_zh": [str(n)],
        }
        for n in range(first, first + 8)
    ]


def write_pairs(data: Path) -> None:
    told = [(english(n), chinese(n)) for n in range(70, 82)]
    sentences = [{"question": f"cost {n}?", "answer_sentence": t} for n, (t, _) in enumerate(told)]
    write(data, "reqa_squad/train", sentences)
    write(
        data,
        "medquad/train",
        [{"question": f"cure {n}?", "answer": t} for n, (t, _) in enumerate(told)],
    )
    for name in ("tatoeba_en_zh", "pydocs_en_zh"):
        write(data, f"{name}/train", [{"en": e, "zh": z} for e, z in told])


def write_experts(data: Path) -> None:
    """Questions whose passages are named: by number, and as snippets."""
    over = [
        {"question": f"{n}元的是什么？", "answers": [str(n)], "doc_ids": ["none", f"001-{n}"]}
        for n in range(120, 132)
    ]
    write(data, "crud_newsqa/train", over)
    write(data, "crud_newsqa/dev", over[:1])
    snippets = [
        {
            "question": f"Which number is {n}?",
            "type": ("factoid", "list")[n % 2],
            "answers": ["many", str(n)],
            "snippets": [{"text": "It was dear."}, {"text": english(n)}],
        }
        for n in range(140, 146)
    ]
    write(data, "bioasq/train", snippets)
    write(data, "bioasq/dev", snippets[:1])


def write_tables(data: Path) -> None:
    """Forms of countries and of sights."""
    lines = "Geography > Location: far\nPopulation > total: {0}0 (2023 est.)\nCoastline: {0} km\n"
    more = "Capital > name: Port {0}\nNote: NA\nElevation > highest point: Hill {0}"
    countries = [{"title": town, "text": (lines + more).format(n)} for n, town in enumerate(TOWNS)]
    write(data, "factbook/corpus", countries)
    sights = [
        {
            "title": f"{ship}{n}",
            "fields": {"名称": ship, "领域": "景点", "门票": n, "评分": 4.5, "电话": f"010-{n}"},
        }
        for n, ship in enumerate(SHIPS, start=200)
    ]
    write(data, "crosswoz/corpus", sights)


def write_plain(data: Path) -> None:
    for part in ("000", "001"):
        wiki = [{"title": "Town", "text": f"{english(n)} {english(n + 3)}"} for n in range(90, 110)]
        write(data, f"en_wikipedia_2015/train-{part}", wiki)
        news = [
            {"id": f"{part}-{n}", "text": chinese(n) + chinese(n + 1) + chinese(n + 2)}
            for n in range(120, 140)
        ]
        write(data, f"zh_news_crud/train-{part}", news)
    write(data, "zh_laws/train-000", [{"text": chinese(n)} for n in range(4)])
    write(data, "zh_poetry/train", [{"text": chinese(n)} for n in range(4)])
    write(data, "bioasq/corpus", [{"text": english(n)} for n in range(4)])


def write_tasks(data: Path) -> None:
    for name, make, labels in (
        ("subjectivity", english, ("objective", "subjective")),
        ("csl_category", chinese, ("历史学", "管理学")),
    ):
        rows = [{"text": make(n), "label": labels[n % 2]} for n in range(12)]
        write(data, f"{name}/train", rows)
    titles = [{"document": chinese(n), "summary": SHIPS[n % 6]} for n in range(12)]
    write(data, "csl_title/train", titles)
    short = [{"document": english(n), "summaries": [THINGS[n % 6]]} for n in range(12)]
    write(data, "scitldr/train", short)
