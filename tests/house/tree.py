"""The files of this project, as the tests of the house see them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNTRACKED = {"__pycache__", "build", "dist", "knowledge", "runs", "node_modules"}
OWN_HIDDEN = {".ci", ".gitignore", ".pre-commit-config.yaml"}
TEXT = {
    *(".md", ".txt", ".csv", ".html", ".json", ".jsonl", ".svg"),
    *(".py", ".toml", ".yaml", ".lock", ""),
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PAIRS = [
    (ROOT / "README.md", ROOT / "README.zh.md"),
    (
        ROOT / "examples/three_organisations/README.md",
        ROOT / "examples/three_organisations/README.zh.md",
    ),
    *((path, ROOT / "docs/zh" / path.name) for path in sorted((ROOT / "docs").glob("*.md"))),
]
"""Pages in English, each with the one in Chinese."""


def named(path: Path) -> str:
    """A path as a test shows it."""
    return path.relative_to(ROOT).as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in UNTRACKED or path.name.endswith(".egg-info"):
            continue
        if path.name.startswith(".") and path.name not in OWN_HIDDEN:
            continue
        if path == ROOT / "benchmarks" / "work":
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def files() -> list[Path]:
    """Every file that belongs to the project, without what tools leave behind."""
    return list(_walk(ROOT))


def text_files() -> list[Path]:
    """Files that hold text of ours."""
    return [path for path in files() if path.suffix in TEXT]


def pages() -> list[Path]:
    """Documentation: every Markdown file but documents and manuscripts of the example corpus."""
    corpus = {"documents", "manuscripts"}
    return [path for path in files() if path.suffix == ".md" and not corpus & set(path.parts)]


def without_code(text: str) -> str:
    """Markdown without its fenced blocks."""
    return FENCE.sub("", text)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [code for name, code in FENCE.findall(page.read_text("utf-8")) if name == language]
