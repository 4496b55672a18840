"""Documentation that cannot drift: links resolve, languages keep step, everything has its place."""

import re
import tomllib
from pathlib import Path

import pytest

from consilience import errors
from consilience.cli.main import InternalError, InterruptedByUserError
from consilience.errors import ConsilienceError, UsageError
from consilience.serving import errors as served
from tests.house.tree import PAIRS, ROOT, blocks, named, pages, without_code

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))


def kinds() -> list[type[ConsilienceError]]:
    found = [*vars(errors).values(), *vars(served).values(), InternalError, InterruptedByUserError]
    own = {each for each in found if isinstance(each, type) and issubclass(each, ConsilienceError)}
    return [each for each in own if each.kind != UsageError.kind or each is UsageError]


@pytest.mark.parametrize("page", pages(), ids=named)
def test_relative_links_resolve(page: Path) -> None:
    links = LINK.findall(without_code(page.read_text("utf-8")))
    inside = [link.split("#")[0] for link in links if "://" not in link]
    assert [link for link in inside if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda path: path.name)
class TestBothLanguages:
    def test_headings_have_the_same_levels(self, english: Path, chinese: Path) -> None:
        levels = [
            HEADING.findall(without_code(page.read_text("utf-8"))) for page in (english, chinese)
        ]
        assert levels[0] == levels[1]

    def test_tables_have_as_many_rows(self, english: Path, chinese: Path) -> None:
        rows = [
            len(re.findall(r"^\|", without_code(page.read_text("utf-8")), re.MULTILINE))
            for page in (english, chinese)
        ]
        assert rows[0] == rows[1]

    def test_examples_are_as_many(self, english: Path, chinese: Path) -> None:
        for language in ("bash", "python", "json"):
            assert len(blocks(english, language)) == len(blocks(chinese, language)), language

    def test_each_leads_to_the_other(self, english: Path, chinese: Path) -> None:
        for page, other in ((english, chinese), (chinese, english)):
            linked = {
                (page.parent / link).resolve() for link in LINK.findall(page.read_text("utf-8"))
            }
            assert other.resolve() in linked


def test_every_page_of_the_docs_has_a_chinese_twin() -> None:
    english = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert english == {page.name for page in (ROOT / "docs/zh").glob("*.md")}


@pytest.mark.parametrize("page", ["docs/errors.md", "docs/zh/errors.md"])
def test_every_kind_of_error_has_a_section(page: str) -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert headings == [f"{kind.code} {kind.kind}" for kind in sorted(kinds(), key=_order)]


def _order(kind: type[ConsilienceError]) -> tuple[int, str]:
    return kind.code, kind.kind


@pytest.mark.parametrize("page", ["docs/errors.md", "docs/zh/errors.md"])
def test_reasons_in_the_table_are_reasons_that_readers_give(page: str) -> None:
    section = (ROOT / page).read_text("utf-8").split("## 7 document")[1].split("\n## ")[0]
    reasons = re.findall(r"^\| ([a-z][^|]*) \|", section.split("---|\n")[1], re.MULTILINE)
    readers = (ROOT / "src/consilience/documents").rglob("*.py")
    source = "\n".join(path.read_text("utf-8") for path in readers)
    said = [reason for cell in reasons for reason in re.split(", |、", cell)]
    assert len(said) >= 10
    assert [reason for reason in said if f'"{reason}' not in source] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_title_date_status_and_number(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.name[:4]}. ")
    assert re.search(r"^- Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert re.search(r"^- Status: (accepted|replaced by \[\d{4}\])", text, re.MULTILINE)
    number = re.search(r"^- Number: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert number is not None
    assert re.search(r"\d", number[1])


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    listed = LINK.findall((ROOT / "docs/decisions/README.md").read_text("utf-8"))
    assert {page.name for page in DECISIONS} <= set(listed)


def test_the_order_of_rooms_is_the_one_that_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    order = " < ".join(layer.replace("consilience.", "") for layer in reversed(layers))
    told = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert _sorted_neighbours(order) in [
        _sorted_neighbours(line.strip()) for line in told.splitlines() if " < " in line
    ]


def _sorted_neighbours(order: str) -> list[list[str]]:
    return [sorted(layer.split(" | ")) for layer in order.split(" < ")]


def test_pictures_that_were_drawn_are_shown() -> None:
    for readme, picture in (("README.md", "demo-en"), ("README.zh.md", "demo-zh")):
        drawn = (ROOT / f"docs/images/{picture}.svg").is_file()
        shown = f"](docs/images/{picture}.svg)" in (ROOT / readme).read_text("utf-8")
        assert drawn == shown, readme


def test_the_corpus_page_counts_what_is_there() -> None:
    corpus = ROOT / "examples/three_organisations"
    told = (corpus / "README.md").read_text("utf-8")
    for name in ("hospital", "bank", "university"):
        documents = len(list((corpus / name / "documents").iterdir()))
        splits = [_lines(corpus / name / f"questions/{s}.jsonl") for s in ("train", "dev", "test")]
        assert f"| `{name}/` | {documents} | {splits[0]} | {splits[1]} | {splits[2]} |" in told


def _lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())
