"""The examples of the page run, in both languages, on a tiny checkpoint."""

from pathlib import Path

import pytest
import torch
import transformers

from tests.compat.tiny_rag import rag_config, write_tokenizers
from tests.house.tree import ROOT, blocks


@pytest.mark.parametrize("page", ["docs/transformers.md", "docs/zh/transformers.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    transformers.RagTokenForGeneration(rag_config()).save_pretrained(tmp_path / "my-rag")
    write_tokenizers(tmp_path / "my-rag")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks(ROOT / page, "python")), page, "exec"), names)
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor)
    assert bool(loss.isfinite().all())
