"""The figures of the card: measured on what is there, paired where two models are compared."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.recipes import conftest  # noqa: F401 - makes the recipe importable
from tests.recipes.open_sets import write_open_sets
from tests.tiny import write_tiny_model

measure = pytest.importorskip("measure", exc_type=ImportError)
CARD = "# A model\n\nBefore.\n<!-- figures -->\nold\n<!-- end of figures -->\nAfter.\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measure")
    write_open_sets(place / "data")
    write_tiny_model(place / "one")
    write_tiny_model(place / "two", seed=5)
    return place


def run(world: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    measure.main([str(world / "data"), str(world / "one"), "--beams", "1", *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_set_is_read_and_found(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(world, capsys, "--paragraphs", "30")
    read = [line for line in lines if "em" in line]
    found = [line for line in lines if "recall@5" in line]
    assert [line["set"] for line in read] == list(measure.READ)
    assert {line["n"] for line in read} == {4}
    assert [line["set"] for line in found] == list(measure.FOUND)
    assert {line["paragraphs"] for line in found} == {30}
    assert all(0 <= line["recall@5"] <= 1 for line in found)


def test_a_model_does_not_differ_from_itself(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(world, capsys, "--against", str(world / "one"), "--sets", "cmrc2018")
    assert lines[0]["support difference"] == {"mean": 0, "low": 0, "high": 0}
    other = run(world, capsys, "--against", str(world / "two"), "--sets", "cmrc2018")
    assert other[0]["support difference"]["mean"] != 0


def test_differences_are_paired() -> None:
    before, after = [0.0, 1.0] * 50, [0.1, 1.1] * 50
    found = measure.difference(before, after)
    assert found == {"mean": 0.1, "low": 0.1, "high": 0.1}


def test_the_nearest_are_found(world: Path) -> None:
    class Told:
        """Vectors of texts by the number that they hold."""

        def encode_passages(self, texts: list[str]) -> Any:
            import numpy as np

            digits = [int(re.findall(r"\d{4,}", text)[0]) for text in texts]
            return np.array([[np.cos(d / 1e5), np.sin(d / 1e5)] for d in digits])

        encode_questions = encode_passages

    rows = measure.some(world / "data", "squad_v11", 3)
    texts = measure.paragraphs(world / "data", 60)
    found = measure.recall(Told(), texts, {"squad_v11": rows})
    assert found["squad_v11"]["recall@5"] == [1.0, 1.0, 1.0]


def test_the_tables_of_the_cards_are_written_and_nothing_else(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in measure.HEADS:
        (world / "one" / name).write_text(CARD, "utf-8")
    run(world, capsys, "--cards", "--most", "3", "--paragraphs", "20")
    for name, heads in measure.HEADS.items():
        card = (world / "one" / name).read_text("utf-8")
        assert card.startswith("# A model\n\nBefore.\n<!-- figures -->\n| " + " | ".join(heads))
        assert card.endswith("|\n<!-- end of figures -->\nAfter.\n")
        assert "| SQuAD 1.1 | 3 | " in card
        assert "old" not in card


def test_a_card_without_a_place_for_figures_is_named(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in measure.HEADS:
        (world / "one" / name).write_text("# A model\n", "utf-8")
    with pytest.raises(SystemExit, match=r"needs the lines <!-- figures --> and"):
        run(world, capsys, "--cards", "--sets", "drcd", "--paragraphs", "0")
    assert set(measure.HEADS) == {"MODEL_CARD.md", "MODEL_CARD.zh.md"}


def test_the_cards_that_ship_have_a_place_for_figures() -> None:
    from consilience.encoding.folder import shipped_folder

    for name in measure.HEADS:
        card = (shipped_folder() / name).read_text("utf-8")
        assert [card.count(mark) for mark in measure.MARKS] == [1, 1]
