"""The pictures of the documentation show what was printed, and fetch nothing."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tools.terminal_picture import main, picture

PRINTED = "\x1b[1;32m340,000 yuan\x1b[0m\n 1 ████ 97%  documents/mri-safety.pdf:2 <b>\n回答 15天\n"


def words_in(svg: str) -> str:
    root = ET.fromstring(svg)
    found = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    return " ".join("\n".join(found).replace("\xa0", " ").split())


def test_all_that_was_printed_is_shown_with_the_command_above() -> None:
    shown = words_in(picture(PRINTED, command='consilience ask "?"'))
    assert shown.startswith('consilience $ consilience ask "?" 340,000 yuan 1 ████ 97%')
    assert shown.endswith("documents/mri-safety.pdf:2 <b> 回答 15天")


def test_colours_are_drawn() -> None:
    assert "#18783e" in picture(PRINTED)
    assert "#18783e" not in picture("340,000 yuan")


def test_no_font_or_anything_else_is_fetched() -> None:
    svg = picture(PRINTED)
    assert "@font-face" not in svg
    assert "url(" not in svg.replace("url(#", "")
    assert "Noto Sans Mono CJK SC" in svg


def test_the_same_text_gives_the_same_bytes() -> None:
    assert picture(PRINTED) == picture(PRINTED)


def test_lines_beyond_the_last_wanted_are_left_out() -> None:
    assert "mri-safety" not in words_in(picture(PRINTED, lines=1))


def test_the_picture_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PRINTED))
    assert main([str(tmp_path / "x.svg"), "--command", "consilience"]) == 0
    assert (tmp_path / "x.svg").read_text("utf-8") == picture(PRINTED, command="consilience")


def test_nothing_printed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x.svg")])
    assert "standard input is empty: there is nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
