"""The examples of the pages on evaluation run as they are written."""

from pathlib import Path

import pytest

import consilience as cs
from tests.house.tree import ROOT, blocks


@pytest.mark.parametrize("page", ["docs/evaluation.md", "docs/zh/evaluation.md"])
def test_the_python_examples_run(
    page: str, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rag = cs.Rag.load(tiny_model_folder)
    examples = blocks(ROOT / page, "python")
    assert examples
    with cs.Store.open("knowledge", encoder=rag.encoder) as store:
        store.add(cs.Document("Visitors may stay until 20:00.", source="visits"))
        names: dict[str, object] = {"cs": cs, "rag": rag, "store": store}
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"{page}, example {number}", "exec"), names)
    assert (tmp_path / "report" / "index.html").is_file()
