"""Questions over tables: the answer is the cell that row and column pick, or nothing is there."""

import random
from pathlib import Path

import pytest

from consilience.documents.tables import render_table
from tests.recipes import conftest  # noqa: F401 - makes the recipe importable
from tests.recipes.open_sets import write_open_sets

tables = pytest.importorskip("tables", exc_type=ImportError)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open_sets(tmp_path_factory.mktemp("data"))


def test_fields_are_named_as_people_name_them(data: Path) -> None:
    first = tables.countries(data)[0]
    assert first.name == "Aber"
    assert first.fields == {
        "location": "far",
        "total population": "00",
        "coastline": "0 km",
        "name": "Port 0",
        "highest point": "Hill 0",
    }
    assert tables.sights(data)[0].fields == {"门票": "200", "评分": "4.5", "电话": "010-200"}


def test_every_answer_is_the_cell_that_is_asked_for(data: Path) -> None:
    known = {one.name: one for one in (*tables.countries(data), *tables.sights(data))}
    found = tables.table_readings(data)
    answered = [one for one in found if one.start >= 0]
    assert 0.6 < len(answered) / len(found) < 1
    for reading in answered:
        (entry,) = (known[name] for name in known if name in reading.question)
        answer = reading.passage[reading.start : reading.end]
        assert answer in entry.fields.values()
        line = reading.passage[: reading.end].rpartition("\n")[2]
        assert reading.title == entry.name or entry.name in line
    assert {bool(one.title) for one in answered} == {True, False}  # forms, and lists


def test_what_is_not_there_is_not_answered(data: Path) -> None:
    known = [one.name for one in (*tables.countries(data), *tables.sights(data))]
    missing = [one for one in tables.table_readings(data) if one.start < 0 and not one.title]
    assert missing
    for reading in missing:
        (name,) = (name for name in known if name in reading.question)
        assert name not in reading.passage


def test_rows_are_written_as_documents_write_them() -> None:
    entries = [
        tables.Entry(f"Place {n}", {"price": f"{n} coins", "size": f"{n} m", "colour": "red"})
        for n in range(6)
    ]
    (reading,) = tables._over_list(entries[0], entries, "en", random.Random(4))
    lines = reading.passage.splitlines()
    head = [part.partition(": ")[0] for part in lines[0].split("; ")]
    cells = [[part.partition(": ")[2] for part in line.split("; ")] for line in lines]
    assert len(head) > 1
    assert lines == render_table([head, *cells])
