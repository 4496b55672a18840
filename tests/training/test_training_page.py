"""The examples of the page on training run, one after the other."""

from pathlib import Path

import pytest

from tests.house.tree import ROOT, blocks


@pytest.mark.parametrize("page", ["docs/training.md", "docs/zh/training.md"])
def test_the_examples_run(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, example in enumerate(blocks(ROOT / page, "python"), 1):
        exec(compile(example, f"{page}, example {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "zh ('员工',)" in said
    assert "line 3, key 'anwsers': unknown; did you mean 'answers'?" in said
    assert "one passage for 100% of the questions" in said
    assert "False" not in said
