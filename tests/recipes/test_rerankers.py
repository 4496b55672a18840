"""The recipe that trains rerankers, run over a world of a few passages and tiny models."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from consilience.documents import Document, Passage
from consilience.retrieval.reranking import open_reranker
from consilience.store import Store
from tests.retrieval.encoders import TrigramEncoder
from tests.retrieval.sentence_models import write_backbone

THINGS = ["ward", "card", "bank", "salmon", "ladder"]
RIGHT = "the {} and the river"
WRONG = ("the {} what is the fee", "a {} what is the fee hours", "the fee the {} is open")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "rerankers" / "train.py"
    spec = importlib.util.spec_from_file_location("rerankers_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Four passages of each thing; that with the river is right, the others have more words of
    the question."""
    with Store.open(tmp_path / "knowledge", encoder=TrigramEncoder()) as store:
        for thing in THINGS:
            store.add(Document(RIGHT.format(thing), source=thing))
            for place, text in enumerate(WRONG):
                store.add(Document(text.format(thing), source=f"{thing} {place}"))
    lines = [
        json.dumps({"question": f"what is the fee {thing}", "positive_ids": [thing]})
        for thing in THINGS
    ]
    lines.append(json.dumps({"question": "where", "positive_ids": ["nowhere"]}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines), "utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", ["cross-encoder", "multi-vector"])
def test_a_reranker_learns_from_hard_negatives(
    recipe: ModuleType, world: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = write_backbone(world / "start", outputs=1 if kind == "cross-encoder" else None)
    train, out = world / "train.jsonl", world / "out"
    words = [kind, str(train), "--store", str(world / "knowledge"), "--start", str(start)]
    words += ["--out", str(out), "--dev", str(train), "--negatives", "3", "--batch", "3"]
    words += ["--epochs", "60", "--rate", "0.003"]
    report = recipe.main(words)
    assert report["examples"] == len(THINGS)
    assert report["of"] == len(THINGS) + 1
    assert np.mean(report["losses"][-4:]) < 0.7 * np.mean(report["losses"][:4])
    assert json.loads(capsys.readouterr().out)["after"] == report["after"]
    share = round(len(THINGS) / (len(THINGS) + 1), 4)  # one question has nothing right to find
    assert report["before"]["recall@1"] == 0.0
    assert report["before"]["recall@5"] == share
    assert report["after"]["recall@1"] == share
    before, after = (load_file(next(place.rglob("model.safetensors"))) for place in (start, out))
    moved = [n for n, value in after.items() if n in before and not torch.equal(value, before[n])]
    assert any("attention" in name for name in moved)
    reranker = open_reranker(f"{kind}:{out}")
    for thing in THINGS:
        texts = [text.format(thing) for text in (*WRONG, RIGHT)]
        passages = [Passage(t, t, "", "s", None, 0, len(t)) for t in texts]
        assert int(reranker.score(f"what is the fee {thing}", passages).argmax()) == len(WRONG)


def test_questions_without_a_right_passage_teach_nothing(recipe: ModuleType, world: Path) -> None:
    (world / "none.jsonl").write_text('{"question": "fee", "positive_ids": ["nowhere"]}', "utf-8")
    words = ["cross-encoder", str(world / "none.jsonl"), "--store", str(world / "knowledge")]
    with pytest.raises(SystemExit, match="no question has a right passage"):
        recipe.main([*words, "--start", "unread", "--out", "unwritten"])


def test_what_is_right_is_no_negative_however_often_it_is_found(
    recipe: ModuleType, world: Path
) -> None:
    from consilience.questions import Question
    from consilience.retrieval import open_retriever

    with Store.open(world / "knowledge", create=False) as store:
        retriever = open_retriever(store, mode="bm25")
        asked = [Question("the fee", answers=("ward",)), Question("fee")]
        (found,) = recipe.mined(asked, retriever, negatives=4)
        assert found.right in {one.format("ward") for one in WRONG} | {RIGHT.format("ward")}
        assert not any("ward" in text for text in found.wrong)
        assert len(found.wrong) == 4
        assert list(recipe.mined(asked, retriever, negatives=40)) == []
